"""From readings to each device's energy over time, with its error."""
