"""From published values to knots: of a counter, of a power averaged over all of the time, of one that sees a part of it."""
