"""Where calls are seen beside the log: metrics and traces for what people look at already."""
