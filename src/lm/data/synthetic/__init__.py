"""Text drawn from sources whose true probabilities are known, so that a model has a known limit."""
