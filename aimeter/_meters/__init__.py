"""What stands behind `aimeter.Meter`: the way of its rows, and the meters of a process among themselves."""
