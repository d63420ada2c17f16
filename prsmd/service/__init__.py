"""Use cases: permission, validation, one transaction, wake the loop. One file per noun."""
