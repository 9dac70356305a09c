"""The root schema of `lm inspect`."""

from dataclasses import dataclass

from omegaconf import MISSING

from lm import checks
from lm.data.corpus import SPLITS, DataConfig, Unit
from lm.runtime.device import RuntimeConfig


@dataclass(kw_only=True, slots=True)
class InspectConfig:
    """`lm inspect`.

    Attributes:
        run: a run directory or a checkpoint, or several in brackets, side by side: `[A,B]`.
        checkpoint: which one of a run: `best`, `last` or a name such as `step-000001000`.
        split: whose text the models read.
        lags: K, how many steps back gradients are followed.
        positions: places of the text that gradients are averaged over.
        context: the longest of the lengths 1, 2, 4, … after which the state is reset; None is off.
        context_tokens: how much of the split these perplexities are measured on; None is all.
        steps: of training that are rehearsed from the checkpoint, for update-to-weight ratios and
            the clip advisor; None is off.
        data: another corpus than the one that the run was trained on.
        unit: where the state is reset; None is as in training, or what `data.unit` says.
        changed_data: inspect although the run's own data is not what it was trained with.
        output: the folder that results go to; None is `inspect/<checkpoint>` in the run's own, and
            `inspect/together` in the folder that all of several runs are in.
        pictures: draw them; needs matplotlib, the extra `plot`.
    """

    run: list[str] = MISSING
    checkpoint: str = "best"
    split: str = "valid"
    lags: int = 100
    positions: int = 256
    context: int | None = 512
    context_tokens: int | None = 20_000
    steps: int | None = 20
    data: DataConfig | None = None
    unit: Unit | None = None
    changed_data: bool = False
    output: str | None = None
    pictures: bool = True
    runtime: RuntimeConfig = MISSING

    def __post_init__(self) -> None:
        checks.at_least("len(run)", len(self.run), 1)
        checks.one_of("split", self.split, SPLITS)
        for name in ("lags", "positions", "context", "context_tokens", "steps"):
            checks.at_least(name, getattr(self, name), 1)
            checks.at_most(name, getattr(self, name), checks.MOST_HELD)
