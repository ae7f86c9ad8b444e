"""The state between two batches: taken before each one, so that a bad batch can be undone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import tree
from ..errors import UsageError
from ..namespace.creation import asarray
from ..nn import Module
from ..optim import Optimizer
from ..random import Generator
from ..tensor import State, Tensor
from .batches import Batch, Batches
from .ema import EMA
from .packing import Array
from .rng import generators_of, random_state, set_random_state

__all__ = [
    "Changing",
    "Moment",
    "describe_non_finite",
    "load_model_state",
    "model_state",
    "settle",
    "states_of",
]


@dataclass(frozen=True, slots=True)
class Moment:
    """All that a batch changes before the parameters are updated; they are references, no copies.

    >>> Moment({}, {}, [], []).gradients
    []
    """

    loader: dict[str, Any]
    randomness: dict[str, Any]
    buffers: list[tuple[State, Tensor]]
    gradients: list[tuple[State, Tensor | None]]

    def with_buffers(self, buffers: Iterable[State]) -> Moment:
        """Return this moment with the present values of these Buffers."""
        return replace(self, buffers=_values(buffers))

    def restore(self, model: Module) -> None:
        """Undo what happened since, but for the loader's place."""
        set_random_state(self.randomness, model)
        for buffer, value in self.buffers:
            buffer.assign(value)
        for parameter, gradient in self.gradients:
            parameter.grad = gradient


@dataclass(frozen=True, slots=True)
class Changing:
    """What a batch may change, looked up once an epoch."""

    batches: Batches
    generators: Mapping[str, Generator]
    buffers: Sequence[State]
    parameters: Sequence[State]

    @staticmethod
    def of(batches: Batches, model: Module, buffers: Sequence[State]) -> Changing:
        """Look it up."""
        return Changing(batches, generators_of(model), buffers, list(model.parameters()))

    def now(self) -> Moment:
        """Take its present state."""
        return Moment(
            self.batches.state_dict(),
            random_state(self.generators),
            _values(self.buffers),
            [(parameter, parameter.grad) for parameter in self.parameters],
        )


def _values(buffers: Iterable[State]) -> list[tuple[State, Tensor]]:
    return [(buffer, Tensor(buffer.node)) for buffer in buffers]


def settle(states: Iterable[State]) -> None:
    """Give values and gradients the memory layout that they would have if read from a checkpoint.

    NumPy adds up in the order of memory, and BLAS has a routine for each order, so that a
    transposed array and its restored copy could lead to different last bits.
    """
    for state in states:
        if not state.numpy().flags.c_contiguous:
            state.assign(np.asarray(state.numpy(), order="C"))
        if state.grad is not None and not state.grad.numpy().flags.c_contiguous:
            state.grad = asarray(np.asarray(state.grad.numpy(), order="C"))


def states_of(model: Module, optimizer: Optimizer | None, ema: EMA | None) -> list[State]:
    """Return every State that a step may change."""
    states: list[State] = [*model.parameters(), *model.buffers()]
    if optimizer is not None:
        states += [cell for cells in optimizer.state.values() for cell in cells.values()]
    return states if ema is None else [*states, *ema.averages.values(), ema.updates]


def model_state(model: Module) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Return the model's state_dict, the buffers that it leaves out, and waiting gradients."""
    state = {name: np.asarray(value.numpy()) for name, value in model.state_dict().items()}
    transient = {n: b.numpy() for n, b in model.named_buffers() if n not in state}
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
    return state, transient, gradients


def load_model_state(
    model: Module, state: dict[str, Array], transient: dict[str, Any], gradients: dict[str, Any]
) -> None:
    """Put back what `model_state` returned; raises UsageError where it does not fit."""
    have = {name: f"{v.dtype.name}{v.shape}" for name, v in model.state_dict().items()}
    saved = {name: f"{v.dtype.name}{v.shape}" for name, v in state.items()}
    differ = [
        f"{name}: saved {saved.get(name, 'not at all')}, in the model {have.get(name, 'not there')}"
        for name in sorted(have.keys() | saved.keys())
        if have.get(name) != saved.get(name)
    ]
    if differ:
        raise UsageError("the run was saved with another model:\n  " + "\n  ".join(differ[:10]))
    model.load_state_dict({name: asarray(value) for name, value in state.items()})
    buffers = dict(model.named_buffers())
    for name, value in transient.items():
        if name in buffers:
            buffers[name].assign(asarray(value))
    for name, parameter in model.named_parameters():
        parameter.grad = asarray(gradients[name]) if name in gradients else None


def describe_non_finite(
    batch: Batch | None, output: Any, loss: Tensor | None, model: Module, what: str
) -> str:
    """Say where the first NaN or infinity of a step is to be found: input, parameter, or output.

    Without a batch, the gradients of several have been added up to it.
    """
    if batch is None:
        return "the gradients added up over several batches went beyond the largest number"
    for name, value in (("input", (batch.args, batch.kwargs)), ("target", batch.target)):
        if not _finite(value):
            return f"the batch's {name} holds a NaN or infinity already"
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"the parameter {name} holds a NaN or infinity already"
    if not _finite(output):
        return "the model's output holds a NaN or infinity, though its input and parameters do not"
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not _finite(p.grad)]
    if bad and what != "loss":
        return f"the loss is finite, but not the gradients of {', '.join(bad[:5])}"
    if not bad and _finite(loss):
        return "computed once more, op by op, everything is finite, so numbers are at their limits"
    return "the model's output is finite: the loss function made it"


def _finite(value: Any) -> bool:
    return all(
        bool(np.isfinite(leaf.numpy()).all())
        for leaf in tree.leaves(value)
        if isinstance(leaf, Tensor) and leaf.dtype.kind in "fV"
    )
