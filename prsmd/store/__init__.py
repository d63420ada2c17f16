"""The control state on disk: one SQLite file, one writer task, one file per noun."""
