"""From a Graph to a simpler Graph of the same values: what the schedule starts from.

`rewrite` runs the passes of `PASSES` in their order. A pass is a walk over the graph with local
rules (see `rewrites`), each of which has a name and can be switched off. No rule changes a value
beyond the order in which a sum is added up: its rounding, and the sign of one that is zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError
from ..evaluate import run
from ..graph import Graph, Node, Origin, set_mode
from .rewrites.algebra import ALGEBRA, MASKED, PERMUTED
from .rewrites.expand import EXPAND, SPLIT
from .rewrites.gathers import BEFORE
from .rewrites.loops import DESCEND, LOOPS
from .rewrites.masks import INTO, MASKS
from .rewrites.products import PRODUCTS, SWAP
from .rewrites.scans import join_rule, keep_rule
from .rewrites.shapes import PAD_LAST, SHAPES
from .rewrites.sums import LATER, TURN
from .rewrites.walk import FOLD, Rule, Walk, count_uses, nested

__all__ = ["PASSES", "RULES", "Applied", "Rewritten", "agree", "rewrite"]

Array = np.ndarray[Any, Any]
Check = Callable[[str, Graph, Graph], None]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a pass did: how often each rule applied, nodes before and after, and seconds."""

    name: str
    rules: Mapping[str, int]
    before: int
    after: int
    seconds: float

    @property
    def count(self) -> int:
        """How many times any rule applied."""
        return sum(self.rules.values())


class Rewritten(NamedTuple):
    """What `rewrite` returns; `origins` has every origin of each node that stands for several."""

    graph: Graph
    applied: list[Applied]
    origins: Mapping[Node, tuple[Origin, ...]]


@dataclass(slots=True)
class Notes:
    """What passes hand on to one another, beside the graph."""

    off: frozenset[str]
    counts: dict[str, int] = field(default_factory=dict[str, int])
    origins: dict[Node, tuple[Origin, ...]] = field(default_factory=dict[Node, tuple[Origin, ...]])
    regions: dict[Node, int] = field(default_factory=dict[Node, int])


LOCAL: tuple[Rule, ...] = (*EXPAND, *LOOPS, *SHAPES, *PRODUCTS, *FOLD, *ALGEBRA, *MASKS)
COUNTED: tuple[Rule, ...] = (
    SWAP,
    PAD_LAST,
    PERMUTED,
    MASKED,
    INTO,
    BEFORE,
)  # those that ask how often a node is used


def simplify(graph: Graph, notes: Notes) -> Graph:
    """Inline calls, merge common subexpressions, fold constants, and apply every local rule."""
    walk = Walk(LOCAL, notes.off, notes.counts, notes.origins, regions=notes.regions)
    return walk.graph(graph)


def join(graph: Graph, notes: Notes) -> Graph:
    """One scan for several that carry the same values."""
    return _with(graph, notes, join_rule(graph))


def keep(graph: Graph, notes: Notes) -> Graph:
    """A scan hands out what a later one would compute again in each step."""
    return _with(graph, notes, keep_rule(graph, notes.regions))


def _with(graph: Graph, notes: Notes, rule: Rule | None) -> Graph:
    if rule is None:
        return graph
    walk = Walk((rule, DESCEND), notes.off, notes.counts, notes.origins, regions=notes.regions)
    return walk.graph(graph)


def later(graph: Graph, notes: Notes) -> Graph:
    """Sums that scans carry are made at once after them."""
    return _with(graph, notes, LATER)


def turn(graph: Graph, notes: Notes) -> Graph:
    """Weights that every step of a scan reads across their rows are turned before it."""
    return _with(graph, notes, TURN)


def split(graph: Graph, notes: Notes) -> Graph:
    """Long reductions to few results are made in parts, for threads to share."""
    return _with(graph, notes, SPLIT)


def settle(graph: Graph, notes: Notes) -> Graph:
    """Every local rule again, with those that ask how often a node is used."""
    uses = count_uses(graph.nodes, graph.outputs)
    rules = (*LOCAL, *COUNTED)
    walk = Walk(rules, notes.off, notes.counts, notes.origins, uses, regions=notes.regions)
    return walk.graph(graph)


PASSES: tuple[Callable[[Graph, Notes], Graph], ...] = (
    simplify, join, keep, later, settle, turn, split,
)  # fmt: skip
RULES: tuple[str, ...] = tuple(
    dict.fromkeys(["cse", "hoist", *(r.name for r in (*LOCAL, *COUNTED, LATER, TURN, SPLIT))])
)


def rewrite(
    graph: Graph,
    *,
    off: frozenset[str] = frozenset(),
    check: Check | None = None,
    passes: Sequence[Callable[[Graph, Notes], Graph]] = PASSES,
) -> Rewritten:
    """The graph rewritten by every pass whose name is not in `off`, and what each one did.

    Inputs are the same nodes, outputs correspond one to one, and States stay the leaves they are.
    `off` names passes and rules (of `RULES`); UsageError for a name that is neither. `check(name,
    before, after)` is called after each pass: see `agree`.

    >>> import cartograd as cg
    >>> graph = cg.trace(lambda x: (x * 1.0 + x * 1.0).T.T)(cg.ones((2, 3)))
    >>> [node.op.name for node in rewrite(graph)[0].nodes]
    ['input', 'add']
    """
    known = {*RULES, *(f.__name__ for f in PASSES)}
    if not off <= known:
        raise UsageError(f"no rewrite is called {', '.join(sorted(off - known))}; there are "
                         f"{', '.join(sorted(known))}")  # fmt: skip
    notes = Notes(off)
    applied: list[Applied] = []
    for step in passes:
        if step.__name__ in off:
            continue
        start = time.perf_counter()
        notes.counts = {}
        with set_mode(staging=True, recording=False):
            found = step(graph, notes)
        seconds = time.perf_counter() - start
        applied.append(
            Applied(step.__name__, notes.counts, len(graph.nodes), len(found.nodes), seconds)
        )
        if check is not None:
            check(step.__name__, graph, found)
        graph = found
    origins = {
        node: notes.origins[node]
        for inner in nested(graph)
        for node in inner.nodes
        if node in notes.origins
    }
    return Rewritten(graph, applied, origins)


def agree(*samples: Sequence[Array], tolerance: float = 64.0) -> Check:
    """A check for `rewrite`: the graph verifies, and on each sample gives what it gave before.

    Non-finite elements must be the same; others may differ by `tolerance` units of rounding of the
    largest finite element of their array (a sum in another order). UsageError names the pass.

    >>> import cartograd as cg
    >>> graph = cg.trace(lambda x: x * 1.0)(cg.ones(2))
    >>> len(rewrite(graph, check=agree([np.array([0.5, np.nan], np.float32)])).graph.nodes)
    1
    """

    def check(name: str, before: Graph, after: Graph) -> None:
        if after.inputs != before.inputs:
            raise UsageError(f"the pass {name} changed the inputs")
        for inner in nested(after):
            inner.verify()
        for values in samples:
            pairs = zip(run(before, values), run(after, values), strict=True)
            for k, (old, new) in enumerate(pairs):
                if (old.shape, old.dtype) != (new.shape, new.dtype):
                    raise UsageError(
                        f"the pass {name} made output {k} {new.dtype}{new.shape}, which was "
                        f"{old.dtype}{old.shape}"
                    )
                if not _close(old, new, tolerance):
                    raise UsageError(f"the pass {name} changed output {k}: {old} became {new}")

    return check


def _close(old: Array, new: Array, tolerance: float) -> bool:
    if old.dtype.kind in "biu":
        return bool(np.array_equal(old, new))
    wide_old, wide_new = old.astype(np.float64), new.astype(np.float64)
    finite = np.isfinite(wide_old)
    if not np.array_equal(wide_old[~finite], wide_new[~finite], equal_nan=True):
        return False
    largest = np.abs(wide_old[finite]).max(initial=0.0)
    unit = 2.0 ** -{2: 7, 4: 23, 8: 52}[old.dtype.itemsize]
    return bool(np.all(np.abs(wide_old - wide_new)[finite] <= tolerance * unit * largest))
