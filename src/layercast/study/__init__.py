"""The instrument: run a model over precisions and configurations, and measure what moved."""
