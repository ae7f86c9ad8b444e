"""Random bits as a pure function of a key and a counter: Philox4x32-10.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The
128-bit counter of the cipher is the number of the block within a draw (low half) and the number of
the draw (high half); the key is the seed. So draws never overlap, and any element can be computed
without those before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..dtype import uint32, uint64
from ..errors import DTypeError
from ..graph import Aval, Node, Shape, where_called
from .op import Op, make_op
from .samples import Sample

__all__ = ["philox", "random_bits"]

Array = np.ndarray[Any, Any]

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: Array, key: tuple[int, int]) -> Array:
    """Ten rounds of Philox4x32 on counters of shape (4, n), as uint32.

    >>> zero = np.zeros((4, 1), np.uint32)
    >>> [hex(int(word)) for word in philox(zero, (0, 0))[:, 0]]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = (word.astype(np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (
            (p1 >> _HALF) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _HALF) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def _eval(state: Array, shape: Shape) -> Array:
    count = math.prod(shape)
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    key, draw = int(state[0]), int(state[1])
    counter = np.empty((4, blocks.size), np.uint32)
    counter[0], counter[1] = blocks & _LOW, blocks >> _HALF
    counter[2], counter[3] = draw & 0xFFFFFFFF, draw >> 32
    words = philox(counter, (key & 0xFFFFFFFF, key >> 32))
    return np.ascontiguousarray(words.T).reshape(-1)[:count].reshape(shape)


def _rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    state = inputs[0]
    if state.shape != (2,) or state.dtype != uint64:
        raise DTypeError(f"random_bits takes a uint64[2] state, not {state.aval}{where_called()}")
    return Aval(params["shape"], uint32)


def _batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, **params: Any) -> Node:
    raise DTypeError(f"random_bits: a generator's state cannot be batched{where_called()}")


def _samples(rng: np.random.Generator) -> list[Sample]:
    return [Sample((np.array([7, 3], np.uint64),), {"shape": (5, 3)}, diff=())]


random_bits: Op = make_op(
    "random_bits",
    "random",
    _eval,
    _rule,
    batch=_batch,
    differentiable=False,
    why="its result is integers",
    flops=20,
    doc="Independent uniform 32-bit integers, from a key and the number of the draw.",
    samples=_samples,
)
