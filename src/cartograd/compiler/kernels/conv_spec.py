"""What a convolution kernel is asked for, and where its results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from ...dtype import DType, kind_of
from ..ir import Builder, Index, Value, register_dtype
from .strided import Strided, collapse, dot, unravel

__all__ = ["ConvSpec", "Epilogue", "Stores", "accumulator", "multiply_add"]

Ints = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """The op `conv` on strided operands: x (N, C, *S), w (O, C / groups, *K), y (N, O, *P).

    The fields after the operands are the parameters of the op. Permutations and flips of operands
    are strides: a flipped axis has a negative one, and the operand's pointer is at element 0 of
    the flipped array.
    """

    x: Strided
    w: Strided
    y: Strided
    strides: Ints
    padding: tuple[tuple[int, int], ...]
    x_dilation: Ints
    w_dilation: Ints
    groups: int = 1

    @property
    def dtype(self) -> DType:
        """The dtype of all operands."""
        return self.x.dtype

    @property
    def size(self) -> Ints:
        """The kernel's sizes."""
        return self.w.shape[2:]

    @property
    def places(self) -> Ints:
        """The result's sizes."""
        return self.y.shape[2:]

    @property
    def flops(self) -> int:
        """Multiplications and additions: those with padding count, with dilation's zeros not."""
        return 2 * self.y.size * prod(self.w.shape[1:]) // max(1, prod(self.x_dilation))

    @property
    def bytes(self) -> int:
        """Bytes that must be read and written at least."""
        return self.dtype.itemsize * (self.x.size + self.w.size + self.y.size)


class Epilogue(Protocol):
    """What is done with results instead of storing them at the pointer `y`.

    `pointers` are the names of the pointers the kernel takes for it. `store` is given the example,
    the output channel, the place (counted in row-major order over the places; `x` holds as many as
    it has lanes, from that one on), the values (float32 for half-precision convolutions) and which
    lanes count (None: all).
    """

    @property
    def pointers(self) -> Sequence[str]:
        """Names of pointers, in the order in which the kernel takes them."""
        ...

    def store(
        self, b: Builder, at: tuple[Index, Index, Index], x: Value, mask: Value | None
    ) -> None:
        """Write the code that uses the results."""
        ...


@dataclass(frozen=True, slots=True)
class Stores:
    """The epilogue that stores results in `y`, whatever its strides."""

    y: Strided
    pointers: tuple[str, ...] = ("y",)

    @property
    def flat(self) -> bool:
        """Whether neighbouring places are neighbours in memory."""
        _, (steps,) = collapse(self.y.shape[2:], [self.y.strides[2:]])
        return steps in ((), (1,))

    def store(
        self, b: Builder, at: tuple[Index, Index, Index], x: Value, mask: Value | None
    ) -> None:
        """Store lanes together where they are neighbours, else one after the other."""
        dtype, pointer = self.y.dtype, b.params["y"]
        start = dot(b, at[:2], self.y.strides[:2])
        if x.lanes == 1 or self.flat:
            place = dot(b, unravel(b, at[2], self.y.shape[2:]), self.y.strides[2:])
            if self.flat:
                place = at[2]
            whole = b.offset(pointer, b.iadd(start, place), dtype.itemsize)
            b.store(x, whole, dtype, mask=mask)
            return
        for lane in range(x.lanes):
            p = b.iadd(at[2], lane)
            where = dot(b, unravel(b, p, self.y.shape[2:]), self.y.strides[2:])
            one = b.offset(pointer, b.iadd(start, where), dtype.itemsize)
            if mask is None:
                b.store(b.extract(x, lane), one, dtype)
            else:
                with b.when(b.extract(mask, lane)):
                    b.store(b.extract(x, lane), one, dtype)


def accumulator(dtype: DType) -> DType:
    """The dtype in which products are summed."""
    return register_dtype(dtype)


def multiply_add(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """x * y + z, with one rounding for floating-point numbers."""
    if kind_of(x.dtype) == "floating":
        return b.fma(x, y, z)
    return b.add(b.mul(x, y), z)
