"""Frozen values that every layer shares. Nothing here decides, reads a clock or does I/O."""
