"""A line search for the strong Wolfe conditions, by cubic interpolation.

The search of Schmidt's minFunc, in the order of steps of PyTorch's L-BFGS (Nocedal and Wright,
Numerical Optimization, algorithms 3.5 and 3.6): first bracket a good step, then zoom in on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Array", "cubic_minimum", "strong_wolfe"]

Array = np.ndarray[Any, np.dtype[Any]]

ARMIJO, CURVATURE = 1e-4, 0.9
SMALLEST_BRACKET = 1e-9


@dataclass(frozen=True, slots=True)
class Point:
    """A step length t, with the loss, the gradient and the slope along the direction there."""

    t: float
    f: float
    g: Array
    slope: float


def cubic_minimum(a: Point, b: Point, low: float | None = None, high: float | None = None) -> float:
    """Where the cubic through two points and their slopes is least, kept within [low, high].

    The bounds are the two points by default; without a minimum, their midpoint is returned
    (Nocedal and Wright, equation 3.59).

    >>> g = np.zeros(1)
    >>> cubic_minimum(Point(0.0, 1.0, g, -2.0), Point(2.0, 1.0, g, 2.0))
    1.0
    """
    low = min(a.t, b.t) if low is None else low
    high = max(a.t, b.t) if high is None else high
    with np.errstate(all="ignore"):
        d1 = a.slope + b.slope - 3.0 * float(np.divide(a.f - b.f, a.t - b.t))
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0.0:
        return (low + high) / 2.0
    d2 = math.sqrt(square)
    first, second = (a, b) if a.t <= b.t else (b, a)
    bottom = second.slope - first.slope + 2.0 * d2
    top = second.slope + d2 - d1
    with np.errstate(all="ignore"):
        t = second.t - (second.t - first.t) * float(np.divide(top, bottom))
    return min(max(t, low), high)


def strong_wolfe(
    evaluate: Callable[[float], tuple[float, Array]],
    start: tuple[float, float, Array, float],
    *,
    d_norm: float,
    direction: Array,
    max_calls: int,
) -> tuple[float, Array, float, int]:
    """A step length that satisfies the strong Wolfe conditions, or the best one found.

    `evaluate(t)` gives the loss and gradient at t; `start` is (first t to try, loss, gradient and
    slope at 0). Returns (loss, gradient, t, calls of `evaluate`).

    >>> f = lambda t: ((t - 3.0) ** 2, np.asarray([2.0 * (t - 3.0)]))
    >>> loss, _, t, calls = strong_wolfe(
    ...     f, (0.1, 9.0, np.asarray([-6.0]), -6.0), d_norm=1.0, direction=np.ones(1), max_calls=25
    ... )
    >>> round(t, 6), calls
    (1.0, 2)
    """
    t, f0, g0, slope0 = start
    search = _Search(evaluate, direction, Point(0.0, f0, g0, slope0))
    bracket, rounds = search.bracket(t, max_calls)
    best = bracket[0] if len(bracket) == 1 else search.zoom(bracket, rounds, max_calls, d_norm)
    return best.f, best.g, best.t, search.calls


def _height(point: Point) -> float:
    return math.inf if math.isnan(point.f) else point.f


class _Search:
    def __init__(
        self, evaluate: Callable[[float], tuple[float, Array]], direction: Array, origin: Point
    ) -> None:
        self.evaluate = evaluate
        self.direction = direction
        self.origin = origin
        self.calls = 0

    def at(self, t: float) -> Point:
        """The point at t: one call of the objective."""
        self.calls += 1
        f, g = self.evaluate(t)
        return Point(t, f, g, float(g @ self.direction))

    def too_high(self, point: Point) -> bool:
        """Whether the loss has not fallen enough (Armijo's condition fails), or is NaN."""
        return not point.f <= self.origin.f + ARMIJO * point.t * self.origin.slope

    def flat(self, point: Point) -> bool:
        """Whether the slope has become small enough (the curvature condition holds)."""
        return abs(point.slope) <= -CURVATURE * self.origin.slope

    def bracket(self, t: float, max_calls: int) -> tuple[list[Point], int]:
        """Two points around a good step, or the good step alone; and the rounds used."""
        previous, point, rounds = self.origin, self.at(t), 0
        while rounds < max_calls:
            if self.too_high(point) or (rounds > 1 and point.f >= previous.f):
                return [previous, point], rounds
            if self.flat(point):
                return [point], rounds
            if point.slope >= 0.0:
                return [previous, point], rounds
            low, high = point.t + 0.01 * (point.t - previous.t), point.t * 10.0
            t = cubic_minimum(previous, point, low, high)
            previous, point, rounds = point, self.at(t), rounds + 1
        return [self.origin, point], rounds

    def zoom(self, bracket: list[Point], rounds: int, max_calls: int, d_norm: float) -> Point:
        """Shrink a bracket until a point satisfies both conditions; the best point found."""
        low, high = sorted(bracket, key=_height)
        stuck = False
        while rounds < max_calls and abs(high.t - low.t) * d_norm >= SMALLEST_BRACKET:
            t, stuck = self._inside(cubic_minimum(low, high), low.t, high.t, stuck)
            point, rounds = self.at(t), rounds + 1
            if self.too_high(point) or point.f >= low.f:
                low, high = sorted([low, point], key=_height)
                continue
            if self.flat(point):
                return point
            if point.slope * (high.t - low.t) >= 0.0:
                high = low
            low = point
        return low

    @staticmethod
    def _inside(t: float, a: float, b: float, stuck: bool) -> tuple[float, bool]:
        """t, moved a tenth of the bracket inside if it hugs a bound for the second time."""
        smallest, largest = min(a, b), max(a, b)
        margin = 0.1 * (largest - smallest)
        if min(largest - t, t - smallest) >= margin:
            return t, False
        if stuck or t >= largest or t <= smallest:
            near_top = abs(t - largest) < abs(t - smallest)
            return (largest - margin if near_top else smallest + margin), False
        return t, True
