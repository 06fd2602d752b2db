"""What every floor may use, and none of it knows of energy: clocks, files, texts, statistics, the system."""
