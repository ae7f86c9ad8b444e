"""Kernels as functions of arrays, for the tests of single kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from cartograd.compiler.ir import Module
from cartograd.compiler.kernels.strided import KernelCode, Strided
from cartograd.compiler.llvm import compile_text, load

Array = np.ndarray[Any, Any]
Order = Callable[[int], Iterable[tuple[int, int]]]


def at_once(chunks: int) -> list[tuple[int, int]]:
    """All chunks in one call."""
    return [(0, chunks)]


def backwards(chunks: int) -> list[tuple[int, int]]:
    """Each chunk in a call of its own, the last one first."""
    return [(k, k + 1) for k in reversed(range(chunks))]


def strided(a: Array) -> Strided:
    """How an array lies in memory."""
    return Strided(a.shape, tuple([s // a.itemsize for s in a.strides]), a.dtype)


def layouts(a: Array) -> list[Array]:
    """The same values in memory in other ways: in order, transposed, in steps, backwards."""
    if a.ndim == 0:
        return [a]
    transposed = a.T.copy(order="C").T
    spaced = np.zeros([2 * n + 1 for n in a.shape], a.dtype)
    steps = spaced[tuple([slice(1, None, 2) for _ in a.shape])]
    steps[...] = a
    flipped = np.flip(np.flip(a, -1).copy(order="C"), -1)
    return [a.copy(order="C"), transposed, steps, flipped]


def same(x: Array, y: Array) -> bool:
    """Equal to the last bit."""
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


class Native:
    """A kernel that was emitted into a module, ready to be called with its arrays."""

    def __init__(self, module: Module, code: KernelCode, pointers: int) -> None:
        self.code = code
        extra = (code.scratch > 0) + code.status
        names = [f"p{k}" for k in range(pointers + extra)]
        for phase, _ in code.phases:
            b = module.function(f"run_{phase}", names, ["begin", "end"], public=True)
            b.call(phase, [*b.params.values(), b.integers["begin"], b.integers["end"]])
            b.finish()
        phases = [f"run_{phase}" for phase, _ in code.phases]
        self._native = load(compile_text(module.text()), phases)
        kinds = [ctypes.c_void_p] * len(names) + [ctypes.c_int64] * 2
        call = ctypes.CFUNCTYPE(None, *kinds)
        self._functions = [call(self._native.address(phase)) for phase in phases]

    def __call__(self, *arrays: Array, order: Order = at_once) -> int:
        """Run all phases; what the status says (0 where there is none)."""
        scratch = np.full(self.code.scratch + 64, 0xA5, np.uint8)
        status = np.zeros(1, np.int64)
        extra: Sequence[Array] = [scratch] * (self.code.scratch > 0) + [status] * self.code.status
        addresses = [a.ctypes.data for a in (*arrays, *extra)]
        for function, (_, chunks) in zip(self._functions, self.code.phases, strict=True):
            for begin, end in order(chunks):
                function(*addresses, begin, end)
        return int(status[0])
