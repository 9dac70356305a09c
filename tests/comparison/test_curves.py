"""Curves of runs: what is read of `metrics.jsonl`, and what the picture shows."""

import io
from pathlib import Path, PurePath

import numpy as np
import pytest
from run_folders import make_run, write_metrics

from lm.comparison.curves import Axis, Course, Curve, Measure, read_course
from lm.comparison.plot import Line, draw
from lm.errors import CheckpointError

ROWS: list[dict[str, float | None]] = [
    {"step": 1, "tokens": 10, "train/loss": 3.0, "perf/seconds": 0.5},
    {"step": 2, "tokens": 20, "train/loss": None, "perf/seconds": 1.5},
    {"step": 2, "tokens": 20, "valid/loss": 2.5, "valid/perplexity": 12.2, "valid/floor": 1.5},
    {"step": 3, "tokens": 30, "train/loss": 2.0, "perf/seconds": 2.5},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    run = make_run(tmp_path / "r")
    write_metrics(run, *ROWS)
    return run / "metrics.jsonl"


def test_a_course_has_the_finite_points_and_the_floor(path: Path) -> None:
    course = read_course(path, Axis.tokens, Measure.loss)
    assert (course.train.x, course.train.y) == ([10, 30], [3.0, 2.0])
    assert (course.valid.x, course.valid.y, course.floor) == ([20], [2.5], 1.5)
    assert read_course(path, Axis.seconds, Measure.loss).valid.x == [1.5]
    assert read_course(path, Axis.step, Measure.perplexity).valid == Curve([2], [12.2])


def test_a_line_that_is_being_written_is_left_out_and_a_broken_one_is_named(path: Path) -> None:
    path.write_text(path.read_text() + '{"step": 4, "tok')
    assert len(read_course(path, Axis.step, Measure.loss).train.x) == 2
    path.write_text(path.read_text() + "\n")
    with pytest.raises(CheckpointError, match="line 5"):
        read_course(path, Axis.step, Measure.loss)


def test_many_points_become_means_of_neighbours() -> None:
    curve = Curve([float(i) for i in range(1000)], [float(i % 2) for i in range(1000)])
    thin = curve.thinned()
    assert len(thin.x) == 334
    assert thin.x[:2] == [1.0, 4.0]
    assert thin.y[:2] == pytest.approx([1 / 3, 2 / 3])
    assert np.mean(thin.y[:-1]) == pytest.approx(0.5, abs=0.01)


def lines(number: int) -> list[Line]:
    course = Course(Curve([0.0, 9.0], [5.0, 1.0]), Curve([5.0, 9.0], [2.0, 1.0]), 0.5)
    return [Line(f"seed={index}", course) for index in range(number)]


def test_a_name_that_is_no_formula_is_drawn_to_the_letter() -> None:
    odd = [Line("path=$x^^$\x1b", lines(1)[0].course)]
    text = draw(odd, Axis.step, Measure.loss, PurePath("x.svg")).decode()
    assert r"<!-- path=$x^^$\x1b -->" in text


def test_the_picture_names_the_runs_the_axes_and_the_floor() -> None:
    text = draw(lines(2), Axis.tokens, Measure.loss, PurePath("x.svg")).decode()
    for name in ("seed=0", "seed=1", "floor 0.5000", "training tokens", "nats per token"):
        assert f"<!-- {name} -->" in text


def test_runs_of_one_name_share_a_colour_and_an_entry() -> None:
    text = draw(lines(1) * 3, Axis.tokens, Measure.loss, PurePath("x.svg")).decode()
    assert text.count("<!-- seed=0 -->") == 1
    assert "#ff7f0e" not in text  # the second colour


@pytest.mark.parametrize("number", [12])
def test_pictures_of_any_number_of_runs(number: int) -> None:
    from PIL import Image

    with Image.open(
        io.BytesIO(draw(lines(number), Axis.seconds, Measure.perplexity, PurePath("x.png")))
    ) as image:
        assert image.width == 990
