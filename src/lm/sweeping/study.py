"""Optuna's study of a sweep: what it proposes, what it is told, which trials it ends early.

Optuna is imported when a sweep begins, in this package alone.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm.errors import ConfigError
from lm.sweeping.methods import Pruner, Sampler, distribution, pruner_of, sampler_of
from lm.sweeping.space import Parameter, Value, grid
from lm.sweeping.storage import opening

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, slots=True)
class Record:
    """A trial as the study has it.

    Attributes:
        state: `complete`, `pruned`, `failed` or `running`.
        params: what was chosen; nothing for a default that lies outside the space.
        value: of a complete trial, the lowest of its curve.
        curve: what was validated so far, in turn.
        default: nothing was changed.
        facts: what was noted beside it: `cause`, `seconds`, `same_as`.
    """

    number: int
    state: str
    params: dict[str, Value]
    value: float | None
    curve: list[float]
    default: bool
    facts: dict[str, Any]


@dataclass(slots=True)
class Trial:
    """A trial under way.

    Attributes:
        reported: how many validations the study knows of.
    """

    number: int
    params: dict[str, Value]
    handle: "optuna.Trial"
    reported: int = 0


def require_optuna() -> None:
    """Find out before any work whether there can be a study.

    Raises:
        ConfigError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "lm sweep needs Optuna, which is not installed", "pip install optuna"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Study:
    """The study of one sweep; other processes with the same storage may take part in it.

    What it proposes is a function of the seed and of the trials before, so that an interrupted
    sweep goes on as it would have.

    Args:
        storage: a database as SQLAlchemy's URL, or Optuna's own way to one.
        owner: of the trials begun here; the same when this sweep comes back.

    Raises:
        StorageError: the database cannot be opened.
    """

    def __init__(
        self,
        name: str,
        storage: "str | optuna.storages.BaseStorage",
        space: Mapping[str, Parameter],
        *,
        sampler: Sampler = Sampler.tpe,
        pruner: Pruner | None = None,
        seed: int = 1,
        owner: str = "",
    ) -> None:
        import optuna

        self._space = space
        self._distributions = {name: distribution(p) for name, p in space.items()}
        self._sampler, self._seed, self._owner = sampler, seed, owner
        with opening():
            self._study = optuna.create_study(
                study_name=name, storage=storage, load_if_exists=True, pruner=pruner_of(pruner)
            )

    def settle(self, facts: Mapping[str, str]) -> dict[str, str]:
        """What the study was begun with; these facts, if it begins now."""
        for name, fact in facts.items():
            if name not in self._study.user_attrs:
                self._study.set_user_attr(name, fact)
        return {name: self._study.user_attrs[name] for name in facts}

    def records(self) -> list[Record]:
        """All trials of the study, by number."""
        return [_record(frozen) for frozen in self._trials() if frozen.state.name != "WAITING"]

    def propose(self, default: Mapping[str, Value] | None = None) -> Trial:
        """A new trial.

        Args:
            default: begin with this one, of the given parameters; without any, it is outside the
                space, and tells the sampler nothing.
        """
        known = self.records()
        params = dict(default or {})
        if default is None and self._sampler is Sampler.grid:
            tried = [record.params for record in known]
            params = next(chosen for chosen in grid(self._space) if chosen not in tried)
        # Enqueued with its facts, since it may be the last thing that this process does.
        if len(known) == len(self._trials()):
            facts = {"owner": self._owner} | ({} if default is None else {"default": True})
            self._study.enqueue_trial(params, user_attrs=facts)
        self._study.sampler = sampler_of(self._sampler, self._seed, len(known))
        handle = self._study.ask({} if default == {} else self._distributions)
        handle.set_user_attr("owner", self._owner)
        return Trial(handle.number, dict(handle.params), handle)

    def left_running(self) -> list[Trial]:
        """The trials that were begun here and are not done: this process is not the first."""
        import optuna

        left = []
        for frozen in self._trials():
            if frozen.state.name == "RUNNING" and frozen.user_attrs.get("owner") == self._owner:
                handle = optuna.Trial(self._study, frozen._trial_id)
                known = len(frozen.intermediate_values)
                left.append(Trial(frozen.number, dict(frozen.params), handle, known))
        return left

    def report(self, trial: Trial, curve: Sequence[float]) -> bool:
        """Tell of the validations so far; whether the trial should end now."""
        for count, value in enumerate(curve[trial.reported :], start=trial.reported + 1):
            trial.handle.report(value, count)
            trial.reported = count
            if trial.handle.should_prune():
                return True
        return False

    def complete(self, trial: Trial, value: float, **facts: object) -> None:
        """The trial came to its end."""
        self._tell(trial, "COMPLETE", value, facts)

    def prune(self, trial: Trial, **facts: object) -> None:
        """The trial was ended early."""
        self._tell(trial, "PRUNED", None, facts)

    def fail(self, trial: Trial, cause: str, **facts: object) -> None:
        """The trial has no result."""
        self._tell(trial, "FAIL", None, {"cause": cause, **facts})

    def importance(self) -> dict[str, float]:
        """Parameter → its share of what makes a good trial, largest first; PED-ANOVA.

        Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter
        Importance in Arbitrary Subspaces". Nothing where there are too few trials to tell.
        """
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are few trials is said with the result
            try:
                found = get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator())
            except (ValueError, RuntimeError):  # fewer than two trials, or all of one value
                return {}
        return {name: share for name, share in found.items() if math.isfinite(share)}

    def _trials(self) -> "list[optuna.trial.FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    def _tell(self, trial: Trial, state: str, value: float | None, facts: dict[str, Any]) -> None:
        from optuna.trial import TrialState

        for name, fact in facts.items():
            if fact is not None:
                trial.handle.set_user_attr(name, fact)
        self._study.tell(trial.number, value, TrialState[state])


_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def _record(frozen: "optuna.trial.FrozenTrial") -> Record:
    facts = frozen.user_attrs
    complete = frozen.state.name == "COMPLETE"
    return Record(
        number=frozen.number,
        state=_STATES.get(frozen.state.name, "running"),
        params=dict(frozen.params),
        value=frozen.value if complete else None,
        curve=[value for _, value in sorted(frozen.intermediate_values.items())],
        default=bool(facts.get("default")),
        facts={n: facts[n] for n in ("cause", "seconds", "same_as") if n in facts},
    )
