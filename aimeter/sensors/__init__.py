"""The meters aimeter can read, one file each; `discover` chooses among them."""
