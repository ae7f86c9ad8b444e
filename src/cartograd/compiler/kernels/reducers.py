"""How each reduction combines elements: its start, its step, and its value of nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...dtype import DType, bool_, is_floating, kind_of
from ...graph import Node
from ...ops.op import Op
from ...ops.reduce import all_op, any_op, max_op, min_op, prod, sum_op
from ..ir import Builder, Value, register_dtype
from ..views import Index

__all__ = ["REDUCERS", "Reducer"]


class Reducer(NamedTuple):
    """`combine(b, so far, element)`; `start(dtype)` changes nothing when combined."""

    name: str
    start: Callable[[DType], Any]
    combine: Callable[[Builder, Value, Value], Value]

    def empty(self, dtype: DType) -> Any:
        """The reduction of no elements."""
        return self.start(dtype)

    def prepare(self, b: Builder, x: Value) -> Value:
        """An element as it is combined: a truth value for `any` and `all`."""
        if self.name in ("any", "all") and x.dtype != bool_:
            return b.cmp("ne", x, b.like(x, 0))
        return x

    def input_index(self, node: Node, index: Index, kept: int) -> Index:
        """The index into the input, from that of the kept axes followed by the reduced ones."""
        axes = node.params["axes"]
        first, rest = iter(index[:kept]), iter(index[kept:])
        return tuple([next(rest) if a in axes else next(first) for a in range(node.inputs[0].ndim)])


def _lowest(dtype: DType) -> Any:
    if kind_of(dtype) == "bool":
        return False
    return -np.inf if is_floating(dtype) else int(np.iinfo(dtype).min)


def _highest(dtype: DType) -> Any:
    if kind_of(dtype) == "bool":
        return True
    return np.inf if is_floating(dtype) else int(np.iinfo(dtype).max)


def _extremum(predicate: str) -> Callable[[Builder, Value, Value], Value]:
    def combine(b: Builder, so_far: Value, x: Value) -> Value:
        if so_far.dtype == bool_:
            return b.or_(so_far, x) if predicate == "gt" else b.and_(so_far, x)
        better = b.cmp(predicate, x, so_far)
        if is_floating(register_dtype(so_far.dtype)):
            better = b.or_(better, b.isnan(x))  # a NaN wins, and is never beaten
        return b.select(better, x, so_far)

    return combine


def _fixed(value: Any) -> Callable[[DType], Any]:
    def start(dtype: DType) -> Any:
        return value

    return start


REDUCERS: dict[Op, Reducer] = {
    sum_op: Reducer("sum", _fixed(0), Builder.add),
    prod: Reducer("prod", _fixed(1), Builder.mul),
    max_op: Reducer("max", _lowest, _extremum("gt")),
    min_op: Reducer("min", _highest, _extremum("lt")),
    any_op: Reducer("any", _fixed(False), Builder.or_),
    all_op: Reducer("all", _fixed(True), Builder.and_),
}
