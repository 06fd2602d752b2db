"""What the command line does: one file a command; `aimeter.cli` only names them and their options."""
