"""The version of aimeter, as written into every row."""

__version__ = "0.1.0"
