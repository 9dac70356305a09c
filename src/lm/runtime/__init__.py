"""The machine beneath: random draws, device, run folders. Below it only checks and errors."""

from lm.runtime.device import RuntimeConfig

__all__ = ["RuntimeConfig"]
