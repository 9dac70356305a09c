"""Whether the numbers of several runs mean the same, and what to say where they do not."""

from collections.abc import Iterator, Sequence

from lm.comparison.reading import KILLED, Run

_PER_BYTE = "compare bits per byte, which are of the original text"


def one_tokenizer(runs: Sequence[Run]) -> bool:
    """Whether a token is the same in all of them, as far as they say."""
    return len({run.tokenizer for run in runs if run.tokenizer is not None}) <= 1


def remarks(runs: Sequence[Run], labels: Sequence[str]) -> Iterator[str]:
    """One sentence for each reason why numbers of these runs are not to be set side by side."""
    if not one_tokenizer(runs):
        kinds = _kinds(labels, [run.tokenizer for run in runs])
        yield f"tokenizers differ ({kinds}): losses and perplexities are per token; {_PER_BYTE}"
        texts = [str(_text(run)) for run in runs]
        if len(set(texts)) > 1:
            yield f"data differ ({_kinds(labels, texts)}): not even bits per byte compare"
    else:
        for split in ("valid", "test"):
            prints = [run.data.get(split) for run in runs]
            if len({found for found in prints if found is not None}) > 1:
                yield f"{split} data differ ({_kinds(labels, prints)}): its losses do not compare"
    streams = [run.fields.get("trainer.valid_streams") for run in runs]
    if len({value for value in streams if value is not None}) > 1:
        yield (
            "trainer.valid_streams differ: validation approximates by as many streams; test"
            " numbers are exact"
        )
    unfinished = [label for label, run in zip(labels, runs, strict=True) if run.status != "done"]
    if unfinished:
        yield f"not done: {_listed(unfinished)}"
    if any(run.status == KILLED for run in runs):
        yield f"{KILLED}: the process is gone without a word; go on with lm train resume=<run>"


def _text(run: Run) -> tuple[tuple[str, object], ...]:
    """Which text a run was evaluated on, as its configuration has it."""
    return tuple(
        (name, value)
        for name, value in sorted(run.fields.items())
        if (name == "data" or name.startswith("data.")) and name != "data.train_bytes"
    )


def _kinds(labels: Sequence[str], values: Sequence[str | None]) -> str:
    """Who has the same: `0, 1 | 2`."""
    groups: dict[str, list[str]] = {}
    for label, value in zip(labels, values, strict=True):
        if value is not None:
            groups.setdefault(value, []).append(label)
    return " | ".join(map(_listed, groups.values()))


def _listed(labels: list[str]) -> str:
    return ", ".join(labels if len(labels) <= 4 else [*labels[:3], f"… ({len(labels)} in all)"])
