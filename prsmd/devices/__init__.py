"""Drivers that measure the hardware."""
