"""What stands in checkpoints: `python probe.py MODEL.PY FILE…` prints a JSON object for each.

It unpickles: only for files that a program of the comparison wrote by itself, never forged ones.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

Weights = dict[str, torch.Tensor]


def main(program: str, paths: list[str]) -> None:
    """Describe each file, and how far its weights are from those of the first."""
    sys.path.insert(0, str(Path(program).parent))  # where the classes of a pickled module are
    first: Weights | None = None
    for path in paths:
        try:
            found = torch.load(path, weights_only=False)
            weights = found["state_dict"] if isinstance(found, dict) else found.state_dict()
        except Exception as error:
            print(json.dumps({"unreadable": f"{type(error).__name__}: {error}"[:200]}), flush=True)
            continue
        first = weights if first is None else first
        step = found.get("global_step") if isinstance(found, dict) else None
        print(json.dumps({"step": step, **described(weights, first)}), flush=True)


def described(weights: Weights, others: Weights) -> dict[str, Any]:
    """Digest of the weights, whether all are finite, and the largest difference to others."""
    whole = sha256()
    for name in sorted(weights):
        whole.update(name.encode())
        whole.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    same_shape = {k: t.shape for k, t in weights.items()} == {k: t.shape for k, t in others.items()}
    far = max(float((weights[k] - others[k]).abs().max()) for k in weights) if same_shape else None
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    return {"digest": whole.hexdigest(), "finite": finite, "difference": far if finite else None}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
