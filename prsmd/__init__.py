"""prsmd: a private model-serving appliance on one machine."""

__version__ = "0.1.0"
