"""The only loops: observe, reconcile, execute, probe, autoscale."""
