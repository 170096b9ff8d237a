"""The matrix: every way of computing a sequence that must not show in its log-probabilities."""
