"""Decisions: functions from values to values. No I/O, no logging; `now` is a parameter."""
