"""aimeter and its peers on one emulated machine, with the same calls: `python -m benchmarks.peers`."""
