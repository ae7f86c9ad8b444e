"""How far the elementwise ops are from the truth, in units in the last place (ulp).

`measure(name, dtype, count)` compares an op and its derivatives, found by reverse mode, with
tests/ops/truth.py. Run this file to print the worst of every op:
`python -m tests.ops.ulps [COUNT [NAME ...]]`.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np

from cartograd.autodiff import reverse
from cartograd.graph import set_mode
from cartograd.ops.op import REGISTRY, like, parameter_node
from tests.ops.truth import ALIKE, BINARY, DIGITS, UNARY, Binary, Make, Unary

Array = np.ndarray[Any, Any]
Orders = tuple[int, ...]

TOLERANCE = {0: 4.0, 1: 4.0, 2: 8.0, 3: 8.0}


def derivatives(
    name: str, arrays: tuple[Array, ...], orders: list[Orders], **params: int
) -> dict[Orders, Array]:
    """The op at the arrays and its partial derivatives, by nested reverse mode."""
    op = REGISTRY[name]
    with set_mode(active=-1):
        inputs = [parameter_node(a, 1) for a in arrays]
        start = tuple(0 for _ in arrays)
        nodes = {start: op(*inputs, **params)}
        for order in sorted(orders, key=sum):
            if order == start:
                continue
            k = max(i for i, n in enumerate(order) if n)  # x1 first, then x2
            before = nodes[tuple(n - (i == k) for i, n in enumerate(order))]
            one = like(before, 1.0)
            found = reverse([before], [one], [inputs[k]], keep=True)
            nodes[order] = found.get(inputs[k], like(before, 0.0))
    return {order: nodes[order].value for order in orders}


def all_orders(inputs: int, highest: int) -> list[Orders]:
    """Every multi-index up to an order."""
    if inputs == 1:
        return [(n,) for n in range(highest + 1)]
    return [(i, n - i) for n in range(highest + 1) for i in range(n, -1, -1)]


def _points(rng: np.random.Generator, make: Make, count: int, dtype: type) -> Array:
    with np.errstate(all="ignore"):
        return make(rng, count, dtype).astype(dtype)


def points_of(truth: Unary | Binary, count: int, dtype: type, seed: int) -> tuple[Array, ...]:
    """Finite, non-zero points of an op: an array for each input."""
    rng = np.random.default_rng(seed)
    share = -(-count // len(truth.points))
    columns: list[tuple[Array, ...]] = []
    for way in truth.points:
        if isinstance(way, tuple):
            x = _points(rng, way[0], share, dtype)
            if way[1] is ALIKE:  # from equal to a factor of 100 apart
                with np.errstate(all="ignore"):
                    gap = 10.0 ** rng.uniform(-17, 2, share) * rng.choice([-1, 0, 1], share)
                    y = (x.astype(np.float64) * (1 + gap)).astype(dtype)
                    y *= rng.choice([-1, 1], share).astype(dtype)
            else:
                y = _points(rng, way[1], share, dtype)
            columns.append((x, y))
        else:
            columns.append((_points(rng, way, share, dtype),))
    arrays = [np.concatenate(parts) for parts in zip(*columns, strict=True)]
    good = np.logical_and.reduce([np.isfinite(a) & (a != 0) for a in arrays])
    if isinstance(truth, Binary) and truth.inside is not None:
        with np.errstate(all="ignore"):
            good &= truth.inside(*arrays)
    return tuple(a[good] for a in arrays)


@dataclass
class Worst:
    """The largest error of one derivative, in ulp, and where; `allowed` counts the points whose
    error is larger than the tolerance but smaller than that of rounding the input."""

    ulp: float = 0.0
    at: tuple[float, ...] = ()
    got: float = 0.0
    want: float = 0.0
    allowed: int = 0
    worst_allowed: float = 0.0


# Derivatives of second and third order are products of several factors: where the result is within
# this factor of the ends of the range, one of the factors may leave it.
MARGIN = {0: 1.0, 1: 1.0, 2: 64.0, 3: 4096.0}


def _error(got: float, exact: Any, dtype: type, order: int) -> float:
    """|got - exact| in ulp of exact; 0 for a rightful overflow; inf for a wrong special value."""
    info = np.finfo(dtype)
    margin = MARGIN[order]
    if not mp.isfinite(exact):
        return 0.0 if (mp.isnan(exact) and np.isnan(got)) or got == float(exact) else float("inf")
    largest = mp.mpf(float(info.max))
    if abs(exact) > largest * (1 - 8 * mp.mpf(float(info.eps))):
        close = abs(exact) <= largest * (1 + 8 * mp.mpf(float(info.eps)))
        if np.isinf(got) and (got > 0) == (exact > 0):
            return 0.0
        if not close:
            return float("inf")
    if not np.isfinite(got):
        near_end = abs(exact) * margin > largest and np.isinf(got) and (got > 0) == (exact > 0)
        return 0.0 if near_end else float("inf")
    if margin > 1 and abs(exact) < float(info.tiny) * margin:
        exact_scale = float(info.tiny) * margin  # gradual underflow of a factor
    else:
        exact_scale = abs(float(exact))
    with np.errstate(all="ignore"):
        unit = float(np.spacing(np.minimum(dtype(exact_scale), info.max)))
    return float(abs(mp.mpf(got) - exact) / mp.mpf(unit))


def measure(name: str, dtype: type, count: int, seed: int = 0) -> dict[Orders, Worst]:
    """The worst error of an op and of its derivatives over `count` points."""
    truth = UNARY.get(name) or BINARY[name]
    inputs = 1 if isinstance(truth, Unary) else 2
    highest = len(truth.f) - 1 if isinstance(truth, Unary) else truth.order
    orders = all_orders(inputs, highest)
    key = zlib.crc32(f"{name} {np.dtype(dtype).name}".encode()) + seed
    arrays = points_of(truth, max(int(count * truth.share), 40), dtype, key)
    got = derivatives(name, arrays, orders, **truth.params)
    eps = mp.mpf(float(np.finfo(dtype).eps))
    result = {order: Worst() for order in orders}
    with mp.workdps(DIGITS):
        for index, point in enumerate(zip(*(a.tolist() for a in arrays), strict=True)):
            exact_point = [mp.mpf(v) for v in point]
            for order in orders:
                exact = _exact(truth, exact_point, order)
                error = _error(float(got[order][index]), exact, dtype, sum(order) + truth.base)
                worst, n = result[order], sum(order) + truth.base
                if error <= worst.ulp:
                    continue
                if error > TOLERANCE[n] and (n > 1 or n - truth.base in truth.loose):
                    slack = sum(
                        abs(
                            _exact(
                                truth,
                                [v * (1 + eps * (k == j)) for j, v in enumerate(exact_point)],
                                order,
                            )
                            - exact
                        )
                        for k in range(inputs)
                    )
                    unit = (
                        abs(mp.mpf(float(got[order][index])) - exact) / error
                        if 0 < error < float("inf")
                        else 0
                    )
                    if unit and error * unit <= TOLERANCE[n] * slack:
                        worst.allowed += 1
                        worst.worst_allowed = max(worst.worst_allowed, error)
                        continue
                result[order] = Worst(
                    error,
                    point,
                    float(got[order][index]),
                    float(exact),
                    worst.allowed,
                    worst.worst_allowed,
                )
    return result


def _exact(truth: Unary | Binary, point: list[Any], order: Orders) -> Any:
    value = truth.f[order[0]](point[0]) if isinstance(truth, Unary) else truth.f(*point, *order)
    return mp.mpf(value)


def tolerance(name: str, order: Orders) -> float:
    """The largest error allowed of a derivative, in ulp."""
    truth = UNARY.get(name) or BINARY[name]
    return TOLERANCE[sum(order) + truth.base]


def report(
    count: int, names: list[str], seed: int = 0, write: Callable[[str], Any] = print
) -> None:
    """Print a line for each op: the worst ulp of value and derivatives in float64 and float32."""
    for name in names or [*UNARY, *BINARY]:
        for dtype in (np.float64, np.float32):
            found = measure(name, dtype, count, seed)
            by_order: dict[int, Worst] = {}
            for order, worst in found.items():
                n = sum(order)
                if n not in by_order or worst.ulp > by_order[n].ulp:
                    by_order[n] = worst
            cells = "  ".join(f"{w.ulp:7.2f}" for w in by_order.values())
            bad = [
                f"{order} {w.ulp:.3g} at {w.at}: {w.got!r}, not {w.want!r}"
                for order, w in found.items()
                if w.ulp > tolerance(name, order)
            ]
            write(f"{name:26s}{np.dtype(dtype).name}  {cells}" + "".join(f"\n    {b}" for b in bad))


if __name__ == "__main__":
    report(int(sys.argv[1]) if len(sys.argv) > 1 else 400, sys.argv[2:])
