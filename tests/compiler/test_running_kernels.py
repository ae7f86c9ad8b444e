"""Kernels of running ops against what the ops mean, to the last bit, in many layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cartograd.compiler.ir import Module
from cartograd.compiler.kernels import running as kernels
from cartograd.compiler.kernels.running import (
    LOGSUMEXP,
    PRODUCT,
    RECURRENCE,
    SUM,
    RunningSpec,
    Step,
    emit_running,
)
from cartograd.dtype import bfloat16, float16, float32, float64, int8, int64, kind_of, uint32
from cartograd.ops.op import Op
from cartograd.ops.reduce import cumprod, cumsum, cumulative_logsumexp, linear_recurrence
from tests.compiler.native import Array, Native, at_once, backwards, layouts, same, strided

FLOATING = [float32, float64, float16, bfloat16]
DTYPES = [*FLOATING, int8, int64, uint32]
SHAPES = [(7,), (1,), (0, 3), (3, 0), (5, 6), (2, 9, 35), (3, 4, 5, 3), (13, 2), (4, 1, 40)]


def pairs(dtypes: list[Any]) -> list[Any]:
    """Every shape with two of the dtypes, every dtype with some shapes."""
    found = [(s, dtypes[(2 * k + j) % len(dtypes)]) for k, s in enumerate(SHAPES) for j in (0, 1)]
    return [pytest.param(s, d, id=f"{d.name}{list(s)}") for s, d in found]


def check(step: Step, op: Op, operands: list[Array], axis: int, **params: Any) -> None:
    module = Module()
    reverse = params.get("reverse", False)
    spec = RunningSpec(step, tuple(map(strided, operands)), axis, reverse)
    native = Native(module, emit_running(module, "k", spec), len(operands) + 1)
    want = np.ascontiguousarray(op.eval(*operands, axis=axis, **params))
    for order in (at_once, backwards):
        y = np.zeros(want.shape, want.dtype)
        native(*operands, y, order=order)
        assert same(y, want), (operands[0].strides, axis, params)


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    if kind_of(dtype) == "floating":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 9, shape).astype(dtype)


@pytest.mark.parametrize(("shape", "dtype"), pairs(DTYPES))
def test_sums_and_products(
    shape: tuple[int, ...], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(len(shape))
    monkeypatch.setattr(kernels, "GRAIN", 64)
    ways = layouts(random_array(rng, shape, dtype))
    for axis in range(len(shape)):
        x = ways[(axis + dtype.itemsize) % len(ways)]
        check(SUM, cumsum, [x], axis)
        check(SUM, cumsum, [x], axis, reverse=True)
        check(PRODUCT, cumprod, [ways[0]], axis)


@pytest.mark.parametrize(("shape", "dtype"), pairs(FLOATING))
def test_recurrences(shape: tuple[int, ...], dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(len(shape))
    monkeypatch.setattr(kernels, "GRAIN", 64)
    a, b = (layouts(random_array(rng, shape, dtype)) for _ in range(2))
    for axis in range(len(shape)):
        check(RECURRENCE, linear_recurrence, [a[0], b[axis % 4]], axis, reverse=True)
        check(RECURRENCE, linear_recurrence, [a[axis % 2], b[0]], axis)


@pytest.mark.parametrize(("shape", "dtype"), pairs(FLOATING))
def test_logsumexp(shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(len(shape))
    x = (rng.standard_normal(shape) * 30).astype(dtype)
    for axis in range(len(shape)):
        check(LOGSUMEXP, cumulative_logsumexp, [x], axis)


def test_logsumexp_of_infinities() -> None:
    inf, nan = np.inf, np.nan
    for row in ([-inf, -inf, 1.0, inf, inf, 2.0], [1.0, nan, 1.0], [inf, -inf], [3.0, 3.0, -inf]):
        for dtype in (float32, float64):
            with np.errstate(invalid="ignore"):
                check(LOGSUMEXP, cumulative_logsumexp, [np.array(row, dtype)], 0)


def test_many_rows_and_columns() -> None:
    rng = np.random.default_rng(3)
    for shape in ((301, 130), (1000, 7), (70000,)):
        x = rng.standard_normal(shape).astype(np.float32)
        for axis in range(x.ndim):
            check(SUM, cumsum, [x], axis)
