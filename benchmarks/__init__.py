"""Measurements that scripts/bench runs: each states what it measures and how."""
