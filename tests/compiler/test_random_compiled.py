"""Random programs, compiled and evaluated: values, gradients, second derivatives and batches agree.

A failure prints the program. `CARTOGRAD_SEED=123 pytest tests/compiler/test_random_compiled.py`
replays one; `python -m tests.compiler.test_random_compiled 5000 [FIRST]` runs that many.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.compiler.options import Options
from cartograd.compiler.rewrite import RULES
from tests.random_programs import FRAGILE, LARGE, SMALL, random_program

PLAIN = {"fused": Options(), "unfused": Options(fuse=False)}
# Beside those, in turn. Calls have no code of their own: they are always put in line.
SPARE = {
    "no reuse": Options(reuse=False),
    "one thread": Options(parallel=False),
    "no rewrites": Options(off=frozenset(RULES) - {"inline"}),
}


class Case:
    """A program as functions: its outputs, and a smooth scalar of them."""

    def __init__(self, seed: int, large: bool) -> None:
        self.seed = seed
        self.program = random_program(seed, LARGE if large else SMALL)
        self.rng = np.random.default_rng(10**6 + seed)
        outs = self.program.run(1, self.program.inputs)
        self.weights = [self.rng.normal(size=np.shape(y)) for y in outs]
        self.numbers = tuple(range(len(self.program.inputs)))

    def values(self, *xs: Any) -> Any:
        return self.program.run(0, xs)

    def loss(self, *xs: Any) -> Any:
        total: Any = cg.asarray(0.0, dtype=cg.float64)
        for y, w in zip(self.values(*xs), self.weights, strict=True):
            total = total + cg.sum(cg.tanh(0.3 * y) * w) / max(1, w.size**0.5)
        return total

    def gradient(self, *xs: Any) -> Any:
        return cg.value_and_grad(self.loss, self.numbers)(*xs)

    def second(self, *xs: Any) -> Any:
        """Reverse over reverse, and forward over reverse."""
        v = [cg.asarray(np.random.default_rng(self.seed).normal(size=x.shape)) for x in xs]

        def slope(*ys: Any) -> Any:
            found = cg.grad(self.loss, self.numbers)(*ys)
            return sum((cg.sum(g * d) for g, d in zip(found, v, strict=True)), cg.asarray(0.0))

        return cg.grad(slope, self.numbers)(*xs), cg.jvp(slope, xs, tuple(v))[1]

    def batch(self, *xs: Any) -> Any:
        """Gradients of a batch of examples."""
        return cg.vmap(cg.grad(self.loss, self.numbers))(*xs)


def compare(got: Any, want: Any, what: str, slack: Sequence[float], rtol: float) -> None:
    """Equal within rtol of the largest number and what rounding is known to make of each."""
    left, right = cg.tree.leaves(got), cg.tree.leaves(want)
    assert len(left) == len(right)
    for k, (a, b) in enumerate(zip(left, right, strict=True)):
        label = f"{what}, result {k}"
        assert a.shape == b.shape, f"{label}: shape {a.shape}, evaluated {b.shape}"
        assert a.dtype == b.dtype, f"{label}: {a.dtype}, evaluated {b.dtype}"
        found, wanted = a.numpy(), b.numpy()
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(found, wanted, label)
            continue
        scale = np.max(np.abs(wanted[np.isfinite(wanted)]), initial=1e-3)
        atol = rtol * scale + (slack[k] if slack else 0.0)
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol, err_msg=label)


def run(
    f: Callable[..., Any], args: Sequence[Any], options: dict[str, Options], what: str,
    slack: Sequence[float] = (), rtol: float = 1e-9,
) -> None:  # fmt: skip
    """A function compiled in several ways against itself evaluated."""
    want = f(*args)
    for name, option in options.items():
        got = cg.compile(f, options=option)(*args)
        compare(got, want, f"{what}, {name}", slack, rtol)


def check(seed: int, large: bool = False) -> None:
    """Every comparison of one seed; AssertionError that shows the program."""
    case = Case(seed, large)
    inputs = case.program.inputs
    args = [cg.asarray(x) for x in inputs]
    spare = dict([list(SPARE.items())[seed % len(SPARE)]])
    try:
        run(case.values, args, PLAIN | (spare if seed % 2 else {}), "values")
        run(case.gradient, args, PLAIN if seed % 2 else PLAIN | spare, "gradient")
        fused = {"fused": PLAIN["fused"]}
        if seed % 3 == 0:
            run(case.second, args, fused, "second derivative", rtol=1e-8)
        elif seed % 3 == 1:
            many = [
                cg.asarray(np.stack([x + 0.02 * k * case.rng.normal(size=x.shape) for k in (0, 1)]))
                for x in inputs
            ]
            if not case.program.fragile([x.numpy()[1] for x in many]):
                run(case.batch, many, fused, "vmap(grad)")
        elif not any(step.name in (*FRAGILE, "at") for step in case.program.steps):
            low = [x.astype(cg.float32) for x in args]
            near = cg.tree.leaves(case.gradient(*low)), cg.tree.leaves(case.gradient(*args))
            slack = [
                30.0 * float(np.max(np.abs(a.numpy() - b.numpy()), initial=0.0))
                for a, b in zip(*near, strict=True)
            ]
            run(case.gradient, low, fused, "gradient in float32", slack, 1e-5)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}\n{case.program}") from error


SEEDS = [int(os.environ["CARTOGRAD_SEED"])] if "CARTOGRAD_SEED" in os.environ else range(36)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_compiled_program_is_the_evaluated_one(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize("seed", SEEDS[:8])
def test_a_compiled_program_of_longer_axes_is_the_evaluated_one(seed: int) -> None:
    check(seed, large=True)


def main(count: int, first: int) -> int:
    """Run many seeds, in both sizes; print each failure, and how many there were."""
    failures, start = 0, time.time()
    for seed in range(first, first + count):
        for large in (False, True):
            try:
                check(seed, large)
            except Exception:
                failures += 1
                lines = traceback.format_exc().splitlines()[-60:]
                print(f"--- seed {seed}{' large' * large}", *lines, sep="\n", flush=True)
    print(f"{count} programs from seed {first}: {failures} failures, {time.time() - start:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
