"""What a compiled function's results say of where they came from, to derivatives asked outside it.

A result that depends on something that requires a gradient is an output of a `call` of the whole
graph, which runs again on the way back. Where the values that it was computed from are gone, it is
an output of a node that raises GradientError when it is differentiated: never a silent zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import GradientError
from ..graph import MODE, Aval, Graph, Node, user_origin
from ..ops.control import call as call_op
from ..ops.control import custom as custom_op
from ..ops.op import OUTPUT, argument, constant, output
from ..ops.subgraph import Deferred
from ..tensor import Tensor, wrap
from .step import Result, Step

__all__ = ["History"]

Array = np.ndarray[Any, Any]


class History:
    """The tracked results of one program; `again` is the graph that runs on the way back."""

    def __init__(self, step: Step) -> None:
        self.places = [r.output for r in step.results if r.tracked and r.output is not None]
        outputs = [step.graph.outputs[k] for k in self.places]
        updated = any(step.states[k].wants_grad for k, _ in step.assigned)
        self.again: Graph | None = None
        self._lost: Node | None = None
        if outputs and not updated and not step.severed:
            leaves = [leaf for leaf, _ in step.outside]
            self.again = Graph((*step.graph.inputs, *step.nodes, *leaves), outputs)
            self._outside = [node for _, node in step.outside]
        elif outputs:
            self._lost = _lost_parent(outputs)

    def parent(self, before: Sequence[Node], outputs: Sequence[Array]) -> Node | None:
        """The `call` that this run's results are outputs of, given the nodes of its inputs."""
        if self.again is None:
            return None
        inputs = (*before, *self._outside)
        values = tuple(outputs[k] for k in self.places)
        avals = tuple(Aval(value.shape, value.dtype) for value in values)
        bits = 0
        for node in inputs:
            bits |= node.tracked
        mode = MODE.get()
        return Node(
            call_op, inputs, {"graph": self.again}, *avals[0], values,
            bits & mode.active, user_origin(mode.scope), None, avals,
        )  # fmt: skip

    def tensor(self, result: Result, value: Array, parent: Node | None = None) -> Tensor:
        """The Tensor of a result."""
        if not result.tracked or result.output is None:
            return wrap(constant(value))
        index = self.places.index(result.output)
        if parent is not None:
            return wrap(output(parent, index))
        lost: Any = self._lost
        params = {"index": index}
        return wrap(Node(OUTPUT, (lost,), params, value.shape, value.dtype, value, 1, lost.origin))


def _lost_parent(outputs: Sequence[Node]) -> Node:
    """What results whose history is gone are outputs of."""
    any_input = argument((), np.dtype(np.float32))
    params = {
        "graph": Graph((any_input,), [argument(*node.aval) for node in outputs]),
        "forward": Deferred(_gone, None),
        "backward": Deferred(_gone, None),
    }
    avals = tuple(node.aval for node in outputs)
    return Node(custom_op, (any_input,), params, *avals[0], None, 1, user_origin(), None, avals)


def _gone() -> Graph:
    raise GradientError(
        "the gradient of a compiled function's result was asked for outside it, but the function "
        "changed the Parameters that the result was computed from (or used no_grad on the way): "
        "call backward() or cg.grad inside the function, or return the result detached"
    )
