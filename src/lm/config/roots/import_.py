"""The root schema of `lm import`."""

from dataclasses import dataclass

from omegaconf import MISSING

from lm.config.roots.training import check_name
from lm.data.corpus import DataConfig
from lm.models import ModelConfig


@dataclass(kw_only=True, slots=True)
class ImportConfig:
    """`lm import`: foreign weights into a run directory of ours.

    Attributes:
        path: the checkpoint file.
        vocabulary: its vocabulary: a word a line, in the order of their ids.
        name: the run's experiment; its directory is `<runs>/<name>/<date>_<time>_<id>/`.
        runs: the folder of all runs.
        model: the architecture that the weights belong to.
        data: the corpus that the imported run is evaluated on by default.
    """

    path: str = MISSING
    vocabulary: str = MISSING
    name: str = "imported"
    runs: str = "runs"
    model: ModelConfig = MISSING
    data: DataConfig = MISSING

    def __post_init__(self) -> None:
        check_name(self.name)
