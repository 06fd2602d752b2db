"""Whose joules: the energy of each curve divided among the calls that were open, row by row."""
