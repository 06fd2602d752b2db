"""Measuring on purpose what metering otherwise learns by and by."""
