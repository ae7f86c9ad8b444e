"""The kernel of random_bits against the op, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from cartograd.compiler.ir import Module
from cartograd.compiler.kernels.random import BitsSpec, emit_random_bits
from cartograd.ops.random import random_bits
from tests.compiler.native import Native, at_once, backwards, strided


@pytest.mark.parametrize("count", [0, 1, 3, 4, 31, 32, 33, 1000, 32768, 32769, 100001])
def test_random_bits(count: int) -> None:
    for key, draw in ((0, 0), (2**64 - 1, 2**64 - 1), (0x0123456789ABCDEF, (5 << 32) + 3)):
        state = np.array([key, draw], np.uint64)
        module = Module()
        native = Native(module, emit_random_bits(module, "k", BitsSpec(strided(state), count)), 2)
        for order in (at_once, backwards):
            out = np.zeros(count + 40, np.uint32)
            native(state, out, order=order)
            assert np.array_equal(out[:count], random_bits.eval(state, shape=(count,)))
            assert not out[count:].any()


def test_a_state_with_strides() -> None:
    state = np.array([7, 0, 3], np.uint64)[::2]
    module = Module()
    native = Native(module, emit_random_bits(module, "k", BitsSpec(strided(state), 5)), 2)
    out = np.zeros(5, np.uint32)
    native(state, out)
    assert np.array_equal(out, random_bits.eval(np.array([7, 3], np.uint64), shape=(5,)))
