"""What a workload is: weights, one batch, a model for the libraries of modules and one for JAX.

A workload is one training step: forward, backward and update, float32. Its numbers are made with
NumPy from a seed and handed to every library, so all of them compute the same losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shapes = dict[str, tuple[int, ...]]

# The state that Adam reads and writes for each parameter: p, m and v, both ways, float32.
ADAM_BYTES = 6 * 4
SGD_MOMENTUM_BYTES = 4 * 4


@dataclass(frozen=True, slots=True)
class Workload:
    """One training step, the same in every library.

    `modules(lib)` gives (model, loss) with `lib` torch or cartograd, which have the same names;
    loss(model, *batch) is a scalar. `jax` is loss(params, *batch), where `params` are the weights
    after `prepare`. A workload that is no loss to descend gives `steps` instead: one function for
    each library, from (weights, batch, options) to a step without arguments.
    """

    name: str
    about: str
    shapes: Shapes
    batch: Callable[[np.random.Generator], tuple[Array, ...]]
    flops: float
    modules: Callable[[Any], tuple[Any, Callable[..., Any]]] | None = None
    jax: Callable[..., Any] | None = None
    prepare: Callable[[dict[str, Array]], dict[str, Array]] | None = None
    statistics: tuple[str, ...] = ()
    optimizer: str = "adam"
    rate: float = 1e-3
    steps: Mapping[str, Callable[..., Callable[[], Any]]] | None = None
    cannot: tuple[str, ...] = ()

    def numbers(self) -> tuple[dict[str, Array], tuple[Array, ...]]:
        """(weights by PyTorch's names, batch): the same in every process."""
        return weights(self.shapes), self.batch(np.random.default_rng(7))

    def bytes(self) -> float:
        """The least traffic with memory: the optimiser's state both ways, and the batch once."""
        each = {"adam": ADAM_BYTES, "sgd": SGD_MOMENTUM_BYTES, "none": 4}[self.optimizer]
        count = sum(math.prod(shape) for shape in self.shapes.values())
        return each * count + sum(a.nbytes for a in self.batch(np.random.default_rng(7)))


def weights(shapes: Shapes) -> dict[str, Array]:
    """Normal weights over the root of their fan-in; scales about 1, other vectors about 0."""
    rng = np.random.default_rng(3)
    made: dict[str, Array] = {}
    for name, shape in shapes.items():
        x = rng.standard_normal(shape)
        if len(shape) > 1:
            x = x / math.sqrt(math.prod(shape[1:]))
        elif name.endswith("running_var"):
            x = np.ones(shape)
        elif name.endswith("running_mean"):
            x = np.zeros(shape)
        elif name.endswith("weight"):
            x = 1 + 0.1 * x
        else:
            x = 0.05 * x
        made[name] = x.astype(np.float32)
    return made


def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    """The shapes of a Linear."""
    shapes: Shapes = {f"{name}.weight": (outputs, inputs)}
    return shapes | ({f"{name}.bias": (outputs,)} if bias else {})


def conv(name: str, inputs: int, outputs: int, size: int, bias: bool = True) -> Shapes:
    """The shapes of a Conv2d with square windows."""
    shapes: Shapes = {f"{name}.weight": (outputs, inputs, size, size)}
    return shapes | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    """The shapes of a LayerNorm or of a BatchNorm without its running statistics."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def product(m: int, k: int, n: int, times: int = 3) -> float:
    """FLOPs of an [m, k] x [k, n] product forward, and of its two gradients (times=3)."""
    return 2.0 * m * k * n * times


def normal(*shape: int) -> Callable[[np.random.Generator], Array]:
    """A maker of standard normal float32 arrays."""
    return lambda rng: rng.standard_normal(shape).astype(np.float32)


def integers(high: int, *shape: int) -> Callable[[np.random.Generator], Array]:
    """A maker of int64 arrays below `high`."""
    return lambda rng: rng.integers(0, high, shape)


def uniform(*shape: int) -> Callable[[np.random.Generator], Array]:
    """A maker of float32 arrays in [0, 1)."""
    return lambda rng: rng.random(shape).astype(np.float32)


def together(
    *makers: Callable[[np.random.Generator], Array],
) -> Callable[[np.random.Generator], tuple[Array, ...]]:
    """A batch from makers of its arrays."""
    return lambda rng: tuple(make(rng) for make in makers)
