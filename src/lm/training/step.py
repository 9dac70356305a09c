"""One training step: forward, backward, clip, update; nothing in it reads the device."""

from itertools import pairwise

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from lm.data.streams import Window
from lm.errors import NumericError
from lm.models import RecurrentModel
from lm.models.base import State, detach, join_streams, slice_streams
from lm.models.language_model import part_of
from lm.models.vocabulary_parallel import split_names
from lm.optim.averaging import Averages, AveragingConfig
from lm.optim.base import Optimizers
from lm.optim.clipping import ClipConfig, GradientNorms, clip_gradients
from lm.optim.outliers import Outliers
from lm.runtime.processes import ALONE, Processes
from lm.runtime.randomness import Noise
from lm.training.communication import CommunicationConfig
from lm.training.exchange import Exchange
from lm.training.local_steps import LocalSteps
from lm.training.statistics import Statistics

# Unclipped, a larger gradient is worse than an infinite one: its squares, and products of them,
# overflow in the optimiser's state, where they stay. From 1e10 on Adafactor stands still, from 1e19
# on Adagrad and RMSprop; then it becomes NaN. No mean of nats has such a gradient but by explosion.
LARGEST_UNCLIPPED = 1e9


def _backward(objective: Tensor) -> None:
    """Back-propagate.

    Raises:
        NumericError: under `runtime.anomaly`, naming the operation that made a NaN.
    """
    try:
        objective.backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if "returned nan values" not in str(error):
            raise
        raise NumericError(str(error), "Lower optim.lr or set trainer.clip.norm.") from error


class TrainStep:
    """The update of one window.

    Accumulation splits the streams, never the time: each pass computes a slice of the streams with
    its share of the noise, and the update equals the whole batch's to rounding. So do processes:
    each computes its own streams, and all make the same update from the sum of their gradients.

    A step whose loss or gradient is not finite, or whose unclipped gradient is beyond
    `LARGEST_UNCLIPPED`, leaves parameters, optimiser and recurrent state as they were, decided on
    the device; one whose gradient is an outlier keeps the recurrent state.
    """

    def __init__(
        self,
        model: RecurrentModel,
        optimizers: Optimizers,
        statistics: Statistics,
        *,
        clip: ClipConfig,
        averaging: AveragingConfig | None = None,
        num_streams: int,
        passes: int,
        seed: int,
        processes: Processes = ALONE,
        communication: CommunicationConfig | None = None,
    ) -> None:
        self.model = model
        self.optimizers = optimizers
        self.statistics = statistics
        self.clip = clip
        self.num_streams = num_streams
        self.seed = seed
        self.processes = processes
        model.sparse_gradients = optimizers.takes_sparse_gradients
        self.own = range(num_streams)[processes.share(num_streams)]
        edges = [round(k * len(self.own) / passes) for k in range(passes + 1)]
        self.slices = [slice(a, b) for a, b in pairwise(edges)]
        self.parameters: dict[str, nn.Parameter] = {
            name: p for name, p in model.named_parameters() if p.requires_grad
        }
        self.averages = Averages(averaging or AveragingConfig(), self.parameters)
        self.outliers = Outliers(clip.outlier, model.device)
        self._split = split_names(model)
        replicated = {name: p for name, p in self.parameters.items() if name not in self._split}
        self.exchange = Exchange(
            processes,
            replicated,
            communication or CommunicationConfig(),
            some_missing=not model.head.on_device,
            seed=seed,
        )
        share = len(self.own) / num_streams
        self.local = LocalSteps(
            processes, replicated, communication or CommunicationConfig(), share
        )
        self.norms: GradientNorms | None = None

    def __call__(
        self, window: Window, state: State | None, *, step: int, lr_multiplier: float
    ) -> State:
        """Train on a window; the state to carry into the next one."""
        device = self.model.device
        self.optimizers.set_lr(lr_multiplier)
        return self.update(
            window.tokens.to(device, non_blocking=True),
            window.targets.to(device, non_blocking=True),
            state,
            noise=Noise(self.seed, step, self.num_streams),
            resets=window.resets,
        )

    def update(
        self,
        tokens: Int[Tensor, "T B"],
        targets: Int[Tensor, "T B"],
        state: State | None,
        *,
        noise: Noise,
        resets: Bool[Tensor, "T B"] | None = None,
    ) -> State:
        """The step itself, once all that differs from step to step lies on the device.

        Without resets it is the same device work for every window of a length: what a CUDA graph
        holds.
        """
        self.optimizers.zero_grad()
        apart = self.local.apart(noise.step)
        if apart:
            self.local.begin()
        objective, nats, new_state = self._accumulate(tokens, targets, state, noise, resets)
        norms = clip_gradients(self.parameters, self.clip, self._whole_norms)
        bad = ~(norms.finite & torch.isfinite(objective))
        if self.clip.off:
            bad = bad | (norms.total > LARGEST_UNCLIPPED)
        outlier = self.outliers.judge(norms.total)
        skip = bad if outlier is None else bad | outlier
        self.optimizers.step(skip, norms.coefficient)
        self.averages.update(skip)
        self.statistics.add(
            nats=nats,
            tokens=targets.numel() if apart else len(targets) * self.num_streams,
            norm=norms.total,
            clipped=norms.clipped,
            skip=skip,
            bad=bad,
        )
        self.norms = norms
        return self._keep_finite(bad, state, new_state)

    def norms_by_part(self) -> dict[str, float]:
        """Pre-clip gradient norm of the last step by part of the model; reads the device.

        Empty where this session has trained no step yet.
        """
        if self.norms is None:
            return {}
        squares: dict[str, float] = {}
        values = self.norms.by_parameter.tolist()
        for name, norm in zip(self.norms.names, values, strict=True):
            part = part_of(name)
            squares[part] = squares.get(part, 0.0) + norm**2
        return {part: square**0.5 for part, square in squares.items()}

    def _accumulate(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: State | None,
        noise: Noise,
        resets: Tensor | None,
    ) -> tuple[Tensor, Tensor, State]:
        """Forward and backward over all slices: the objective, its Σ nats, the new state.

        The first two are of all streams, as the gradients are, or of our own where the processes
        are apart; the state is of our own.
        """
        apart = self.local.apart(noise.step)
        whole = len(self.own) if apart else self.num_streams
        sums = torch.zeros(2, dtype=self.statistics.sums["nats"].dtype, device=tokens.device)
        states = []
        for streams in self.slices:
            if streams is self.slices[-1] and not apart:
                self.exchange.open()
            output = self.model(
                tokens[:, streams],
                targets[:, streams],
                None if state is None else slice_streams(state, streams),
                noise=noise.for_streams(_shifted(streams, self.own.start)),
                resets=None if resets is None else resets[:, streams],
            )
            share = output.objective
            if streams.stop - streams.start < whole:
                share = share * ((streams.stop - streams.start) / whole)
            _backward(share)
            sums += torch.stack([share.detach().to(sums.dtype), output.nll.sum(dtype=sums.dtype)])
            states.append(detach(output.state))
        if not apart:
            self.exchange.close(sums)
        return sums[0], sums[1], states[0] if len(states) == 1 else join_streams(states)

    def come_together(self) -> None:
        """Average over the processes what steps by themselves have made different."""
        state = [
            *self.optimizers.state_tensors().values(),
            *self.averages.tensors.values(),
            *self.outliers.tensors.values(),
        ]
        self.local.come_together(state)
        self.statistics.average(self.processes)

    def _whole_norms(self, names: tuple[str, ...], norms: Tensor) -> Tensor:
        """Norms of whole gradients from those of our own rows."""
        split = [name in self._split for name in names]
        if not any(split):
            return norms
        mask = torch.tensor(split, device=norms.device)
        squares = torch.where(mask, norms.square(), 0.0)
        self.processes.add_up(squares)
        return torch.where(mask, squares.sqrt(), norms)

    def _keep_finite(self, bad: Tensor, old: State | None, new: State) -> State:
        """After a bad step the old state goes on: a NaN in it would spoil every later step."""
        if old is None:
            old = detach(self.model.initial_state(len(self.own)))
        return [
            {name: torch.where(bad, before[name], after[name]) for name in after}
            for before, after in zip(old, new, strict=True)
        ]


def _shifted(streams: slice, by: int) -> slice:
    return slice(streams.start + by, streams.stop + by)
