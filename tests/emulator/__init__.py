"""Emulated hardware with exactly known energy, for tests."""
