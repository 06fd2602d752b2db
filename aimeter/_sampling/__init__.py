"""Reading the sensors in the background, only while somebody wants it."""
