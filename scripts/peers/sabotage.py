"""What is done to a training program from inside: a value put into one step, and what came of it.

All three call `backward` of their loss once a step, so that is where a step is counted and where
gradients or weights are overwritten; no file of theirs is changed.
"""

import gc
import os
from pathlib import Path
from typing import Any


class Saboteur:
    """Counts steps, overwrites values at one of them, and measures the updates.

    Args:
        steps: a file for the number of steps begun, which survives a kill.
        at: the step whose gradients or weights are overwritten, from 1.
        what: `gradient` or `weights`.
        value: with what.
        updates: a file for the norm of each step's change of the weights, one a line.
    """

    def __init__(
        self,
        *,
        steps: str,
        at: int | None = None,
        what: str = "gradient",
        value: str = "nan",
        updates: str | None = None,
    ) -> None:
        self.file = os.open(steps, os.O_WRONLY | os.O_CREAT)
        self.at, self.what, self.value = at, what, float(value)
        self.updates = None if updates is None else Path(updates)
        self.count = 0
        self.parameters: list[Any] = []
        self.before: list[Any] = []

    def backward(self, original: Any, *arguments: Any, **options: Any) -> Any:
        """Stand in for `Tensor.backward`."""
        self.measure()
        self.count += 1
        os.pwrite(self.file, b"%d" % self.count, 0)
        result = original(*arguments, **options)
        if not self.parameters:
            self.parameters = trained()
        if self.updates is not None:
            self.before = [p.detach().clone() for p in self.parameters]
        if self.count == self.at:
            self.overwrite()
        return result

    def measure(self) -> None:
        """Write down by how much the last step changed the weights."""
        if self.updates is None or not self.before:
            return
        pairs = zip(self.parameters, self.before, strict=True)
        square = sum(float((p.detach() - old).double().square().sum()) for p, old in pairs)
        with self.updates.open("a") as file:
            file.write(f"{square**0.5}\n")

    def overwrite(self) -> None:
        for p in self.parameters:
            target = p.grad if self.what == "gradient" else p.detach()
            if not target.is_sparse:
                target.fill_(self.value)


def trained() -> list[Any]:
    """The parameters that have a gradient now."""
    import torch

    found = [o for o in gc.get_objects() if issubclass(type(o), torch.nn.Parameter)]
    return [p for p in found if p.grad is not None]


def install(options: dict[str, Any] | None) -> None:
    """Let a saboteur stand in for `Tensor.backward` in this process."""
    if options is None:
        return
    import torch

    saboteur = Saboteur(**options)
    original = torch.Tensor.backward

    def backward(*arguments: Any, **keywords: Any) -> Any:
        return saboteur.backward(original, *arguments, **keywords)

    torch.Tensor.backward = backward  # type: ignore[method-assign]
