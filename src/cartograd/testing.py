"""Checks of derivatives that anyone can use: `check_grads` of a function, `check_op` of a record.

Truth comes from outside the rules: Richardson-extrapolated central differences, computed in
float64, and the agreement of forward with reverse mode. The tolerance is relative to the size of
the derivative; there is no fixed floor, which would accept anything in the tails, but a difference
of float64 values cannot see a derivative below about 1e-11 of the value itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np

from . import tree
from .dtype import float64, is_floating
from .errors import GradientError, UsageError
from .evaluate import run
from .graph import Graph, Shape, set_mode
from .ops.op import REGISTRY, Op, argument, build, constant, outputs
from .ops.samples import Sample
from .tensor import Tensor, wrap
from .trace import to_nodes
from .transforms import jvp, vjp, vmap

__all__ = ["check_grads", "check_op", "numerical_jvp"]

Array = np.ndarray[Any, Any]
Function = Callable[..., list[Tensor]]


def numerical_jvp(
    f: Callable[..., list[Array]], args: Sequence[Array], tangents: Sequence[Array], step: float
) -> list[Array]:
    """The derivative of `f` along `tangents` by central differences at steps h, h/2 and h/4.

    Two Richardson extrapolations leave an error of order h**6.

    >>> found = numerical_jvp(lambda x: [np.sin(x)], [np.array(1.0)], [np.array(1.0)], 1e-2)
    >>> bool(abs(found[0] - np.cos(1.0)) < 1e-12)
    True
    """

    def central(h: float) -> list[Array]:
        up = f(*(x + h * t for x, t in zip(args, tangents, strict=True)))
        down = f(*(x - h * t for x, t in zip(args, tangents, strict=True)))
        return [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)]

    rows = [central(step), central(step / 2), central(step / 4)]
    for order in (4.0, 16.0):
        rows = [
            [(order * b - a) / (order - 1) for a, b in zip(first, second, strict=True)]
            for first, second in pairwise(rows)
        ]
    return rows[0]


EPS = float(np.finfo(np.float64).eps)


def _close(found: Array, wanted: Array, rtol: float, what: str, floor: float = 0.0) -> None:
    """Raise unless two arrays agree, relative to the largest entry; `floor` is beneath notice."""
    known = np.abs(wanted)[~np.isnan(wanted)]
    scale = max(float(np.max(known, initial=0.0)), float(np.finfo(np.float64).tiny))
    bad = ~(np.abs(found - wanted) <= rtol * scale + floor)
    both_nan = np.isnan(found) & np.isnan(wanted)
    if np.any(bad & ~both_nan):
        at = tuple(int(k) for k in np.argwhere(bad & ~both_nan)[0])
        off = abs(found[at] - wanted[at]) / scale
        raise GradientError(
            f"{what}: at {at} the rule gives {found[at]!r}, finite differences {wanted[at]!r} "
            f"(relative to the largest, {scale:.3g}, off by {off:.3g}; allowed {rtol:.3g})"
        )


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int = 2,
    modes: Sequence[str] = ("fwd", "rev"),
    rtol: float = 1e-6,
    step: float = 2e-3,
    seed: int = 0,
    atol: float = 0.0,
) -> None:
    """Raise GradientError unless f's derivatives up to `order` agree with finite differences.

    `args` are floating-point arrays or Tensors (or trees of them), used in float64; f must be
    smooth within `step` of them. Along random directions, forward mode is compared with
    differences, reverse mode with forward mode (the adjoint identity), and then the derivative is
    checked in the same way, to `order`.

    `atol` is an absolute error that rounding inside f is known to make; 0 unless given.

    >>> import cartograd as cg
    >>> cg.testing.check_grads(lambda x: cg.sin(x) * x, [cg.asarray([0.3, 1.2])])
    """
    if order < 1:
        raise UsageError(f"check_grads: order is at least 1, not {order}")
    unknown = set(modes) - {"fwd", "rev"}
    if unknown or not modes:
        raise UsageError(f"check_grads: modes are 'fwd' and 'rev', not {sorted(unknown)}")
    leaves, structure = tree.flatten(tuple(args))
    values: list[Array] = []
    for node in to_nodes(leaves, "the arguments of check_grads"):
        if not is_floating(node.dtype):
            raise GradientError(f"check_grads: an argument has dtype {node.dtype.name}")
        assert node.value is not None
        values.append(np.asarray(node.value).astype(np.float64))

    def flat(*xs: Any) -> list[Tensor]:
        found = tree.leaves(f(*tree.unflatten(structure, xs)))
        return [y for y in found if is_floating(y.dtype)]

    check = _Check(flat, values, tuple(modes), rtol, step, np.random.default_rng(seed), atol)
    check.run("f", order)


@dataclass(frozen=True, slots=True)
class _Check:
    """A function and the values around which its derivatives are checked."""

    f: Function
    values: list[Array]
    modes: tuple[str, ...]
    rtol: float
    step: float
    rng: np.random.Generator
    atol: float

    def run(self, name: str, order: int) -> None:
        """Check the derivative along random directions, then that derivative's own."""
        tangents = self.noise(self.values)
        wanted = numerical_jvp(self.on_arrays, self.values, tangents, self.step)
        cts = self.noise(wanted)
        pushed: list[Array] | None = None
        if "fwd" in self.modes:
            pushed = self.forward(name, tangents, wanted)
        if "rev" in self.modes:
            rtol = self.rtol if pushed is None else 1e-9
            self.reverse(name, tangents, cts, wanted if pushed is None else pushed, rtol)
        if order > 1:
            if "fwd" in self.modes:
                self.but(_forward_of(self.f, tangents)).run(f"{name}, forward", order - 1)
            if "rev" in self.modes:
                self.but(_reverse_of(self.f, cts)).run(f"{name}, reverse", order - 1)

    def noise(self, arrays: Sequence[Array]) -> list[Array]:
        """A random array of the shape of each."""
        return [np.asarray(self.rng.standard_normal(cast("Shape", x.shape))) for x in arrays]

    def on_arrays(self, *xs: Array) -> list[Array]:
        """f on NumPy arrays."""
        return [np.asarray(y.numpy(), np.float64) for y in self.f(*map(_tensor, xs))]

    def forward(self, name: str, tangents: list[Array], wanted: list[Array]) -> list[Array]:
        """The results of forward mode, which must be near those of finite differences."""
        moved = _forward_of(self.f, tangents)(*map(_tensor, self.values))
        pushed = [np.asarray(t.numpy()) for t in moved]
        values = self.on_arrays(*self.values)
        for k, (found, truth, y) in enumerate(zip(pushed, wanted, values, strict=True)):
            # A difference of values this large cannot see a smaller derivative.
            floor = 256 * EPS * float(np.max(np.abs(y), initial=0.0)) / self.step
            floor = (floor if np.isfinite(floor) else 0.0) + self.atol
            _close(found, truth, self.rtol, f"{name}: forward mode, output {k}", floor)
        return pushed

    def reverse(
        self, name: str, tangents: list[Array], cts: list[Array], moved: list[Array], rtol: float
    ) -> None:
        """Raise unless <ct, J t>, by `moved`, is <J^T ct, t>, by reverse mode."""
        pulled = _reverse_of(self.f, cts)(*map(_tensor, self.values))
        left = sum(_dot(g.numpy(), t) for g, t in zip(pulled, tangents, strict=True))
        right = sum(_dot(ct, t) for ct, t in zip(cts, moved, strict=True))
        size = sum(_dot(np.abs(ct), np.abs(t)) for ct, t in zip(cts, moved, strict=True))
        values = self.on_arrays(*self.values)
        noise = EPS * sum(_dot(np.abs(ct), np.abs(y)) for ct, y in zip(cts, values, strict=True))
        floor = (256 * noise if np.isfinite(noise) else 0.0) + self.atol
        if not abs(left - right) <= rtol * max(size, 1e-300) + floor:
            raise GradientError(
                f"{name}: reverse mode: <ct, J t> is {right!r}, but <J^T ct, t> is {left!r}"
            )

    def but(self, f: Function) -> _Check:
        """The same check of another function, ten times as lenient."""
        return replace(self, f=f, rtol=self.rtol * 10)


def _forward_of(f: Function, tangents: list[Array]) -> Function:
    """The derivative of f along fixed tangents, as a function."""
    ts = tuple(_tensor(t) for t in tangents)

    def moved(*xs: Any) -> list[Tensor]:
        return jvp(f, xs, ts)[1]

    return moved


def _reverse_of(f: Function, cts: list[Array]) -> Function:
    """The gradient of f for fixed cotangents, as a function."""
    fixed = [_tensor(ct) for ct in cts]

    def pulled(*xs: Any) -> list[Tensor]:
        return list(vjp(f, *xs)[1](fixed))

    return pulled


def _dot(x: Array, y: Array) -> float:
    return float(np.sum(x * y))


def _tensor(x: Array) -> Tensor:
    return wrap(constant(np.array(x, np.float64)))


def check_op(
    op: Op | str, order: int = 3, rtol: float = 1e-5, step: float = 2e-3, seed: int = 0
) -> int:
    """Check an op record on its own samples; returns how many it checked.

    Values must have the shape and dtype its rule says, derivatives must agree with finite
    differences to `order`, and batching with a loop. Raises GradientError or UsageError.

    >>> import cartograd as cg
    >>> cg.testing.check_op("tanh", order=2) > 0
    True
    """
    record = REGISTRY[op] if isinstance(op, str) else op
    made = record.samples
    found = made(np.random.default_rng(seed)) if callable(made) else made
    samples = cast("list[Sample]", found or [])
    if not samples:
        raise UsageError(f"check_op: {record.name} has no samples")
    for sample in samples:
        _check_values(record, sample)
        _check_derivatives(record, sample, order, rtol, step)
    return len(samples)


def _check_values(op: Op, sample: Sample) -> None:
    """Raise UsageError unless the values have the shapes and dtypes that the rule says."""
    graph = _graph(op, sample)
    for found, node in zip(run(graph, list(sample.args)), graph.outputs, strict=True):
        if found.shape != node.shape or found.dtype != node.dtype:
            raise UsageError(
                f"{op.name}: its rule says {node.aval}, its eval gives {found.dtype}{found.shape}"
            )


def _check_derivatives(op: Op, sample: Sample, order: int, rtol: float, step: float) -> None:
    """Raise GradientError unless derivatives and batching are right for a sample."""
    chosen = sample.diff
    if chosen is None:
        chosen = tuple(k for k, a in enumerate(sample.args) if a.dtype == float64)
    graph = _graph(op, sample)
    floats = any(is_floating(node.dtype) for node in graph.outputs)
    picked = [sample.args[k] for k in chosen]
    if not op.differentiable or not floats or not picked or not all(a.size for a in picked):
        return

    def f(*xs: Any) -> list[Tensor]:
        given = [wrap(constant(a)) for a in sample.args]
        for k, x in zip(chosen, xs, strict=True):
            given[k] = x
        return [y for y in tree.leaves(graph(*given)) if is_floating(y.dtype)]

    check_grads(f, picked, order=order, rtol=rtol, step=step, atol=sample.atol)
    stacked = [wrap(constant(np.stack([a, a * 0.75 + 0.125]))) for a in picked]
    batched = vmap(f)(*stacked)
    for row in range(2):
        single = f(*(s[row] for s in stacked))
        for whole, part in zip(batched, single, strict=True):
            _close(whole.numpy()[row], part.numpy(), 1e-12, f"{op.name}: batching")


def _graph(op: Op, sample: Sample) -> Graph:
    with set_mode(staging=True, recording=True):
        inputs = [argument(a.shape, a.dtype) for a in sample.args]
        return Graph(inputs, outputs(build(op, inputs, dict(sample.params))))
