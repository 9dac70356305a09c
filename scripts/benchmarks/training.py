"""Training rows: check that both sides compute the same, time them in turns, do the arithmetic."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from benchmarks.memory import peaks
from benchmarks.options import Options
from benchmarks.products import Floor, gigaflop
from benchmarks.result import NotMeasured, Outcome, Result, check_equal
from benchmarks.rows import TrainingRow
from benchmarks.sides import Ours, Textbook
from benchmarks.timing import Timing, Turns, Variant, compared, interleave
from lm.runtime.compute import Precision

# Relative differences of the loss and of the gradient's norm that rounding explains. cuDNN rounds
# float32 to TF32 unless told otherwise, and the textbook does not tell it.
_LIMITS = {"fp32": (1e-4, 1e-3), "tf32": (1e-3, 1e-2), "bf16": (2e-2, 5e-2)}

# On a GPU a measurement is a row of steps, as one synchronised step would not let it work ahead.
_ON_GPU = Turns(counted=1, group=20)


def measure(name: str, options: Options, *, asked_for: bool) -> Iterator[Outcome]:
    """All results of a training row."""
    row = options.row(name)
    device = options.torch_device()
    if row.cuda_only and device.type != "cuda" and not asked_for and not options.smoke:
        yield NotMeasured(name, "no CUDA device; on others only when asked for by name")
        return
    auto = options.compute()[0]
    native = auto.precision is Precision.bf16
    obstacle = _check(row, options, native)
    times = _timings(row, _sides(row, options, native, autocast=obstacle is None), options)
    fp32 = "ours_fp32" if native else "ours"
    for result, ours, theirs, precision in (
        (name, "ours", "textbook", auto.precision.name),
        (f"{name}_fp32", fp32, "textbook", "fp32"),
        (f"{name}_bf16_equal", "ours", "textbook_bf16", "bf16"),
    ):
        if theirs in times:
            floor = times[f"floor_{ours}"]
            yield _result(result, row, times[ours], times[theirs], floor, precision)
        else:
            yield NotMeasured(result, obstacle or "")
    if row.memory:
        yield from peaks(name, options, native)


def _sides(
    row: TrainingRow, options: Options, native: bool, *, autocast: bool
) -> dict[str, Ours | Textbook]:
    device = options.torch_device()
    sides: dict[str, Ours | Textbook] = {
        "ours": Ours(row, options, Precision.auto),
        "textbook": Textbook(row, device),
    }
    if native:
        sides["ours_fp32"] = Ours(row, options, Precision.fp32)
    if autocast:
        sides["textbook_bf16"] = Textbook(row, device, bf16=True)
    return sides


def _check(row: TrainingRow, options: Options, native: bool) -> str | None:
    """Compare the first step of all sides without dropout; why bf16 is not, if it is not.

    Raises:
        MismatchError: losses or gradients differ by more than rounding.
    """
    row = replace(row, dropout=0.0)
    device = options.torch_device()
    expected = Textbook(row, device).first()
    exact = "fp32" if device.type == "cpu" else "tf32"
    _compare(row.name, exact, Ours(row, options, Precision.fp32).first(), expected)
    if not native:
        return options.compute()[0].reason
    _compare(row.name, "bf16", Ours(row, options, Precision.bf16).first(), expected)
    try:
        _compare(row.name, "bf16", Textbook(row, device, bf16=True).first(), expected)
    except RuntimeError as error:
        return f"torch cannot train it under bf16 autocast: {str(error).split('. ')[0]}"
    return None


def _compare(
    name: str, precision: str, got: tuple[float, float], expected: tuple[float, float]
) -> None:
    what = "of the same batch without dropout"
    loss, norm = _LIMITS[precision]
    check_equal(f"{name}: the {precision} loss {what}", got[0], expected[0], loss)
    check_equal(f"{name}: the {precision} gradient's norm {what}", got[1], expected[1], norm)


def _timings(
    row: TrainingRow, sides: Mapping[str, Ours | Textbook], options: Options
) -> dict[str, Timing]:
    """Of the sides by name, and of the products alone in the precision of each of ours."""
    device = options.torch_device()
    variants = {name: Variant(side.run, side.settings) for name, side in sides.items()}
    shares = {}
    for name, side in sides.items():
        if isinstance(side, Ours):
            floor = Floor(row, side.compute.dtype, device)
            variants[f"floor_{name}"] = Variant(floor.run, side.settings)
            shares[f"floor_{name}"] = floor.share
    turns = _ON_GPU if device.type == "cuda" and not options.smoke else Turns()
    timings = interleave(variants, options.budget, device, turns)
    for name, share in shares.items():
        timings[name] = Timing(tuple(seconds / share for seconds in timings[name].seconds))
    return timings


def _result(
    name: str, row: TrainingRow, ours: Timing, theirs: Timing, floor: Timing, precision: str
) -> Result:
    work = gigaflop(row)
    pair = {"ours": ours, "textbook": theirs}
    result = compared(name, "tokens/s", pair, (row.tokens, row.tokens))
    result.details.update(
        precision=precision,
        textbook_precision="bf16" if name.endswith("_bf16_equal") else "fp32",
        gflop=work,
        ours_gflop_per_s=work / ours.median,
        textbook_gflop_per_s=work / theirs.median,
        floor_ms=floor.median * 1e3,
        fraction=floor.median / ours.median,
    )
    return result
