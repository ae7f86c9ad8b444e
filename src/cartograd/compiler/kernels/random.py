"""The kernel of `random_bits`: Philox4x32-10 on several counters at once.

A 32-bit word lies in the low half of a 64-bit lane, as the machine's widening product wants it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...dtype import uint32, uint64
from ..ir import Builder, Module, Value, Variable
from .strided import GRAIN, KernelCode, Strided, ceil_div, part

__all__ = ["BitsSpec", "emit_random_bits", "philox_words"]

_LANES = 4  # counters in a vector of 32 bytes; each gives four words
_HALVES = 2
_WORDS = 4 * _LANES * _HALVES
_GROUPS = 2 * GRAIN // _WORDS  # in a chunk
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class BitsSpec:
    """How many words `random_bits` draws from a state of uint64[2]; pointers: state, out."""

    state: Strided
    count: int


def philox_words(b: Builder, key: Value, draw: Value, group: Value) -> list[Value]:
    """32 uint32 words of a draw in order from 32 * group on, eight to a vector.

    `key` and `draw` are the uint64 scalars of a generator's state, `group` is an int64. The ten
    rounds are a loop: unrolled they take three times as long to compile, and run no faster.
    """
    first = b.mul(b.bitcast(group, uint64), _HALVES * _LANES)
    drawn = draw, b.shr(draw, 32)
    halves: list[list[Variable]] = []  # two sets of counters, so that one works while one waits
    for k in range(_HALVES):
        block = b.add(b.splat(b.add(first, k * _LANES), _LANES), b.iota(uint64, _LANES))
        initial = (block, b.shr(block, 32), *drawn)
        halves.append([b.variable(uint64, _LANES, word) for word in initial])
    keys = [b.variable(uint64, _LANES, k) for k in (key, b.shr(key, 32))]
    with b.loop(0, 10):
        k0, k1 = (b.get(k) for k in keys)
        for half in halves:
            _round(b, half, k0, k1)
        b.set(keys[0], b.add(k0, _W0))
        b.set(keys[1], b.add(k1, _W1))
    return [words for half in halves for words in _in_order(b, half)]


def _round(b: Builder, words: list[Variable], k0: Value, k1: Value) -> None:
    """One round. What the upper halves of the lanes hold does not matter until the end.

    The masks stand beside the products, which so are seen to be of 32-bit numbers: they become
    one instruction each, and the masks none.
    """
    c0, c1, c2, c3 = (b.get(word) for word in words)
    p0, p1 = b.mul(b.and_(c0, _LOW), _M0), b.mul(b.and_(c2, _LOW), _M1)
    new = b.xor(b.xor(b.shr(p1, 32), c1), k0), p1, b.xor(b.xor(b.shr(p0, 32), c3), k1), p0
    for word, value in zip(words, new, strict=True):
        b.set(word, value)


def _in_order(b: Builder, words: list[Variable]) -> list[Value]:
    """The words of all counters of a set, those of each side by side."""
    c0, c1, c2, c3 = (b.get(word) for word in words)
    low = b.or_(b.and_(c0, _LOW), b.shl(c1, 32))
    high = b.or_(b.and_(c2, _LOW), b.shl(c3, 32))
    pairs = [k // 2 + k % 2 * _LANES for k in range(2 * _LANES)]
    found = [b.shuffle(low, high, pairs[k : k + _LANES]) for k in (0, _LANES)]
    lanes = 2 * _LANES
    return [b.assign(f"bitcast {x.type} {x.text} to <{lanes} x i32>", uint32, lanes) for x in found]


def emit_random_bits(module: Module, name: str, spec: BitsSpec) -> KernelCode:
    """Write the kernel of `random_bits`."""
    whole, tail = divmod(spec.count, _WORDS)
    chunks = ceil_div(spec.count, _GROUPS * _WORDS)
    b = module.function(name, ["state", "out"], ["begin", "end"])
    state, out = b.params["state"], b.params["out"]
    key = b.load(state, uint64)
    draw = b.load(b.offset(state, spec.state.strides[0], 8), uint64)
    low, high = part(b, _GROUPS, ceil_div(spec.count, _WORDS))
    with b.loop(low, high) as group:
        words = philox_words(b, key, draw, group)
        at = b.offset(out, b.imul(group, _WORDS), 4)
        full = b.cmp("lt", group, whole)
        if whole:
            with b.when(full):
                _store(b, words, at, _WORDS)
        if tail:
            with b.when(b.not_(full)):
                _store(b, words, at, tail)
    b.finish()
    return KernelCode(((name, chunks),), 0, 20 * spec.count, 4 * spec.count)


def _store(b: Builder, words: list[Value], at: str, count: int) -> None:
    """Write the first `count` words."""
    for k, piece in enumerate(words):
        left = count - k * piece.lanes
        if left > 0:
            mask = b.mask(left, piece.lanes) if left < piece.lanes else None
            b.store(piece, b.offset(at, k * piece.lanes, 4), mask=mask)
