"""Several processes train what one does: same tokens, same noise, same weights to rounding."""

import errno
import math
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Recipe
from together import all_of, together
from torch import Tensor

from lm.checkpoint import Checkpoint
from lm.errors import ConfigError, DataError, ProcessError, Stopped
from lm.evaluation import evaluate
from lm.models.dropout import DropoutConfig
from lm.models.penalties import PenaltyConfig
from lm.optim import OPTIMIZERS, SCHEDULES
from lm.optim.averaging import AverageKind, AveragingConfig
from lm.runtime.choices import Choices
from lm.runtime.processes import Processes
from lm.runtime.shared_memory import shared_rows
from lm.training.communication import CommunicationConfig, PowerSGD, WireType
from lm.training.config import TrainerConfig
from lm.training.local_steps import LocalSteps
from lm.training.loop import Trainer
from lm.training.shared_sums import SharedSums
from lm.training.signals import StopFlag
from lm.training.snapshot import restore

SGD = OPTIMIZERS["sgd"]


def recipe(folder: Path, **changes: Any) -> Recipe:
    """50 steps with dropout everywhere, in float32, SGD with a rate of 1."""
    dropout = DropoutConfig(embedding=0.1, between=0.2, output=0.3, locked=True, words=0.1)
    options: dict[str, Any] = {
        "steps": 50,
        "optim": SGD(lr=1.0),
        "schedule": SCHEDULES["constant"](),
        "model": {"dropout": dropout},
        "trainer": {"save_every": 25, "valid_every": 25, "log_every": 10},
    }
    return Recipe(folder, **{**options, **changes})


def train(made: Recipe, name: str, size: int, *, one_machine: bool = True) -> list[Trainer]:
    """The trainers of so many processes at the end of a run, which continues what is there."""
    made.folder.mkdir(exist_ok=True)
    made.prepared()

    def run(processes: Processes) -> Trainer:
        with processes.in_turn():
            trainer = made.build(name, processes=processes)
            resumed = None
            if trainer.directory.checkpoints.newest_first():
                resumed = trainer.directory.checkpoints.newest_good()[1]
                restore(trainer, resumed)
        with trainer.logs(resumed):
            trainer.fit()
        return trainer

    return all_of(together(size, run, one_machine=one_machine))


def difference(a: Trainer, b: Trainer) -> float:
    """The largest between two models' weights."""
    ours, theirs = a.model.tensors(), b.model.tensors()
    return max((ours[name] - theirs[name]).detach().abs().max().item() for name in ours)


EVERYWHERE = [(cell, weights) for cell in ("rnn", "lstm", "gru") for weights in (0.0, 0.4)]


@pytest.mark.parametrize(
    ("cell", "weights", "steps"),
    [
        ("lstm", 0.4, 15),
        *(pytest.param(*found, 50, marks=pytest.mark.slow) for found in EVERYWHERE),
    ],
)
def test_any_number_of_processes_trains_the_same(
    tmp_path: Path, cell: str, weights: float, steps: int
) -> None:
    dropout = DropoutConfig(embedding=0.1, between=0.2, output=0.3, weights=weights, state=0.1)
    made = recipe(tmp_path / "x", cell=cell, model={"dropout": dropout}, steps=steps)
    (alone,) = train(made, "1", 1)
    for size in (2, 4):
        trainers = train(made, str(size), size)
        for trainer in trainers:
            assert difference(trainer, alone) < 1e-5
            assert difference(trainer, trainers[0]) == 0.0
            assert trainer.progress.tokens == alone.progress.tokens
            assert trainer.progress.best_loss == pytest.approx(alone.progress.best_loss, rel=1e-6)
    assert alone.progress.step == steps


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"model": {"head": "adaptive", "adaptive": {"cutoffs": [30, 110]}}}, 1e-5),
        ({"model": {"sampled": {"words": 40, "frequent": 20}}}, 1e-5),
        ({"model": {"head": "mixture", "dropout": DropoutConfig(latent=0.2)}}, 1e-5),
        ({"model": {"initial_state": "learned", "residual": True}}, 1e-5),
        ({"trainer": {"accumulate": 2, "batch_size": 7, "random_window": {"std": 2.0}}}, 1e-5),
        ({"optim": OPTIMIZERS["adam"](lr=1e-3)}, 1e-4),
    ],
    ids=["adaptive", "sparse rows", "mixture", "learned state", "uneven", "adam"],
)
def test_whatever_is_trained(tmp_path: Path, changes: dict[str, Any], tolerance: float) -> None:
    made = recipe(tmp_path / "x", steps=12, **built(changes))
    (alone,) = train(made, "1", 1)
    for trainer in train(made, "3", 3):
        assert difference(trainer, alone) < tolerance
        assert trainer.progress.tokens == alone.progress.tokens


@pytest.mark.parametrize("one_machine", [True, False], ids=["through memory", "by sockets"])
@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"head": "adaptive", "adaptive": {"cutoffs": [30, 110]}}},
        {"trainer": {"accumulate": 2, "batch_size": 7}},
    ],
    ids=["adaptive", "uneven"],
)
def test_large_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], one_machine: bool
) -> None:
    monkeypatch.setattr("lm.training.exchange._SMALL", 4)
    made = recipe(tmp_path / "x", steps=8, **built(changes))
    (alone,) = train(made, "1", 1)
    for trainer in train(made, "3", 3, one_machine=one_machine):
        assert difference(trainer, alone) < 1e-5
        taken = [p for p in trainer.model.parameters() if trainer.exchange.shared.takes(p)]
        assert len(taken) == (len(list(trainer.model.parameters())) if one_machine else 0)


def test_sums_through_memory() -> None:
    """Several gradients whose numbers do not divide, twice, and one that a step left out."""
    draws = torch.Generator().manual_seed(1)
    gradients = torch.randint(-9, 10, (2, 3, 12), generator=draws).float()

    def work(processes: Processes) -> list[Tensor]:
        parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (7, 4, 1)]
        sums = SharedSums(processes, parameters)
        found = []
        for step in range(2):
            sums.begin()
            parts = gradients[step, processes.rank].clone().split([7, 4, 1])
            used = list(zip(parameters, parts, strict=True))[step:]
            for parameter, part in used:
                parameter.grad = part
                sums.put(parameter)
            processes.add_up(torch.zeros(1))
            sums.add_own_shares()
            processes.add_up(torch.zeros(1))
            sums.take()
            found.append(torch.cat([part for _, part in used]))
        return found

    for first, second in all_of(together(3, work)):
        assert torch.equal(first, gradients[0].sum(0))
        assert torch.equal(second, gradients[1].sum(0)[7:])


def anonymous_files() -> set[str]:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return {str(link) for link in links if "memfd" in str(link.readlink())}


@pytest.mark.parametrize("lacking", ["system", "right", "memory", "view", "proc", "path"])
def test_processes_without_common_memory_agree_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    machines = iter("abcdef")
    if lacking == "system":
        monkeypatch.delattr("os.memfd_create")
    elif lacking == "right":
        monkeypatch.setattr("os.memfd_create", full)
    elif lacking == "memory":
        monkeypatch.setattr("os.posix_fallocate", full)
    elif lacking == "view":
        monkeypatch.setattr("lm.runtime.shared_memory._where", lambda: next(machines))
    elif lacking == "proc":
        monkeypatch.setattr("lm.runtime.shared_memory._where", full)
    else:
        monkeypatch.setattr("os.open", full)
    before = anonymous_files()
    assert all_of(together(2, lambda processes: shared_rows(processes, 10))) == [None, None]
    assert anonymous_files() == before


SPLIT_RUNS: dict[str, dict[str, Any]] = {
    "tied": {"model": {"tied": True, "output_bias": True}},
    "untied": {"model": {"initial_state": "learned"}},
    "projected": {"model": {"tied": True, "penalty": PenaltyConfig(activation=0.1)}},
    "uneven": {"trainer": {"accumulate": 2, "batch_size": 7}},
    "momentum": {"optim": SGD(lr=0.3, momentum=0.5)},
    "averaged": {"trainer": {"averaging": AveragingConfig(kind=AverageKind.ema)}},
}


@pytest.mark.parametrize(
    ("name", "size"), [("tied", 2), *((name, 3) for name in SPLIT_RUNS)], ids=str
)
def test_words_split_over_processes_train_the_same(tmp_path: Path, name: str, size: int) -> None:
    made = recipe(tmp_path / "x", **built({"trainer": {}, **SPLIT_RUNS[name]}))
    made.steps = 8
    (alone,) = train(made, "1", 1)
    made.split = True
    trainers = train(made, "split", size)
    want, found = (
        trainer.directory.checkpoints.newest_good()[1] for trainer in (alone, trainers[0])
    )
    for kind in ("model", "training"):
        ours, theirs = getattr(found, kind), getattr(want, kind)
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert torch.allclose(tensor.double(), theirs[name].double(), atol=1e-5), name
    assert trainers[0].progress.best_loss == pytest.approx(alone.progress.best_loss, rel=1e-5)
    rows = [len(trainer.model.embedding.weight) for trainer in trainers]
    assert sum(rows) == 256
    assert max(rows) - min(rows) <= 1


def test_a_run_with_split_words_goes_on_in_any_number(tmp_path: Path) -> None:
    made = recipe(tmp_path / "x", model={"tied": True}, optim=SGD(lr=0.3, momentum=0.5))
    made.steps = 12
    (alone,) = train(made, "straight", 1)
    for made.steps, size, made.split in ((4, 2, True), (7, 3, True), (9, 2, False), (12, 3, True)):
        trainers = train(made, "split", size)
    want, found = (
        trainer.directory.checkpoints.newest_good()[1] for trainer in (alone, trainers[0])
    )
    for name, tensor in {**want.model, **want.training}.items():
        if not name.startswith("statistics"):
            other = {**found.model, **found.training}[name]
            assert torch.allclose(tensor.double(), other.double(), atol=1e-5), name


def test_rounding_on_the_way_stays_rounding(tmp_path: Path) -> None:
    wide = {"embedding_size": 70, "hidden_size": 70}  # matrices that do not travel with the small
    made = recipe(tmp_path / "x", steps=12, model=wide)
    (alone,) = train(made, "1", 1)
    made.trainer["communication"] = CommunicationConfig(dtype=WireType.bf16)
    first, second = train(made, "2", 2)
    assert difference(first, second) == 0.0
    assert 1e-6 < difference(first, alone) < 2e-2


def test_powersgd_keeps_what_it_does_not_send() -> None:
    """What is sent and what is kept add up to the gradients; one of low rank is sent whole."""
    draws = torch.Generator().manual_seed(1)
    gradients = torch.randn(5, 2, 40, 30, generator=draws)
    low = torch.randn(40, 2, generator=draws) @ torch.randn(2, 30, generator=draws)

    def work(processes: Processes) -> tuple[Tensor, Tensor, Tensor]:
        parameters = {"w": torch.nn.Parameter(torch.zeros(40, 30))}
        powersgd = PowerSGD(processes, parameters, 3, seed=1)
        sent = torch.zeros(40, 30)
        for step in range(5):
            gradient = gradients[step, processes.rank].clone()
            powersgd.add_up({"w": gradient})
            sent += gradient
        kept = powersgd.errors["w"].clone()
        bad = torch.full((40, 30), math.nan if processes.first else 1.0)
        powersgd.add_up({"w": bad})
        assert not bad.isfinite().all()
        assert torch.equal(powersgd.errors["w"], kept)
        powersgd.errors["w"].zero_()
        whole = low / 2
        powersgd.add_up({"w": whole})
        return sent, kept, whole

    (sent, kept, whole), (also_sent, also_kept, _) = all_of(together(2, work))
    assert torch.equal(sent, also_sent)
    assert torch.allclose(sent + kept + also_kept, gradients.sum((0, 1)), atol=1e-4)
    assert float(kept.norm()) > 1
    assert torch.allclose(whole, low, atol=1e-4)


def test_what_powersgd_keeps_survives_a_stop(tmp_path: Path) -> None:
    wide = {"embedding_size": 40, "hidden_size": 40}
    communication = CommunicationConfig(powersgd_rank=2)
    made = recipe(tmp_path / "x", model=wide, trainer={"communication": communication})
    made.steps = 12
    straight, _ = train(made, "straight", 2)
    for made.steps in (5, 12):
        interrupted, _ = train(made, "interrupted", 2)
    assert difference(interrupted, straight) == 0.0
    powersgd = straight.exchange.powersgd
    assert powersgd is not None
    assert any(float(error.norm()) > 0 for error in powersgd.errors.values())
    made.steps = 14
    trainers = train(made, "interrupted", 4)
    assert max(difference(trainer, trainers[0]) for trainer in trainers) == 0.0


def test_local_steps_average_and_the_outer_optimiser_moves() -> None:
    """Two rounds against DiLoCo's algorithm 1 by hand."""
    config = CommunicationConfig(local_steps=2, outer_lr=0.7, outer_momentum=0.9)
    moves = torch.tensor([[[1.0, 2.0], [3.0, -4.0]], [[0.5, 0.0], [-1.5, 2.0]]])  # [round, rank]

    def work(processes: Processes) -> tuple[Tensor, Tensor]:
        parameter = torch.nn.Parameter(torch.tensor([10.0, 20.0]))
        momentum = torch.full((2,), float(processes.rank))
        local = LocalSteps(processes, {"w": parameter}, config, [0.25, 0.75][processes.rank])
        assert [local.apart(step) for step in (0, 1)] == [True, True]
        assert [local.due(step) for step in range(4)] == [False, True, False, True]
        for move in moves:
            local.begin()
            parameter.data += move[processes.rank]
            local.begin()  # the round has begun
            local.come_together([momentum])
        return parameter.data, momentum

    want, velocity = torch.tensor([10.0, 20.0]), torch.zeros(2)
    for first, second in moves:
        gradient = -(0.25 * first + 0.75 * second)
        velocity = 0.9 * velocity + gradient
        want = want - 0.7 * (gradient + 0.9 * velocity)
    for found, momentum in all_of(together(2, work)):
        assert torch.allclose(found, want, atol=1e-5)
        assert torch.allclose(momentum, torch.full((2,), 0.75))


def test_rounds_of_local_steps_train_nearly_the_same_and_resume_exactly(tmp_path: Path) -> None:
    made = recipe(tmp_path / "x", steps=24, optim=SGD(lr=0.05, momentum=0.5))
    made.trainer |= {"log_every": 4, "save_every": 8, "valid_every": 12}
    (alone,) = train(made, "1", 1)
    start = made.build("start").model.tensors()
    way = max((t - start[n]).abs().max().item() for n, t in alone.model.tensors().items())
    made.trainer["communication"] = CommunicationConfig(local_steps=4, outer_momentum=0.1)
    straight, other = train(made, "straight", 2)
    assert difference(straight, other) == 0.0
    assert 0 < difference(straight, alone) < 0.2 * way
    assert straight.progress.tokens == alone.progress.tokens
    for made.steps in (8, 24):
        interrupted, _ = train(made, "interrupted", 2)
    assert difference(interrupted, straight) == 0.0


def test_an_interval_within_a_round_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer.log_every=20 is no multiple of .*=8"):
        TrainerConfig(communication=CommunicationConfig(local_steps=8))


def built(changes: dict[str, Any]) -> dict[str, Any]:
    """The same with the nested configs as objects."""
    from lm.models.adaptive import AdaptiveConfig
    from lm.models.recurrent_config import HeadKind, InitialState
    from lm.models.sampled import SampledConfig
    from lm.training.windows import RandomWindowConfig

    kinds: dict[str, Any] = {
        "adaptive": lambda x: AdaptiveConfig(**x),
        "sampled": lambda x: SampledConfig(**x),
        "head": HeadKind,
        "initial_state": InitialState,
        "random_window": lambda x: RandomWindowConfig(**x),
    }
    return {
        part: {name: kinds.get(name, lambda x: x)(value) for name, value in found.items()}
        if isinstance(found, dict)
        else found
        for part, found in changes.items()
    }


def test_the_number_of_processes_may_change_on_the_way(tmp_path: Path) -> None:
    made = recipe(tmp_path / "x")
    (alone,) = train(made, "straight", 1)
    for steps, size in ((13, 2), (21, 1), (37, 4), (50, 2)):
        made.steps = steps
        trainers = train(made, "elastic", size)
        assert trainers[0].progress.step == steps
    assert difference(trainers[0], alone) < 1e-5
    assert trainers[0].progress.tokens == alone.progress.tokens
    assert trainers[0].progress.position == alone.progress.position


def test_a_resumed_run_of_several_is_the_same_to_the_bit(tmp_path: Path) -> None:
    made = recipe(tmp_path / "x", optim=SGD(lr=1.0, momentum=0.5))

    def saved(name: str) -> Checkpoint:
        return made.build(name).directory.checkpoints.newest_good()[1]

    train(made, "straight", 2)
    straight = saved("straight")
    for made.steps in (9, 30, 50):
        train(made, "interrupted", 2)
    interrupted = saved("interrupted")
    for kind in ("model", "training"):
        ours, theirs = getattr(straight, kind), getattr(interrupted, kind)
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            if not name.startswith("statistics"):  # of an interval that a limit cut
                assert torch.equal(tensor, theirs[name]), name


def test_the_saved_state_is_of_all_streams(tmp_path: Path) -> None:
    made = recipe(tmp_path / "x", steps=3)
    want, found = (
        train(made, str(size), size)[0].directory.checkpoints.newest_good()[1].training
        for size in (1, 4)
    )
    names = [name for name in want if name.startswith("state/")]
    assert names
    for name in names:
        assert found[name].shape == want[name].shape
        assert torch.allclose(found[name], want[name], atol=1e-6)


def test_a_gradient_that_is_no_number_in_one_process_skips_the_step_in_all(tmp_path: Path) -> None:
    made = recipe(tmp_path / "x", steps=6)
    made.folder.mkdir()
    made.prepared()

    def run(processes: Processes) -> tuple[float, list[Tensor]]:
        with processes.in_turn():
            trainer = made.build("run", processes=processes)
        whole = trainer.model.forward

        def forward(*arguments: Any, **named: Any) -> Any:
            output = whole(*arguments, **named)
            if processes.rank == 1 and trainer.progress.step == 2 and torch.is_grad_enabled():
                output.objective = output.objective * math.nan
            return output

        trainer.model.forward = forward  # type: ignore[method-assign]
        with trainer.logs(None):
            trainer.fit()
        return float(trainer.statistics.sums["skipped"]), list(trainer.model.parameters())

    (skipped, weights), (also, others) = all_of(together(2, run))
    assert skipped == also == 1
    assert all(bool(weight.isfinite().all()) for weight in weights)
    assert all(map(torch.equal, weights, others))


def test_a_weight_that_differs_is_found_at_the_next_log_point(tmp_path: Path) -> None:
    made = recipe(tmp_path / "x")
    made.folder.mkdir()
    made.prepared()

    def run(processes: Processes) -> None:
        with processes.in_turn():
            trainer = made.build("run", processes=processes)
        update = trainer.averages.update

        def spoiled(skip: Tensor) -> None:
            update(skip)
            if processes.rank == 1 and trainer.progress.step == 12:
                next(trainer.model.parameters()).data[3, 2] += 1e-6

        trainer.averages.update = spoiled  # type: ignore[method-assign]
        with trainer.logs(None):
            trainer.fit()

    for error in together(2, run):
        assert isinstance(error, ProcessError)
        assert "different weights after step 20" in error.cause


def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path: Path) -> None:
    made = recipe(tmp_path / "x", steps=400)
    made.folder.mkdir()
    made.prepared()
    steps: dict[int, int] = {}

    def run(processes: Processes) -> None:
        with processes.in_turn():
            trainer = made.build("run", processes=processes)
        # The harness's flag stops at a step of its own; this one is the real one.
        trainer.stop = StopFlag()
        if processes.rank == 1:
            threading.Timer(0.3, trainer.stop.handle, (signal.SIGTERM, None)).start()
        try:
            with trainer.logs(None), trainer.stop.deferring():
                trainer.fit()
        finally:
            steps[processes.rank] = trainer.progress.step

    for error in together(2, run):
        assert isinstance(error, Stopped)
        assert "stopped by SIGTERM" in error.cause
        assert "runtime.processes=2" in error.remedy
    assert steps[0] == steps[1] > 0


def test_validation_is_split_and_counts_every_target_once(tmp_path: Path) -> None:
    made = recipe(tmp_path / "x")
    made.folder.mkdir()
    trainer = made.build("run")
    for streams in (1, 3, 8):
        whole = torch.zeros(len(trainer.valid) - 1)
        want = evaluate(trainer.model, trainer.valid, num_streams=streams, window=7, out=whole)

        def part(processes: Processes, streams: int = streams) -> tuple[Any, Tensor]:
            out = torch.zeros(len(trainer.valid) - 1)
            score = evaluate(
                trainer.model, trainer.valid, num_streams=streams, window=7, out=out,
                processes=processes,
            )  # fmt: skip
            return score, out

        found = all_of(together(3, part))
        for score, _ in found:
            assert score.nats == pytest.approx(want.nats, rel=1e-6)
            assert score.num_tokens == want.num_tokens
        assert torch.allclose(sum(out for _, out in found), whole, atol=1e-5)
        assert streams == 1 or all(int((out != 0).sum()) < len(whole) for _, out in found)


def test_one_process_measures_and_all_take_its_choice() -> None:
    counts = [0, 0, 0]

    def choose(processes: Processes) -> str:
        choices = Choices(processes=processes)

        def first() -> None:
            counts[processes.rank] += 1

        if processes.rank == 2:  # one with fewer streams asks something else
            choices.fastest("of the last", {"c": first, "d": first})
        found = choices.fastest("which", {"a": first, "b": first})
        processes.largest([0])
        return f"{found} {sorted(choices.taken_by_all())}"

    found = all_of(together(3, choose))
    assert len(set(found)) == 1
    assert "'of the last', 'which'" in found[0]
    assert sum(count > 0 for count in counts) <= 2


def test_who_was_asked_to_stop_waits_no_longer_for_a_choice_that_nobody_makes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that was killed while it measured: the agent then asks the others to stop."""
    monkeypatch.setattr("lm.runtime.processes._ANSWER_SECONDS", 0.0)

    def choose(processes: Processes) -> str:
        if processes.first:
            processes.messages.part("choices").claimed_by("which", 0)
            processes.messages.put("claimed", True)
            return ""
        flag = StopFlag()
        flag.share(processes)
        with flag.deferring():
            flag.handle(signal.SIGTERM, None)
        processes.told("claimed")
        return Choices(processes=processes).fastest("which", {"a": list, "b": list})

    _, waited = together(2, choose, seconds=30.0)
    assert isinstance(waited, ProcessError)
    assert "asked to stop" in waited.cause


def test_the_first_refuses_for_all_and_a_loss_has_its_reason() -> None:
    def refuse(processes: Processes) -> None:
        with processes.saying_why(), processes.in_turn():
            if processes.first:
                raise DataError("no text", "Give some.")

    first, second = together(2, refuse)
    assert isinstance(first, DataError)
    assert isinstance(second, DataError)
    assert second.cause == "process 0: no text"

    def lose(processes: Processes) -> None:
        with processes.saying_why(), processes.with_reasons():
            if processes.rank == 1:
                raise DataError("my disk is gone")
            processes.largest([1.0])

    first, second = together(2, lose, seconds=0.3)
    assert isinstance(first, DataError)
    assert first.cause == "process 1: my disk is gone"


def test_a_process_that_stands_still_is_waited_for_no_longer_than_allowed() -> None:
    def wait(processes: Processes) -> None:
        if processes.first:
            processes.largest([1.0])

    lost, _ = together(2, wait, seconds=0.3)
    assert isinstance(lost, ProcessError)
    assert "another process of this run was lost" in lost.cause


def test_negative_zeros_and_numbers_that_are_none_are_gathered_as_they_are() -> None:
    rows = torch.tensor([[-0.0, math.nan], [math.inf, 1e-45], [3.0, -1.5]])

    def gather(processes: Processes) -> tuple[Tensor, Tensor]:
        own = rows[processes.share(3)]
        return processes.gather(own, 3), processes.gather_lists(own, processes.counts(own))

    for found in all_of(together(2, gather)):
        for whole in found:
            assert torch.equal(whole.view(torch.int32), rows.view(torch.int32))
