"""What the server process has behind it when it forks: imports, and configurations composed."""

import gc

import composing
from pytest import MonkeyPatch  # noqa: PT013
from small_run import RECIPE

import lm.cli.launch
import lm.commands.evaluate
import lm.commands.train  # noqa: F401
from lm.config import compose

composing.install(MonkeyPatch())
compose("train", RECIPE)
gc.collect()
gc.freeze()  # so that no child goes through, and copies, what it shares with all
