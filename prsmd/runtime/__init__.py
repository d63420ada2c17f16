"""Drivers of container engines."""
