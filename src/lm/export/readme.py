"""The README of an exported folder: what lies in it, and what the graphs take and give."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """What the README tells.

    Attributes:
        summary: the model in a line.
        sizes: of the state's tensors by name.
        agreement: what the check found.
        unit: where the state was reset in training.
    """

    summary: str
    sizes: dict[str, int]
    vocab_size: int
    tokenizer: str
    unit: str
    agreement: str


_HEAD = """\
# {summary}

A recurrent language model, exported by `lm export format={format}`. Time comes first:
T steps, B streams (batch), V = {vocab_size:,} tokens of a {tokenizer} vocabulary.

## Signature

`model` is a window of any length T ≥ 1, `step` is one step of it; B ≥ 1 is free in both.

| | `model` | `step` | type |
|---|---|---|---|
| in: `tokens` | [T, B] | [B] | int64 |
{inputs}
| out: `log_prob` | [T, B, V] | [B, V] | float32 |
{outputs}

`log_prob` holds natural logarithms of the probabilities of each *next* token. The state is an
argument and a result: begin with the values of `initial_state.json` (one row, the same for every
stream), then hand back what came out. A window gives what its steps give one after the other, and
two windows with the state carried give what one long window does.

In training the state went back to its initial value {unit}.

{agreement_line}

"""
_ONNX = """\
## Files

| | |
|---|---|
| `model.onnx`, `step.onnx` | the graphs, for any runtime of ONNX with the operator Scan |
| `weights.bin` | the weights of both graphs, which they refer to: keep it beside them |
| `config.json` | what the model is: architecture, sizes, tokenizer, where it comes from |
| `initial_state.json` | the state before the first token: a row per tensor |
| `tokenizer.json` | the vocabulary{library} |
| `use.py` | scoring and generation with numpy and onnxruntime{extra} alone |

    pip install numpy onnxruntime{extra_pip}
    python use.py score "some text"
    python use.py generate "some text" --tokens 100 --temperature 0.8
"""
_TORCH = """\
## Files

| | |
|---|---|
| `model.pt2`, `step.pt2` | programs of `torch.export`, with their weights |
| `config.json` | what the model is: architecture, sizes, tokenizer, where it comes from |
| `initial_state.json` | the state before the first token: a row per tensor |
| `tokenizer.json` | the vocabulary{library} |

Both programs take `(tokens, [state, …])`, the state's tensors in the order of the table, and give
`(log_prob, [state, …])`:

    import json, torch

    start = json.load(open("initial_state.json"))
    state = [torch.tensor([row]) for row in start.values()]
    step = torch.export.load("step.pt2").module()
    log_prob, state = step(torch.tensor([0]), state)

`torch.export.load` unpickles parts of a file that say they are pickles. These say so of none but
the example inputs, which torch reads with `weights_only`; but load no .pt2 from a stranger.
"""
_UNITS = {
    "stream": "at the start of an epoch only",
    "document": "at each document: reset it there too",
    "line": "at each line, whose end was read with a fresh state: reset it there too",
}


def readme(facts: Facts, form: str) -> str:
    """The text, in Markdown."""
    bpe = facts.tokenizer == "bpe"
    head = _HEAD.format(
        summary=facts.summary,
        format=form,
        vocab_size=facts.vocab_size,
        tokenizer=facts.tokenizer,
        inputs=_rows("in: `{}`", facts.sizes),
        outputs=_rows("out: `new_{}`", facts.sizes),
        unit=_UNITS[facts.unit],
        agreement_line=f"Checked when exported: {facts.agreement}.",
    )
    files = (_ONNX if form == "onnx" else _TORCH).format(
        library=", in the format of the library `tokenizers`" if bpe else "",
        extra=", and tokenizers," if bpe else "",
        extra_pip=" tokenizers" if bpe else "",
    )
    return head + files


def _rows(name: str, sizes: dict[str, int]) -> str:
    return "\n".join(
        f"| {name.format(tensor)} | [B, {size}] | [B, {size}] | float32 |"
        for tensor, size in sizes.items()
    )
