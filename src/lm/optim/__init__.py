"""Optimisers, learning-rate schedules and gradient clipping.

`optimizers` and `schedules` hold the schemas, `base` and `schedule_base` what they build; `guard`
skips bad steps on the device, `state` saves and restores exactly, `clipping` measures gradients.
"""

from lm.optim.base import OptimConfig, Optimizers
from lm.optim.optimizers import OPTIMIZERS
from lm.optim.schedule_base import ScheduleConfig
from lm.optim.schedules import SCHEDULES

__all__ = ["OPTIMIZERS", "SCHEDULES", "OptimConfig", "Optimizers", "ScheduleConfig"]
