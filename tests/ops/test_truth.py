"""The truth itself: the derivatives written by hand against mpmath's differences of the values."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mpmath as mp
import pytest

from cartograd.ops.op import REGISTRY
from tests.ops.truth import BINARY, UNARY
from tests.ops.ulps import all_orders

DIGITS = 30


@pytest.mark.parametrize("name", UNARY)
def test_derivatives_of_one_input(name: str) -> None:
    f = UNARY[name].f
    with mp.workdps(DIGITS):
        for x in REGISTRY[name].samples[0].args[0].tolist():
            for n in range(1, len(f)):
                check(f[n](mp.mpf(x)), differences(f[n - 1], mp.mpf(x)), f"{name}, order {n}, {x}")


@pytest.mark.parametrize("name", BINARY)
def test_derivatives_of_two_inputs(name: str) -> None:
    f, order = BINARY[name].f, BINARY[name].order
    points = zip(*(a.tolist() for a in REGISTRY[name].samples[0].args), strict=True)
    with mp.workdps(DIGITS):
        for x, y in ((mp.mpf(a), mp.mpf(b)) for a, b in points):
            for i, j in all_orders(2, order)[1:]:
                if i:
                    found = differences(lambda t, y=y, i=i, j=j: f(t, y, i - 1, j), x)
                else:
                    found = differences(lambda t, x=x, i=i, j=j: f(x, t, i, j - 1), y)
                check(f(x, y, i, j), found, f"{name}, order {i}, {j} at {x}, {y}")


def differences(f: Any, x: Any) -> Any:
    """f' by Richardson's extrapolation of central differences."""
    table = []
    for k in range(4):
        h = mp.mpf(2) ** -(12 + k)
        table.append((f(x + h) - f(x - h)) / (2 * h))
    for k in range(1, 4):
        table = [(4**k * b - a) / (4**k - 1) for a, b in pairwise(table)]
    return table[0]


def check(got: Any, want: Any, label: str) -> None:
    assert abs(got - want) <= mp.mpf("1e-16") * (1 + abs(want)), f"{label}: {got}, not {want}"
