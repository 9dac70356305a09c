"""The loop, visible on one screen, with its state and its limits."""

from lm.training.config import TrainerConfig

__all__ = ["TrainerConfig"]
