"""One small worked example of each way to extend aimeter: a sensor, a sink, an adapter and a carbon provider."""
