"""Oracles for one op: its derivatives in every mode, and numerical ones to compare them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from cartograd.autodiff import forward, reverse
from cartograd.evaluate import run
from cartograd.graph import Graph, Node, set_mode
from cartograd.ops.elementwise import add, multiply
from cartograd.ops.op import Op, constant, input_node, is_float_node, like, outputs
from cartograd.ops.reduce import sum_op

Array = np.ndarray[Any, Any]


def total(nodes: Sequence[Node | None], weights: Sequence[Array | Node]) -> Node:
    """sum_k <nodes[k], weights[k]>, a node of shape ()."""
    found: Node | None = None
    for node, w in zip(nodes, weights, strict=True):
        if node is None:
            continue
        w = w if isinstance(w, Node) else constant(w.astype(node.dtype))
        part = sum_op(multiply(node, w), axes=tuple(range(node.ndim)))
        found = part if found is None else add(found, part)
    return found if found is not None else constant(np.zeros(()))


class Probe:
    """An op at a sample as a scalar function s(x) = <weights, op(x)>, and its derivatives.

    `graphs` holds, for modes such as "r", "fr" or "rrr" (the innermost first), the graph from the
    arguments to the derivative of s along the directions. `s` is the key "".
    """

    MODES = ("", "r", "f", "rr", "rf", "fr", "ff", "rrr", "fff", "rff", "frr")

    def __init__(
        self,
        op: Op | Callable[..., Node],
        args: Sequence[Array],
        params: Mapping[str, Any],
        diff: Sequence[int],
        rng: np.random.Generator,
        modes: Sequence[str] = MODES,
    ) -> None:
        self.args, self.diff = list(args), list(diff)
        self.directions = [[rng.standard_normal(args[k].shape) for k in diff] for _ in range(3)]
        with set_mode(staging=True, recording=True, active=-1):
            self.inputs = [
                input_node(a.shape, a.dtype, 1 if k in diff else 0) for k, a in enumerate(args)
            ]
            y = op(*self.inputs, **params)
            parts = [part for part in outputs(y) if is_float_node(part)]
            s = total(parts, [rng.standard_normal(part.shape) for part in parts])
            nodes = {"": s}
            for mode in modes:
                if mode and mode not in nodes:
                    before = nodes[mode[:-1]]
                    nodes[mode] = self._derive(before, mode[-1], self.directions[len(mode) - 1])
        self.nodes = nodes
        self.graph = Graph(self.inputs, [nodes[m] for m in modes])
        self.modes = list(modes)

    def _derive(self, s: Node, how: str, direction: Sequence[Array]) -> Node:
        targets = [self.inputs[k] for k in self.diff]
        ds = [constant(d.astype(t.dtype)) for d, t in zip(direction, targets, strict=True)]
        if how == "r":
            grads = reverse([s], [like(s, 1.0)], targets, keep=True)
            for t, g in grads.items():
                assert g.aval == t.aval, f"gradient {g.aval} of an input {t.aval}"
            return total([grads.get(t) for t in targets], ds)
        (tangent,) = forward([s], dict(zip(targets, ds, strict=True)), keep=True)
        if tangent is None:
            return like(s, 0.0)
        assert tangent.aval == s.aval
        return tangent

    def __call__(self, shift: float = 0.0, along: int = 0) -> dict[str, float]:
        """Every derivative at the arguments moved by `shift` along a direction."""
        args = list(self.args)
        if shift:
            for k, d in zip(self.diff, self.directions[along], strict=True):
                args[k] = args[k] + shift * d
        return {mode: float(v) for mode, v in zip(self.modes, run(self.graph, args), strict=True)}

    def check(self, label: str, rtol: float = 1e-6, h: float = 1e-3) -> None:
        """Modes agree with each other, and each order with differences of the order before."""
        here = self()
        for order in (1, 2, 3):
            same = {m: v for m, v in here.items() if len(m) == order}
            if not same:
                continue
            before = next(m for m in here if len(m) == order - 1)
            truth, scale = self.differences(before, order - 1, h)
            scale = max(scale, *(abs(v) for v in same.values()))
            noise = 1e-9 * max(abs(v) for m, v in here.items() if len(m) <= order)
            for mode, value in same.items():
                assert abs(value - truth) <= rtol * scale + noise, (
                    f"{label}: {mode} derivative {value!r}, by differences {truth!r}"
                )
            first = next(iter(same.values()))
            for mode, value in same.items():
                assert abs(value - first) <= 1e-9 * scale + noise * 1e-3, (
                    f"{label}: modes disagree: {same} ({mode})"
                )

    def differences(self, mode: str, along: int, h: float) -> tuple[float, float]:
        """d/dt of a derivative along a direction by Richardson extrapolation, and its scale."""
        table: list[float] = []
        scale = 1e-300
        for j in range(3):
            step = h / 2**j
            up, down = self(step, along)[mode], self(-step, along)[mode]
            table.append((up - down) / (2 * step))
            scale = max(scale, abs(up), abs(down))
        for j in (1, 2):
            table = [(4**j * b - a) / (4**j - 1) for a, b in pairwise(table)]
        return table[0], scale


@pytest.fixture
def probe() -> type[Probe]:
    """The class Probe."""
    return Probe
