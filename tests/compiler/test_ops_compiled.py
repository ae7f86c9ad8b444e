"""Every op, compiled, is what its record evaluates to: values and first derivatives.

All samples of an op, in several dtypes, are one program. Elementwise ops see their samples again
and again, so that there are whole vectors and a tail, and special values beside them.

How near is near, for results of eps (the unit in the last place of 1 in their dtype):

* what moves, compares, counts, sorts or computes with integers: the same bits;
* elementwise ops of a few operations of IEEE 754 (`flops == 1`): the same bits;
* other elementwise ops: 8 units in the last place (each side is within 4 of the truth);
* sums, products, running ops, matrix products and convolutions: 8 eps of the largest result for
  every addition;
* linalg is NumPy's own, called: the same bits in float64;
* half precision: a unit in the last place of an elementwise op, else 2 eps, of derivatives 8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

import cartograd as cg
from cartograd.autodiff import reverse
from cartograd.compiler.options import Options
from cartograd.dtype import bfloat16, float16, float32, float64, is_floating
from cartograd.errors import DTypeError, GradientError
from cartograd.evaluate import inline, run
from cartograd.graph import Graph, set_mode
from cartograd.ops.op import REGISTRY, Op, input_node, is_float_node, outputs, quiet
from cartograd.ops.samples import Sample
from cartograd.tensor import wrap
from tests.ops.test_records import DIFFERENTIABLE, FREE, OPS, differentiated, samples

Array = np.ndarray[Any, Any]

FUSED, UNFUSED = Options(), Options(fuse=False)
WAYS = {"fused": FUSED, "unfused": UNFUSED}
FLOATS = (float64, float32, float16, bfloat16)
EPS = {float64: 2.0**-52, float32: 2.0**-23, float16: 2.0**-10, bfloat16: 2.0**-7}
SPECIALLY = "special"
LONG = 67  # vectors of every width, and a tail
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, np.inf, -np.inf, np.nan)


class Case(NamedTuple):
    """One application: arrays, params, and which of the arrays to differentiate."""

    args: list[Array]
    params: Any
    diff: list[int]
    label: str


def cases(op: Op) -> list[Case]:
    """The samples of an op in every dtype that it takes, those of elementwise ops lengthened."""
    found: list[Case] = []
    for number, sample in enumerate(samples(op)):
        floats = any(a.dtype == float64 for a in sample.args) and op.name in FREE
        for dtype in FLOATS if floats else (float64,):
            args = [a.astype(dtype) if a.dtype == float64 else a for a in _lengthened(op, sample)]
            try:
                build(op, args, sample.params)
            except DTypeError:
                continue
            label = f"{op.name} {number} {dtype.name} {dict(sample.params)}"
            found.append(Case(args, sample.params, differentiated(sample), label))
    return found


def _lengthened(op: Op, sample: Sample) -> list[Array]:
    if op.family != "elementwise":
        return list(sample.args)
    return [np.resize(a, (LONG,)) for a in sample.args]


def special(op: Op) -> list[Case]:
    """An elementwise op at every combination of special values."""
    found: list[Case] = []
    sample = samples(op)[0]
    for dtype in (float64, float32):
        if not all(a.dtype in (float64, np.bool_) for a in sample.args):
            continue
        info = np.finfo(dtype)
        values = np.array([*SPECIAL, info.max, -info.max, info.tiny, info.tiny / 8, -info.tiny / 4])
        bools = np.array([True, False] * 7)
        args = [values if a.dtype == float64 else bools for a in sample.args]
        grid = [np.resize(a, 14**3) for a in np.meshgrid(*args, indexing="ij")]
        given = [a.astype(dtype).reshape(-1) if a.dtype == float64 else a.reshape(-1) for a in grid]
        label = f"{op.name} {SPECIALLY} {dtype.name}"
        found.append(Case(given, sample.params, differentiated(sample), label))
    return found


def build(op: Op, args: Sequence[Array], params: Any) -> Graph:
    """The graph of an op at arguments like these."""
    with set_mode(staging=True):
        inputs = [input_node(a.shape, a.dtype) for a in args]
        return Graph(inputs, outputs(op(*inputs, **params)))


def gradient(op: Op, case: Case) -> Graph | None:
    """The graph of a vjp: inputs are the op's, then a cotangent for each floating output."""
    with set_mode(staging=True, recording=True, active=-1):
        inputs = [
            input_node(a.shape, a.dtype, int(k in case.diff)) for k, a in enumerate(case.args)
        ]
        parts = [p for p in outputs(op(*inputs, **case.params)) if is_float_node(p)]
        cts = [input_node(p.shape, p.dtype) for p in parts]
        try:
            grads = reverse(parts, cts, [inputs[k] for k in case.diff], keep=True)
        except GradientError:
            return None
    return Graph([*inputs, *cts], list(grads.values()))


def compiled(
    graphs: Sequence[Graph], given: Sequence[Sequence[Array]], options: Options
) -> list[list[Array]]:
    """The outputs of all graphs, from one program."""

    def f(groups: list[list[cg.Tensor]]) -> list[list[cg.Tensor]]:
        return [
            [wrap(y) for y in inline(graph, [t.node for t in group])]
            for graph, group in zip(graphs, groups, strict=True)
        ]

    groups = [[cg.asarray(a) for a in group] for group in given]
    return [[y.numpy() for y in group] for group in cg.compile(f, options=options)(groups)]


def bound(op: Op, case: Case, order: int, dtype: Any) -> float:
    """How many eps of the largest number (or of 1) a result may be off; < 0: of itself."""
    half = dtype in (float16, bfloat16)
    if op.family == "elementwise" and order == 0:
        return (-1.0 if half else -8.0) if op.flops > 1 or half else 0.0
    if SPECIALLY in case.label:
        return -64.0
    if half:
        return 2.0 if order == 0 else 8.0
    if op.family in ("movement", "index", "random") and order == 0:
        return 0.0
    return float(max([16, *(a.size for a in case.args)])) * (1 if order == 0 else 4)


def agree(got: Array, want: Array, eps_bound: float, label: str) -> None:
    """The same shape and dtype, the same NaN and infinities, and numbers within the bound."""
    assert got.shape == want.shape, f"{label}: shape {got.shape}, evaluated {want.shape}"
    assert got.dtype == want.dtype, f"{label}: {got.dtype}, evaluated {want.dtype}"
    if not is_floating(want.dtype) or eps_bound == 0.0:
        np.testing.assert_array_equal(got, want, label)
        if is_floating(want.dtype):
            keep = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(got)[keep], np.signbit(want)[keep], label)
        return
    left, right = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(right)
    np.testing.assert_array_equal(left[~finite], right[~finite], label)
    left, right = left[finite], right[finite]
    eps = EPS[want.dtype]
    if eps_bound > 0:
        limit: Any = eps * eps_bound * np.max(np.abs(right), initial=1.0)
    else:
        lowest = {float16: 2.0**-14, float64: 2.0**-1022}.get(want.dtype, 2.0**-126)
        _, exponent = np.frexp(np.maximum(np.abs(right), lowest))
        limit = -eps_bound * eps * np.ldexp(1.0, exponent - 1)
    worst = np.abs(left - right) - limit
    if worst.size and np.max(worst) > 0:
        k = int(np.argmax(worst))
        raise AssertionError(f"{label}: {left[k]!r}, evaluated {right[k]!r}")


class Run(NamedTuple):
    """A graph, what it is given, and what it is evaluated to."""

    case: Case
    graph: Graph
    given: list[Array]
    wanted: list[Array]


def evaluated(case: Case, graph: Graph, given: list[Array]) -> list[Run]:
    """What a graph evaluates to; where that raises, the compiled graph must raise the same."""
    try:
        with quiet():
            return [Run(case, graph, given, run(graph, given))]
    except GradientError as error:
        for options in WAYS.values():
            with pytest.raises(GradientError, match=re.escape(str(error)[:40])):
                compiled([graph], [given], options)
        return []


def compare(op: Op, runs: Sequence[Run], order: int) -> None:
    """Every graph, compiled in every way, against what it evaluates to."""
    graphs, given = [r.graph for r in runs], [r.given for r in runs]
    for way, options in WAYS.items():
        results = compiled(graphs, given, options)
        for one, got in zip(runs, results, strict=True):
            for k, (a, b) in enumerate(zip(got, one.wanted, strict=True)):
                limit = bound(op, one.case, order, b.dtype)
                agree(a, b, limit, f"{one.case.label}, {way}, result {k} of order {order}")


@pytest.mark.parametrize("name", OPS)
def test_values(name: str) -> None:
    """What an op evaluates to is what it compiles to, in every dtype and for special values."""
    op = REGISTRY[name]
    found = cases(op)
    if op.family == "elementwise":
        found += special(op)
    runs = [r for c in found for r in evaluated(c, build(op, c.args, c.params), c.args)]
    compare(op, runs, 0)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_first_derivatives(name: str) -> None:
    """The graph of the reverse rule, compiled and evaluated, for cotangents at random."""
    op = REGISTRY[name]
    rng = np.random.default_rng(0)
    runs: list[Run] = []
    for case in [*cases(op), *(special(op) if op.family == "elementwise" else [])]:
        graph = gradient(op, case) if case.diff else None
        if graph is not None:
            cts = graph.inputs[len(case.args) :]
            drawn = [rng.uniform(0.5, 2.0, x.shape).astype(x.dtype) for x in cts]
            runs += evaluated(case, graph, [*case.args, *drawn])
    if runs:
        compare(op, runs, 1)
