"""Checks of derivatives that anyone can use: `check_grads` of a function, `check_op` of a record.

Truth comes from outside the rules: Richardson-extrapolated central differences, computed in
float64, and the agreement of forward with reverse mode. The tolerance is relative to the size of
the derivative, with no absolute floor that would accept anything in the tails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import tree
from .dtype import float64, is_floating
from .errors import GradientError, UsageError
from .evaluate import run
from .graph import Graph, set_mode
from .ops.op import REGISTRY, Op, build, constant, input_node, outputs
from .tensor import Tensor, wrap
from .trace import to_nodes
from .transforms import jvp, vjp, vmap

__all__ = ["check_grads", "check_op", "numerical_jvp"]

Array = np.ndarray[Any, Any]


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
            for first, second in zip(rows, rows[1:], strict=False)
        ]
    return rows[0]


def _close(found: Array, wanted: Array, rtol: float, what: str) -> None:
    known = np.abs(wanted)[~np.isnan(wanted)]
    scale = max(float(np.max(known, initial=0.0)), float(np.finfo(np.float64).tiny))
    bad = ~(np.abs(found - wanted) <= rtol * scale)
    both_nan = np.isnan(found) & np.isnan(wanted)
    if np.any(bad & ~both_nan):
        at = tuple(int(k) for k in np.argwhere(bad & ~both_nan)[0])
        raise GradientError(
            f"{what}: at {at} the rule gives {found[at]!r}, finite differences {wanted[at]!r} "
            f"(relative to the largest, {scale:.3g}, off by {abs(found[at] - wanted[at]) / scale:.3g}; "
            f"allowed {rtol:.3g})"
        )


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int = 2,
    modes: Sequence[str] = ("fwd", "rev"),
    rtol: float = 1e-6,
    step: float = 2e-3,
    seed: int = 0,
) -> None:
    """Raise GradientError unless f's derivatives up to `order` agree with finite differences.

    `args` are floating-point arrays or Tensors (or trees of them), used in float64; f must be
    smooth within `step` of them. Along random directions, forward mode is compared with
    differences, reverse mode with forward mode (the adjoint identity), and then the derivative is
    checked in the same way, to `order`.

    >>> import cartograd as cg
    >>> cg.testing.check_grads(lambda x: cg.sin(x) * x, [cg.asarray([0.3, 1.2])])
    """
    if order < 1:
        raise UsageError(f"check_grads: order is at least 1, not {order}")
    unknown = set(modes) - {"fwd", "rev"}
    if unknown or not modes:
        raise UsageError(f"check_grads: modes are 'fwd' and 'rev', not {sorted(unknown)}")
    rng = np.random.default_rng(seed)
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

    _check(flat, values, order, modes, rtol, step, rng, "f")


def _check(
    f: Callable[..., list[Tensor]],
    values: list[Array],
    order: int,
    modes: Sequence[str],
    rtol: float,
    step: float,
    rng: np.random.Generator,
    name: str,
) -> None:
    def numpy_f(*xs: Array) -> list[Array]:
        return [np.asarray(y.numpy(), np.float64) for y in f(*(_tensor(x) for x in xs))]

    tangents = [rng.standard_normal(x.shape) for x in values]
    ts = [_tensor(t) for t in tangents]
    xs = [_tensor(x) for x in values]
    wanted = numerical_jvp(numpy_f, values, tangents, step)
    cts = [rng.standard_normal(y.shape) for y in wanted]
    pushed: list[Array] | None = None
    if "fwd" in modes:
        _, moved = jvp(f, tuple(xs), tuple(ts))
        pushed = [np.asarray(t.numpy()) for t in moved]
        for k, (found, truth) in enumerate(zip(pushed, wanted, strict=True)):
            _close(found, truth, rtol, f"{name}: forward mode, output {k}")
    if "rev" in modes:
        _, pull = vjp(f, *xs)
        pulled = pull([_tensor(ct) for ct in cts])
        left = sum(
            float(np.sum(np.asarray(g.numpy()) * t)) for g, t in zip(pulled, tangents, strict=True)
        )
        right = sum(float(np.sum(ct * t)) for ct, t in zip(cts, pushed or wanted, strict=True))
        size = sum(
            float(np.sum(np.abs(ct * t))) for ct, t in zip(cts, pushed or wanted, strict=True)
        )
        if not abs(left - right) <= (1e-9 if pushed is not None else rtol) * max(size, 1e-300):
            raise GradientError(
                f"{name}: reverse mode: <ct, J t> is {right!r}, but <J^T ct, t> is {left!r}"
            )
    if order > 1:
        if "fwd" in modes:

            def forward_of(*zs: Any) -> list[Tensor]:
                return jvp(f, zs, tuple(ts))[1]

            _check(forward_of, values, order - 1, modes, rtol * 10, step, rng, f"{name}, forward")
        if "rev" in modes:
            fixed = [_tensor(ct) for ct in cts]

            def reverse_of(*zs: Any) -> list[Tensor]:
                return list(vjp(f, *zs)[1](fixed))

            _check(reverse_of, values, order - 1, modes, rtol * 10, step, rng, f"{name}, reverse")


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
    rng = np.random.default_rng(seed)
    samples = record.samples(rng) if callable(record.samples) else (record.samples or [])
    if not samples:
        raise UsageError(f"check_op: {record.name} has no samples")
    for sample in samples:
        _check_sample(record, sample, order, rtol, step)
    return len(samples)


def _check_sample(op: Op, sample: Any, order: int, rtol: float, step: float) -> None:
    arrays = [np.asarray(a) for a in sample.args]
    graph = _graph(op, arrays, sample.params)
    results = run(graph, arrays)
    for found, node in zip(results, graph.outputs, strict=True):
        if found.shape != node.shape or found.dtype != node.dtype:
            raise UsageError(
                f"{op.name}: its rule says {node.aval}, its eval gives {found.dtype}{found.shape}"
            )
    if not op.differentiable:
        return
    chosen = sample.diff
    if chosen is None:
        chosen = tuple(k for k, a in enumerate(arrays) if a.dtype == np.float64)
    if not chosen or not any(is_floating(node.dtype) for node in graph.outputs):
        return

    def f(*xs: Any) -> list[Tensor]:
        given = [wrap(constant(a)) for a in arrays]
        for k, x in zip(chosen, xs, strict=True):
            given[k] = x
        found = graph(*given)
        many = found if isinstance(found, tuple) else (found,)
        return [y for y in many if is_floating(y.dtype)]

    picked = [arrays[k] for k in chosen]
    if all(a.size for a in picked):
        check_grads(f, picked, order=order, rtol=rtol, step=step)
        stacked = [wrap(constant(np.stack([a, a * 0.75 + 0.125]))) for a in picked]
        batched = vmap(f)(*stacked)
        for row in range(2):
            single = f(*(s[row] for s in stacked))
            for whole, part in zip(batched, single, strict=True):
                _close(whole.numpy()[row], part.numpy(), 1e-12, f"{op.name}: batching")


def _graph(op: Op, arrays: Sequence[Array], params: Any) -> Graph:
    with set_mode(staging=True, recording=True):
        inputs = [input_node(a.shape, a.dtype, int(a.dtype == float64)) for a in arrays]
        return Graph(inputs, outputs(build(op, inputs, dict(params))))
