"""Checkpoints: whole or absent, verified, never a silent fresh start."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from lm.checkpoint import Checkpoint, CheckpointFolder, read, read_any, verify, write
from lm.checkpoint import format as formats
from lm.errors import CheckpointError, NumericError, StorageError

FILES = ["model.safetensors", "training.safetensors", "state.json", "config.yaml", "tokenizer.json"]


def example(step: int = 1) -> Checkpoint:
    draws = torch.Generator().manual_seed(step)
    weight = torch.randn(3, 4, generator=draws)
    return Checkpoint(
        model={"weight": weight, "tied": weight},
        training={"optimizer/step": torch.tensor(float(step)), "half": weight.double() / 3},
        state={"progress": {"step": step}, "best": 0.1 + 0.2},
        config="seed: 1\n",
        tokenizer={"kind": "byte"},
    )


def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    write(tmp_path / "c", example())
    back = read(tmp_path / "c")
    for ours, theirs in ((example().model, back.model), (example().training, back.training)):
        assert ours.keys() == theirs.keys()
        assert all(ours[k].equal(theirs[k]) and ours[k].dtype == theirs[k].dtype for k in ours)
    assert (back.state, back.config, back.tokenizer) == (
        example().state, example().config, example().tokenizer
    )  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == sorted([*FILES, "manifest.json"])


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("fault", ["flip", "truncate", "delete", "empty", "link"])
def test_damage_to_any_file_is_detected(tmp_path: Path, name: str, fault: str) -> None:
    write(tmp_path / "c", example())
    path = tmp_path / "c" / name
    content = bytearray(path.read_bytes())
    if fault == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif fault == "truncate":
        path.write_bytes(content[:-1])
    elif fault == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if fault == "link":
            elsewhere = tmp_path / "elsewhere"
            elsewhere.write_bytes(content)
            path.symlink_to(elsewhere)
    with pytest.raises(CheckpointError):
        read(tmp_path / "c")


def test_a_manifest_may_not_point_outside_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "c", example())
    path = tmp_path / "c" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../c/state.json"] = manifest["files"]["state.json"]
    path.write_text(json.dumps(manifest, indent=1))
    with pytest.raises(CheckpointError, match="does not list the files"):
        verify(tmp_path / "c")


def test_non_finite_weights_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    bad = example()
    bad.model["weight"] = torch.tensor([1.0, float("nan")])
    with pytest.raises(NumericError, match="weight is not finite"):
        write(tmp_path / "c", bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_full_disk_at_any_write_leaves_the_old_checkpoint_and_no_debris(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, example(1), best=True, keep=2)
    before = sorted(p.name for p in tmp_path.iterdir())

    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real_text, real_save = Path.write_text, formats.write_tensors

    def write_text(self: Path, *arguments: object, **named: object) -> int:
        return full() if self.name == name else real_text(self, *arguments, **named)  # type: ignore

    def write_tensors(tensors: object, rows: object, path: Path) -> None:
        full() if path.name == name else real_save(tensors, rows, path)  # type: ignore

    monkeypatch.setattr(Path, "write_text", write_text)
    monkeypatch.setattr(formats, "write_tensors", write_tensors)
    with pytest.raises(StorageError, match="No space left"):
        folder.save(2, example(2), best=True, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert folder.newest_good()[1].state["progress"]["step"] == 1


def test_files_are_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_rename = Path.rename
    monkeypatch.setattr(
        os, "fsync", lambda handle: calls.append(Path(f"/proc/self/fd/{handle}").readlink().name)
    )

    def rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    (tmp_path / "checkpoints").mkdir()
    write(tmp_path / "checkpoints" / "c", example())
    at = calls.index("rename")
    assert set(calls[:at]) >= {*FILES, "manifest.json"}
    assert calls[at - 1].startswith(".new-c-")
    assert calls[at + 1 :] == ["checkpoints"]


def test_pointers_retention_and_order_by_step_not_by_clock(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (5, 10, 1000, 20):
        folder.save(step, example(step), best=step == 5, keep=2)
        os.utime(tmp_path / f"step-{step:09d}", (1e9 - step, 1e9 - step))
    names = [path.name for path in folder.newest_first()]
    # Saving step 20 after step 1000 happens only where 1000 did not verify: it does not count.
    assert [int(name[5:]) for name in names] == [1000, 20, 10, 5]
    assert folder.find("best").name == "step-000000005"
    assert folder.find("last").name == "step-000000020"
    assert folder.find("20") == folder.find("step-20") == folder.find("last")
    assert read_any(folder.find("best"), "last")[0] == folder.find("best")


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, example(1), best=False, keep=2)
    changed = example(1)
    changed.state["evaluated"] = True
    folder.save(1, changed, best=True, keep=2)
    assert folder.newest_good()[1].state["evaluated"] is True
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "last", "step-000000001"]


def test_a_death_between_the_two_renames_is_repaired(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, example(1), best=False, keep=2)
    (tmp_path / "step-000000001").rename(tmp_path / ".old-step-000000001")
    (tmp_path / ".new-step-000000001-abc").mkdir()
    folder.open_for_writing()
    assert folder.newest_good()[1].state["progress"]["step"] == 1
    assert not list(tmp_path.glob(".*"))


def test_a_bad_newest_falls_back_and_all_bad_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save(step, example(step), best=False, keep=2)
    (tmp_path / "step-000000002" / "state.json").write_text("{}")
    assert folder.newest_good()[0].name == "step-000000001"
    assert "step-000000002" in caplog.text
    shutil.rmtree(tmp_path / "step-000000001")
    with pytest.raises(CheckpointError, match="no good checkpoint"):
        folder.newest_good()
    with pytest.raises(CheckpointError, match="no checkpoint 'step-000000009'"):
        folder.find("step-000000009")


def test_a_damaged_newer_checkpoint_never_pushes_out_good_ones(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(20, example(20), best=False, keep=1)
    (tmp_path / "step-000000020" / "state.json").write_text("{}")
    for step in (11, 12, 13):
        saved = folder.save(step, example(step), best=step == 11, keep=1)
        assert read(saved).state["progress"]["step"] == step
    assert folder.newest_good()[0].name == "step-000000013"
    assert (tmp_path / "step-000000011").exists()


def test_a_damaged_best_is_replaced_by_the_newest_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    for step in (1, 2):
        folder.save(step, example(step), best=step == 1, keep=2)
    (tmp_path / "checkpoints" / "step-000000001" / "config.yaml").write_text("seed: 2\n")
    assert read_any(tmp_path, "best")[0].name == "step-000000002"
    assert "taking the newest good checkpoint" in caplog.text
    with pytest.raises(CheckpointError, match="damaged"):
        read_any(tmp_path, "step-000000001")


def runs_in(folder: Path, *names: str) -> None:
    """Runs with a checkpoint each, whose weights tell them apart by their place in the list."""
    for number, name in enumerate(names, start=1):
        run = CheckpointFolder(folder / name / "checkpoints")
        run.open_for_writing()
        run.save(number, example(number), best=True, keep=1)


EARLY, LATE = "2026-11-24_15-38-59_426f49", "2026-11-24_15-39-00_0000aa"


def test_a_folder_of_runs_means_the_one_that_began_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="lm")
    runs_in(tmp_path, LATE, EARLY)  # the order of writing, and so the files' times, mislead
    folder, found = read_any(tmp_path, "best")
    assert folder.parents[1] == tmp_path / LATE
    assert found.state["progress"] == {"step": 1}
    assert caplog.messages == [f"{tmp_path}: the newest run in it is {LATE}"]
    caplog.clear()
    assert read_any(tmp_path / EARLY, "best")[0].parents[1] == tmp_path / EARLY
    assert not caplog.messages, "a run is itself"


def test_a_newer_run_without_a_checkpoint_is_passed_over_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs_in(tmp_path, EARLY)
    (tmp_path / LATE / "checkpoints").mkdir(parents=True)
    assert read_any(tmp_path, "last")[0].parents[1] == tmp_path / EARLY
    assert caplog.messages == [f"{tmp_path / LATE} is passed over: it has no checkpoint"]


MULTIRUN = "multirun_2026-11-25_09-00-00_abcdef"


@pytest.mark.parametrize(
    ("names", "where", "cause", "remedy"),
    [
        ([EARLY, f"{EARLY[:-6]}0000aa"], "", ": the newest runs in it began in the same second",
         f"Give one of them: */{EARLY[:-6]}0000aa, */{EARLY}."),
        ([LATE, f"{MULTIRUN}/0", f"{MULTIRUN}/1"], "",
         ": the newest runs in it are those of a multirun",
         "Give one of them: */0, */1."),
        ([f"{MULTIRUN}/{job}" for job in range(11)], f"/{MULTIRUN}",
         " has 11 runs, none the newest",
         f"Give one of them: */{MULTIRUN}/0, */{MULTIRUN}/1, */{MULTIRUN}/2 and 8 more."),
        ([f"a/{LATE}", f"b/{LATE}"], "", None, "Give one of them: */a, */b."),
    ],
)  # fmt: skip
def test_a_folder_that_could_mean_several_runs_is_refused_with_their_names(
    tmp_path: Path, names: list[str], where: str, cause: str | None, remedy: str
) -> None:
    runs_in(tmp_path, *names)
    folder = Path(f"{tmp_path}{where}")
    with pytest.raises(CheckpointError) as refused:
        read_any(folder, "best")
    expected = f"no run or checkpoint at {folder}" if cause is None else f"{folder}{cause}"
    assert refused.value.cause == expected
    assert refused.value.remedy == remedy.replace("*", str(tmp_path))


def test_the_number_of_a_job_means_that_of_the_newest_multirun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="lm")
    later = "multirun_2026-11-26_09-00-00_000000"
    runs_in(tmp_path, f"{MULTIRUN}/0", f"{MULTIRUN}/1", f"{later}/0", EARLY)
    assert read_any(tmp_path / "0", "best")[0].parents[1] == tmp_path / later / "0"
    assert caplog.messages == [f"{tmp_path / '0'}: of the newest multirun, {later}/0"]
    with pytest.raises(CheckpointError, match=r"no run or checkpoint at .*/1"):
        read_any(tmp_path / "1", "best")  # an older multirun's is not meant


def test_a_multirun_of_one_job_and_a_later_run_are_clear(tmp_path: Path) -> None:
    runs_in(tmp_path, EARLY, f"{MULTIRUN}/0")
    assert read_any(tmp_path, "best")[0].parents[1] == tmp_path / MULTIRUN / "0"
    assert read_any(tmp_path / MULTIRUN, "best")[0].parents[1] == tmp_path / MULTIRUN / "0"
    runs_in(tmp_path, "2026-11-26_00-00-00_abcdef", f"{MULTIRUN}/1")
    assert read_any(tmp_path, "best")[0].parents[1].name == "2026-11-26_00-00-00_abcdef"
