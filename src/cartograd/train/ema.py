"""An exponential moving average of the parameters, as part of the training step."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from ..errors import FileFormatError, UsageError
from ..namespace.creation import full_like
from ..namespace.searching import where
from ..nn import Module
from ..tensor import Parameter, State, Tensor, no_grad
from .packing import Array

__all__ = ["EMA"]


class EMA:
    """Keeps average <- average + (1 - d) (parameter - average) of every floating parameter.

    d is `decay`; with `warmup` it is min(decay, (1 + t) / (10 + t)) after t updates (Tan and Le
    2019), so that the average soon forgets the initial parameters. Averages of float16 and
    bfloat16 parameters are kept in float32. Buffers are not averaged.

    >>> import cartograd as cg
    >>> model = cg.nn.Linear(1, 1, bias=False)
    >>> model.weight.assign(cg.zeros((1, 1)))
    >>> ema = EMA(0.5, warmup=False)
    >>> ema.attach(model)
    >>> model.weight.assign(cg.ones((1, 1)))
    >>> ema.update()
    >>> ema.averages["weight"].item()
    0.5
    """

    def __init__(self, decay: float = 0.999, *, warmup: bool = True) -> None:
        if not 0.0 <= decay < 1.0:
            raise UsageError(f"EMA: decay={decay} must be at least 0 and below 1")
        self.decay, self.warmup = decay, warmup
        self.averages: dict[str, State] = {}
        self.updates = State(np.zeros((), np.float64))
        self._parameters: dict[str, Parameter] = {}

    def attach(self, model: Module) -> None:
        """Begin to average the parameters of `model`, from what they are now."""
        self._parameters = dict(model.named_parameters())
        self.averages = {
            name: State(parameter.detach().astype(_wide(parameter)))
            for name, parameter in self._parameters.items()
        }
        self.updates.assign(np.zeros((), np.float64))

    def update(self) -> None:
        """Take in the parameters as they are now; part of the training step, and traceable."""
        with no_grad():
            rest: Any = 1.0 - self.decay
            if self.warmup:
                ramp = (self.updates + 1.0) / (self.updates + 10.0)
                rest = 1.0 - where(ramp < self.decay, ramp, full_like(ramp, self.decay))
            for name, average in self.averages.items():
                parameter = self._parameters[name].detach().astype(average.dtype)
                share = rest.astype(average.dtype) if isinstance(rest, Tensor) else rest
                average.assign(average + (parameter - average) * share)
            self.updates.assign(self.updates + 1.0)

    @contextlib.contextmanager
    def applied(self) -> Generator[None]:
        """A context in which the model has the averages for its parameters."""
        kept = {name: parameter.detach() for name, parameter in self._parameters.items()}
        try:
            for name, parameter in self._parameters.items():
                parameter.assign(self.averages[name].detach().astype(parameter.dtype))
            yield
        finally:
            for name, value in kept.items():
                self._parameters[name].assign(value)

    def reset(self) -> None:
        """Take the parameters as they are now for the averages, as after loading weights."""
        for name, average in self.averages.items():
            average.assign(self._parameters[name].detach().astype(average.dtype))

    def state_dict(self) -> dict[str, Any]:
        """Return the averages by name and the number of updates."""
        averages = {name: average.numpy() for name, average in self.averages.items()}
        return {"averages": averages, "updates": self.updates.item()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        averages: Mapping[str, Array] = state["averages"]
        if averages.keys() != self.averages.keys():
            raise FileFormatError(
                f"EMA: the state has averages of {sorted(averages)}, "
                f"the model has {sorted(self.averages)}"
            )
        for name, average in self.averages.items():
            average.assign(averages[name])
        self.updates.assign(np.asarray(state["updates"], np.float64))

    def config(self) -> dict[str, Any]:
        """Return the settings."""
        return {"decay": self.decay, "warmup": self.warmup}


def _wide(parameter: Parameter) -> np.dtype[Any]:
    return parameter.dtype if parameter.dtype.itemsize >= 4 else np.dtype(np.float32)
