"""How well a model predicts a text: the exact number, the other methods, and what they are worth.

The currency is nats per token in the order of the text: every method gives them, and score,
interval, paired test and interpolation are made of them.
"""

from lm.evaluation.exact import check_evaluable, evaluate

__all__ = ["check_evaluable", "evaluate"]
