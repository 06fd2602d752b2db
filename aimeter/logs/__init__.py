"""Rows as bytes and back: CSV and JSON Lines, appended by many processes, read however torn."""
