"""The version of reckg."""

__version__ = "0.1.0"
