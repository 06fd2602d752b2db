"""What metering costs: ratios measured in one run. See README.md."""
