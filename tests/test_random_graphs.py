"""Random programs: every way to run and to differentiate one agrees, and NumPy agrees too.

A failure prints the program. `CARTOGRAD_SEED=123 pytest tests/test_random_graphs.py` replays one;
`python -m tests.test_random_graphs 5000 [FIRST]` runs that many.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from tests.random_programs import Array, Program, random_program

CG, NUMPY = 0, 1
BATCH = 3


def _close(found: Any, wanted: Any, what: str, rtol: float = 1e-9) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, f"{what}: shape {found.shape}, not {wanted.shape}"
    assert found.dtype == wanted.dtype, f"{what}: {found.dtype}, not {wanted.dtype}"
    if found.size:
        scale = np.max(np.abs(wanted), initial=1e-3)
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * scale, err_msg=what)


def _tensors(arrays: list[Array]) -> list[cg.Tensor]:
    return [cg.asarray(x) for x in arrays]


class Case:
    """A program as functions: its outputs, and a smooth scalar of them."""

    def __init__(self, seed: int) -> None:
        self.program: Program = random_program(seed)
        self.inputs = self.program.inputs
        self.rng = np.random.default_rng(10**6 + seed)
        outs = self.program.run(NUMPY, self.inputs)
        self.weights = [self.rng.normal(size=np.shape(y)) for y in outs]
        self.v, self.u = ([self.rng.normal(size=x.shape) for x in self.inputs] for _ in range(2))

    def f(self, *xs: Any) -> tuple[Any, ...]:
        return tuple(self.program.run(CG, xs))

    def reference(self, xs: list[Array]) -> list[Array]:
        with np.errstate(all="ignore"):
            return [np.asarray(y) for y in self.program.run(NUMPY, xs)]

    def loss(self, *xs: Any) -> Any:
        outs = self.f(*xs)
        total: Any = cg.asarray(0.0, dtype=cg.float64)
        for y, w in zip(outs, self.weights, strict=True):
            total = total + cg.sum(cg.tanh(0.3 * y) * w)
        return total

    def reference_loss(self, xs: list[Array]) -> float:
        outs = self.reference(xs)
        return float(
            sum(np.sum(np.tanh(0.3 * y) * w) for y, w in zip(outs, self.weights, strict=True))
        )


def check_values(case: Case) -> None:
    """Eager, traced, read back from JSON, and under vmap: the values NumPy gives."""
    wanted = case.reference(case.inputs)
    args = _tensors(case.inputs)
    found = case.f(*args)
    graph = cg.trace(case.f)(*args)
    graph.verify()
    on_arrays = graph(*case.inputs)
    again = cg.Graph.from_json(graph.to_json())
    assert again.fingerprint() == graph.fingerprint(), "JSON changed the fingerprint"
    again.verify()
    from_json = again(*case.inputs)
    if not isinstance(from_json, (tuple, list)):
        from_json = (from_json,)
    for k, y in enumerate(wanted):
        _close(found[k], y, f"output {k}, eager")
        assert np.array_equal(on_arrays[k], found[k].numpy(), equal_nan=True), f"traced {k}"
        assert np.array_equal(from_json[k], on_arrays[k], equal_nan=True), f"JSON {k}"


def check_vmap(case: Case) -> None:
    """vmap against a loop over NumPy, with axes in odd places and inputs that are not mapped."""
    rng = case.rng
    axes: list[int | None] = [
        None if rng.random() < 0.3 else int(rng.integers(x.ndim + 1)) for x in case.inputs
    ]
    if all(axis is None for axis in axes):
        axes[0] = 0
    many = [
        np.stack([x + 0.02 * k * rng.normal(size=x.shape) for k in range(BATCH)], axis)
        if axis is not None
        else x
        for x, axis in zip(case.inputs, axes, strict=True)
    ]
    found = cg.vmap(case.f, in_axes=tuple(axes))(*many)
    for row in range(BATCH):
        own = [x if a is None else np.take(x, row, a) for x, a in zip(many, axes, strict=True)]
        with np.errstate(all="ignore"):
            if case.program.fragile(own):
                continue
        for k, (y, wanted) in enumerate(zip(found, case.reference(own), strict=True)):
            what = f"output {k}, element {row} of vmap over {axes}"
            assert y.shape == (BATCH, *wanted.shape), what
            _close(y.numpy()[row], wanted, what, 1e-8)


def difference(f: Callable[[float], float], h: float) -> float:
    """Central difference with one step of Richardson's extrapolation: error O(h^4)."""
    wide, narrow = (f(h) - f(-h)) / (2 * h), (f(h / 2) - f(-h / 2)) / h
    return (4 * narrow - wide) / 3


def check_gradients(case: Case) -> bool:
    """Reverse, forward, the graph's and backward() agree, and finite differences with them.

    Returns whether the finite differences were of use: they are not at a kink.
    """
    args = _tensors(case.inputs)
    numbers = tuple(range(len(args)))
    value, grads = cg.value_and_grad(case.loss, numbers)(*args)
    _close(value, np.float64(case.reference_loss(case.inputs)), "loss", 1e-9)
    arrays = [g.numpy() for g in grads]
    for g, x in zip(arrays, case.inputs, strict=True):
        assert g.shape == x.shape and g.dtype == x.dtype
    size = sum(float(np.sum(np.abs(g * v))) for g, v in zip(arrays, case.v, strict=True))
    along = sum(float(np.sum(g * v)) for g, v in zip(arrays, case.v, strict=True))
    tolerance = 1e-10 * (size + 1)

    forward = cg.jvp(case.loss, tuple(args), tuple(_tensors(case.v)))[1].item()
    assert abs(forward - along) <= tolerance, f"forward {forward}, reverse {along}"

    back = cg.trace(case.loss)(*args).backward()
    found = back(*case.inputs)
    found = found if isinstance(found, tuple) else (found,)
    for k, g in enumerate(arrays):
        _close(found[k], g, f"graph.backward(), input {k}", 1e-11)

    leaves = [cg.asarray(x, requires_grad=True) for x in case.inputs]
    loss = case.loss(*leaves)
    if loss.requires_grad:
        loss.backward()
    for k, (leaf, g) in enumerate(zip(leaves, arrays, strict=True)):
        own = np.zeros_like(g) if leaf.grad is None else leaf.grad.numpy()
        _close(own, g, f"Tensor.backward(), input {k}", 1e-11)

    many = [np.stack([x, x]) for x in case.inputs]
    each = cg.vmap(cg.grad(case.loss, numbers))(*many)  # per-example gradients
    for k, g in enumerate(arrays):
        _close(each[k].numpy()[1], g, f"vmap(grad), input {k}", 1e-9)

    def moved(t: float) -> list[Array]:
        return [x + t * v for x, v in zip(case.inputs, case.v, strict=True)]

    def at(t: float) -> float:
        return case.reference_loss(moved(t))

    left, right = case.program.jumps(moved(-2e-3)), case.program.jumps(moved(2e-3))
    if any(not np.array_equal(a, b) for a, b in zip(left, right, strict=True)):
        return False
    first, second, third = (difference(at, h) for h in (2e-3, 1e-3, 2.7e-4))
    noise = max(abs(first - second), abs(second - third))
    if not noise <= 1e-6 * (size + 1):
        return False
    assert abs(second - along) <= 30 * noise + 1e-8 * (size + 1), (
        f"finite difference {second} (+- {noise}), derivative {along}"
    )
    return True


def check_second_order(case: Case) -> None:
    """u' H v in four ways: reverse and forward, each over reverse and forward."""
    args, numbers = _tensors(case.inputs), tuple(range(len(case.inputs)))
    v, u = tuple(_tensors(case.v)), tuple(_tensors(case.u))

    def dot(left: Any, right: Any) -> Any:
        return sum((cg.sum(a * b) for a, b in zip(left, right, strict=True)), cg.asarray(0.0))

    def along(*xs: Any) -> Any:
        return cg.jvp(case.loss, xs, v)[1]

    def slope(*xs: Any) -> Any:
        return dot(cg.grad(case.loss, numbers)(*xs), v)

    parts = [g.numpy() for g in cg.grad(slope, numbers)(*args)]
    size = sum(float(np.sum(np.abs(a * b))) for a, b in zip(parts, case.u, strict=True))
    ways = {
        "rr": sum(float(np.sum(a * b)) for a, b in zip(parts, case.u, strict=True)),
        "rf": dot(cg.grad(along, numbers)(*args), u).item(),
        "fr": cg.jvp(slope, tuple(args), u)[1].item(),
        "ff": cg.jvp(along, tuple(args), u)[1].item(),
    }
    spread = max(ways.values()) - min(ways.values())
    assert spread <= 1e-9 * (size + 1), f"second order: {ways}"


CHECKS: tuple[Callable[[Case], Any], ...] = (
    check_values,
    check_vmap,
    check_gradients,
    check_second_order,
)


def check(seed: int) -> list[Any]:
    """Every check of one seed; AssertionError that shows the program."""
    case = Case(seed)
    found: list[Any] = []
    for one in CHECKS:
        try:
            found.append(one(case))
        except Exception as error:
            raise AssertionError(
                f"{one.__name__}: {type(error).__name__}: {error}\n{case.program}"
            ) from error
    return found


SEEDS = [int(os.environ["CARTOGRAD_SEED"])] if "CARTOGRAD_SEED" in os.environ else range(150)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_program(seed: int) -> None:
    check(seed)


def test_most_programs_are_smooth_enough_for_finite_differences() -> None:
    """The comparison with finite differences must not be rejected away."""
    useful = [check_gradients(Case(seed)) for seed in range(30)]
    assert sum(useful) >= 20


def main(count: int, first: int) -> int:
    """Run many seeds; print each failure, and how many there were."""
    failures = smooth = 0
    start = time.time()
    for seed in range(first, first + count):
        try:
            smooth += bool(check(seed)[2])
        except Exception:
            failures += 1
            print(f"--- seed {seed}", *traceback.format_exc().splitlines(), sep="\n", flush=True)
    print(
        f"{count} programs from seed {first}: {failures} failures, "
        f"{smooth} checked by finite differences, {time.time() - start:.0f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
