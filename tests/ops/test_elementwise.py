"""Every elementwise op against mpmath: values and derivatives to third order, in ulp.

The tolerance is 4 ulp for values and first derivatives, 8 for second and third. `python -m
tests.ops.ulps 2000` prints the largest errors found with more points.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cartograd.ops.op import REGISTRY
from tests.ops.test_elementwise_exact import EXACT
from tests.ops.truth import BINARY, UNARY
from tests.ops.ulps import all_orders, derivatives, measure, tolerance

COUNT = 240
FLOATS = (np.float64, np.float32)
ELEMENTWISE = {name for name, op in REGISTRY.items() if op.family == "elementwise"}


def test_every_record_has_a_truth() -> None:
    assert ELEMENTWISE == {*UNARY, *BINARY, *EXACT}


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_values_and_derivatives_are_right_to_a_few_ulp(name: str, dtype: type) -> None:
    for order, worst in measure(name, dtype, COUNT).items():
        assert worst.ulp <= tolerance(name, order), (
            f"{name}: derivative {order} is off by {worst.ulp:.3g} ulp at {worst.at}: "
            f"{worst.got!r}, not {worst.want!r}"
        )


SPECIAL = [(name, x, want) for name, truth in UNARY.items() for x, want in truth.at]


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize(("name", "x", "want"), SPECIAL, ids=[f"{n}-{x}" for n, x, _ in SPECIAL])
def test_special_points(name: str, x: float, want: tuple[float, ...], dtype: type) -> None:
    orders = all_orders(1, len(want) - 1)
    got = derivatives(name, (np.array(x, dtype),), orders, **UNARY[name].params)
    for (n,), value in got.items():
        np.testing.assert_allclose(
            value, want[n], rtol=1e-6, err_msg=f"{name} at {x}, derivative {n}"
        )
        if want[n] == 0 and n == 0 and not name.startswith("sinc"):
            assert math.copysign(1, float(value)) == math.copysign(1, want[n])


def _callable_partials(name: str) -> list[int]:
    return [k for k, p in enumerate(REGISTRY[name].partials or ()) if callable(p)]


@pytest.mark.parametrize("name", sorted({*UNARY, *BINARY} - {"imag"}))
def test_nan_is_never_hidden(name: str) -> None:
    truth: Any = UNARY.get(name) or BINARY[name]
    count = 1 if name in UNARY else 2
    for where in range(count):
        point = [np.array(np.nan if k == where else 0.7) for k in range(count)]
        orders = [order for order in all_orders(count, 1) if sum(order) == 1]
        got = derivatives(name, tuple(point), [(0,) * count, *orders], **truth.params)
        if name == "copysign" and where == 1:
            assert abs(float(got[0, 0])) == 0.7  # the sign of NaN is a sign
            continue
        assert np.isnan(got[(0,) * count])
        for k in _callable_partials(name):
            depends = name not in ("multiply", "divide") or (name, k, where) in (
                ("multiply", 0, 1), ("multiply", 1, 0), ("divide", 0, 1), ("divide", 1, 0),
                ("divide", 1, 1),
            )  # fmt: skip
            if depends and name != "square":
                assert np.isnan(got[orders[k]]), f"{name}: derivative {k} at NaN in {where}"
