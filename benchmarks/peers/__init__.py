"""Other engines on the same checkpoints: each in its own process and environment, asked alike."""
