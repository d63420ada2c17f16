"""Serving protocols: pure translation between prsmd's inference and what a container speaks."""
