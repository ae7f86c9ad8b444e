"""The axes of a convolution, always three, and what becomes of dilated inputs."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from .conv_spec import ConvSpec
from .strided import Strided

__all__ = ["Axis", "Phase", "axes_of", "three_axes"]


@dataclass(frozen=True, slots=True)
class Phase:
    """The places `first`, `first + period`, ... of an axis, `count` of them.

    Where x is dilated, most products are with the zeros between its elements. Of the places of
    one phase each meets the same elements k of the kernel with elements of x: `taps` of them from
    `tap` on. Place number q of the phase and tap j meet element `low + q stride + j step` of x.
    """

    first: int
    count: int
    tap: int
    taps: int
    low: int


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: elements of x, of the kernel and places, and the phases of the places.

    Places of a phase are `period` apart and taps `tap_period`; `stride` and `step` are their
    distances in x.
    """

    size: int
    taps: int
    places: int
    period: int
    tap_period: int
    stride: int
    step: int
    phases: tuple[Phase, ...]


def make_axis(
    size: int, kernel: int, places: int, stride: int, low: int, x_dilation: int, w_dilation: int
) -> Axis:
    """Sort the places by what they meet."""
    period = x_dilation // gcd(stride, x_dilation)
    tap_period = x_dilation // gcd(w_dilation, x_dilation)
    phases: list[Phase] = []
    for first in range(min(period, places)):
        count = -(-(places - first) // period)
        for tap in range(min(tap_period, kernel)):
            at = first * stride + tap * w_dilation - low
            if at % x_dilation == 0:
                taps = -(-(kernel - tap) // tap_period)
                phases.append(Phase(first, count, tap, taps, at // x_dilation))
                break
        else:
            phases.append(Phase(first, count, 0, 0, 0))
    return Axis(
        size, kernel, places, period, tap_period, stride * period // x_dilation,
        w_dilation * tap_period // x_dilation, tuple(phases),
    )  # fmt: skip


def _lengthened(operand: Strided) -> Strided:
    more = 5 - len(operand.shape)
    shape = (*operand.shape[:2], *(1,) * more, *operand.shape[2:])
    return Strided(shape, (*operand.strides[:2], *(0,) * more, *operand.strides[2:]), operand.dtype)


def three_axes(spec: ConvSpec) -> ConvSpec:
    """The same convolution with axes of size 1 before its own, three in all."""
    more = 3 - len(spec.strides)
    ones = (1,) * more
    return ConvSpec(
        _lengthened(spec.x), _lengthened(spec.w), _lengthened(spec.y), (*ones, *spec.strides),
        (*((0, 0),) * more, *spec.padding), (*ones, *spec.x_dilation),
        (*ones, *spec.w_dilation), spec.groups,
    )  # fmt: skip


def axes_of(spec: ConvSpec) -> tuple[Axis, Axis, Axis]:
    """The axes of a convolution that has three."""
    d, h, w = (
        make_axis(n, k, p, s, lo, xd, wd)
        for n, k, p, s, (lo, _), xd, wd in zip(
            spec.x.shape[2:], spec.size, spec.places, spec.strides, spec.padding,
            spec.x_dilation, spec.w_dilation, strict=True,
        )
    )  # fmt: skip
    return d, h, w
