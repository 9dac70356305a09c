"""The root schema of `lm score`."""

from dataclasses import dataclass, field, fields

from omegaconf import MISSING

from lm import checks
from lm.errors import ConfigError
from lm.evaluation.adaptation import DynamicConfig
from lm.runtime.device import RuntimeConfig
from lm.scoring.columns import COLUMNS, DEFAULT_COLUMNS
from lm.scoring.nbest import Rescoring
from lm.scoring.output import Format
from lm.scoring.scorer import Carry
from lm.scoring.units import Level


@dataclass(kw_only=True, slots=True)
class ScoreConfig:
    """`lm score`.

    Attributes:
        run: a run directory or a checkpoint.
        checkpoint: which one of the run: `best`, `last` or a name such as `step-000001000`.
        input: the text, a file; `-` is standard input, answered line by line.
        output: a file for the rows, whole or absent; None is standard output.
        format: `tsv`, `jsonl`, or `nbest` to rank lines of `id score text` anew.
        level: what a row is about.
        columns: those to write, in this order; None is what the level has, but for byte offsets.
        state: whether lines are read one after the other (`carry`, as in `lm evaluate`) or each by
            itself after a line end (`reset`).
        begin: put a line end before the text, so that its first token has a surprisal; None does
            so where every line stands alone.
        window: tokens per chunk; changes speed and memory, not the numbers.
        adaptive: the model learns from the text while it reads (van Schijndel and Linzen 2018); the
            run stays as it is.
        dynamic: how it learns; lr and decay have to be given.
        changed_data: learn by statistics of the run's own data although it is not what it was
            trained with.
        weight: n-best: of ln p(text), in combined = score + weight · ln p + word_bonus · words;
            natural logarithms, higher is better.
        word_bonus: n-best: for each word; negative is a penalty.
        costs: n-best: scores are costs, lower is better, and count with a minus.
        best: n-best: write only the best hypothesis of each id.
    """

    run: str = MISSING
    checkpoint: str = "best"
    input: str = MISSING
    output: str | None = None
    format: Format = Format.tsv
    level: Level = Level.word
    columns: list[str] | None = None
    state: Carry = Carry.carry
    begin: bool | None = None
    window: int = 1024
    adaptive: bool = False
    dynamic: DynamicConfig = field(default_factory=DynamicConfig)
    changed_data: bool = False
    weight: float = 1.0
    word_bonus: float = 0.0
    costs: bool = False
    best: bool = False
    runtime: RuntimeConfig = MISSING

    def __post_init__(self) -> None:
        checks.at_least("window", self.window, 1)
        checks.at_most("window", self.window, checks.MOST_HELD)
        checks.finite("weight", self.weight)
        checks.finite("word_bonus", self.word_bonus)
        if self.columns is not None:
            checks.at_least("len(columns)", len(self.columns), 1)
            for name in self.columns:
                checks.one_of("columns", name, COLUMNS[self.level])
        self._check_format()
        self._check_state()
        self._check_learning()

    def _check_format(self) -> None:
        if self.format is Format.nbest:
            of_text = ("level", "columns", "state", "begin", "adaptive")
            self._no_effect(of_text, "format=nbest", "format=tsv")
        else:
            of_lists = ("weight", "word_bonus", "costs", "best")
            self._no_effect(of_lists, f"format={self.format.name}", "format=nbest")

    def _check_state(self) -> None:
        if self.state is Carry.reset and self.begin is False:
            raise ConfigError(
                "state=reset reads every line after a line end, and begin=false asks for none",
                "Leave begin out, or set state=carry.",
            )
        if self.state is Carry.reset and self.adaptive:
            raise ConfigError(
                "adaptive=true learns from line to line, and state=reset reads each by itself",
                "Set state=carry.",
            )

    def _check_learning(self) -> None:
        if not self.adaptive:
            self._no_effect(("dynamic", "changed_data"), "adaptive=false", "adaptive=true")
            return
        self._no_effect(("window",), "adaptive=true", "dynamic.segment in its place")
        for name in ("lr", "decay"):
            if getattr(self.dynamic, name) is None:
                raise ConfigError(
                    f"adaptive=true needs dynamic.{name}: a text that is scored tunes nothing",
                    f"Set dynamic.{name}, for example to what `lm evaluate method=dynamic` tunes.",
                )

    def _no_effect(self, names: tuple[str, ...], because: str, remedy: str) -> None:
        for spec in fields(self):
            usual = DynamicConfig() if spec.name == "dynamic" else spec.default
            if spec.name in names and getattr(self, spec.name) != usual:
                raise ConfigError(f"{spec.name} has no effect with {because}", f"Set {remedy}.")

    @property
    def begins(self) -> bool:
        """Whether a line end comes before the text."""
        return bool(self.begin)

    def wanted_columns(self) -> tuple[str, ...]:
        """The columns to write, in their order."""
        return DEFAULT_COLUMNS[self.level] if self.columns is None else tuple(self.columns)

    def rescoring(self) -> Rescoring:
        """How n-best scores are combined."""
        return Rescoring(self.weight, self.word_bonus, self.costs, self.best)
