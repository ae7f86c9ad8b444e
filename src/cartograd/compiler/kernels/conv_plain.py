"""Convolution as plain loops over scalars: any number of axes, any dilation, any dtype."""

from __future__ import annotations

from ..ir import Builder, Index, Module, Value, Variable
from .conv_spec import ConvSpec, Epilogue, accumulator, multiply_add
from .strided import KernelCode, ceil_div, dot, nest, unravel

__all__ = ["emit_plain"]

CHUNKS = 64  # at most


def emit_plain(module: Module, name: str, spec: ConvSpec, epilogue: Epilogue) -> KernelCode:
    """One result after the other; a chunk is some of the pairs of example and output channel."""
    pairs = spec.y.shape[0] * spec.y.shape[1]
    each = max(1, ceil_div(pairs, CHUNKS))
    b = module.function(name, ["x", "w", *epilogue.pointers], ["begin", "end"])
    first = b.imul(b.integers["begin"], each)
    last = b.imin(b.imul(b.integers["end"], each), pairs)
    with b.loop(first, last) as pair:
        n, o = unravel(b, pair, spec.y.shape[:2])
        with b.loop(0, spec.y.size // max(1, pairs)) as p:
            epilogue.store(b, (n, o, p), _result(b, spec, n, o, p), None)
    b.finish()
    chunks = ceil_div(pairs, each) if spec.y.size else 0
    return KernelCode(((name, chunks),), 0, spec.flops, spec.bytes)


def _result(b: Builder, spec: ConvSpec, n: Index, o: Index, p: Index) -> Value:
    """The sum over the channels and the kernel at one place."""
    dtype = accumulator(spec.dtype)
    place = unravel(b, p, spec.places)
    ins = spec.w.shape[1]
    group = b.idiv(o, max(1, spec.w.shape[0] // spec.groups))
    total = b.variable(dtype, 1, b.const(0, dtype))
    with nest(b, [(0, ins), *((0, k) for k in spec.size)]) as (c, *ks):
        tests: list[Value] = []
        where = [_element(b, spec, axis, place[axis], k, tests) for axis, k in enumerate(ks)]
        x_at = dot(b, (n, b.iadd(b.imul(group, ins), c), *where), spec.x.strides)
        w_at = dot(b, (o, c, *ks), spec.w.strides)
        if not tests:
            _add_product(b, spec, total, x_at, w_at)
        else:
            inside = tests[0]
            for test in tests[1:]:
                inside = b.and_(inside, test)
            with b.when(inside):
                _add_product(b, spec, total, x_at, w_at)
    return b.get(total)


def _element(
    b: Builder, spec: ConvSpec, axis: int, p: Index, k: Index, tests: list[Value]
) -> Index:
    """The element of x that place p meets with element k of the kernel, and when it is there."""
    n, d, (lo, hi) = spec.x.shape[2 + axis], spec.x_dilation[axis], spec.padding[axis]
    q = b.iadd(b.imul(p, spec.strides[axis]), b.imul(k, spec.w_dilation[axis]))
    at = b.index(b.isub(q, lo))
    if lo > 0:
        tests.append(b.cmp("ge", at, 0))
    if hi > 0:
        tests.append(b.cmp("lt", at, n * d))
    if d == 1:
        return at
    # The division is of no negative number where it counts.
    tests.append(b.cmp("eq", b.index(b.imod(at, d)), 0))
    return b.idiv(at, d)


def _add_product(b: Builder, spec: ConvSpec, total: Variable, x_at: Index, w_at: Index) -> None:
    item = spec.dtype.itemsize
    x = b.load(b.offset(b.params["x"], x_at, item), spec.dtype)
    w = b.load(b.offset(b.params["w"], w_at, item), spec.dtype)
    b.set(total, multiply_add(b, x, w, b.get(total)))
