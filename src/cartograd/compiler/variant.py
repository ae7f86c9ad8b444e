"""One program of a compiled function, and what is done around each run of it in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..errors import GradientError
from ..graph import MODE, Aval, Graph, Node, user_origin
from ..ops.control import call as call_op
from ..ops.control import custom as custom_op
from ..ops.op import argument, constant, output
from ..ops.subgraph import Deferred
from ..tensor import Tensor, wrap
from .build import build
from .guards import guards_of
from .options import Options
from .signature import Signature, array_of
from .step import Step

__all__ = ["Variant"]

Array = np.ndarray[Any, Any]


class Variant:
    """A Step made ready to run: arguments in, States and gradients changed, results out."""

    def __init__(
        self,
        step: Step,
        signature: Signature,
        donated: Sequence[int],
        f: Callable[..., Any],
        options: Options,
    ) -> None:
        self._gradients = step.gradients
        self._results, self._structure = step.results, step.structure
        self._states = step.states
        self._places = [k for k, a in enumerate(signature.arguments) if a.shape is not None]
        self._donated = frozenset(donated)
        residences = tuple(state.reside() for state in step.states)
        self.guards = guards_of(step, f, residences)
        tracked = [r for r in step.results if r.tracked and r.output is not None]
        self._tracked = [r.output for r in tracked if r.output is not None]
        self._history: Graph | None = None
        self._lost = False
        if tracked:
            updated = any(step.states[k].wants_grad for k, _ in step.assigned)
            self._lost = updated or step.severed
            if not self._lost:
                outputs = [step.graph.outputs[k] for k in self._tracked]
                self._history = Graph((*step.graph.inputs, *step.nodes), outputs)
        inputs = [self._places.index(place) for place in donated]
        self._runner = build(step, residences, inputs, options)

    def accepts(self, leaves: Sequence[Any]) -> bool:
        """Whether gradients that the function leaves to its arguments can be put there."""
        for place, _ in self._gradients.arguments:
            leaf: Tensor = leaves[place]
            if not leaf.is_leaf or leaf.held_grad is not None:
                return False
        return True

    def run(self, leaves: Sequence[Any]) -> Any:
        """One call."""
        arrays = [array_of(leaves[k]) for k in self._places]
        given = [_gradient(holder) for holder in self._gradients.given]
        before: list[Node] = []
        if self._history is not None:
            before = [*self._argument_nodes(leaves), *map(constant, given)]
            before += [state.node for state in self._states]
        outputs = self._runner.run([*arrays, *given])
        self._leave_gradients(outputs, leaves)
        nodes = self._tracked_nodes(before, outputs)
        values: list[Any] = []
        for result in self._results:
            if result.output is None:
                values.append(result.thing)
            else:
                known = nodes.get(result.output)
                values.append(wrap(known or constant(outputs[result.output])))
        return tree.unflatten(self._structure, values)

    def _argument_nodes(self, leaves: Sequence[Any]) -> list[Node]:
        found: list[Node] = []
        for k in self._places:
            leaf = leaves[k]
            found.append(leaf.node if isinstance(leaf, Tensor) else constant(np.array(leaf)))
        return found

    def _leave_gradients(self, outputs: Sequence[Array], leaves: Sequence[Any]) -> None:
        gradients = self._gradients
        for holder, k in gradients.made:
            holder.held_grad = wrap(constant(outputs[k]))
        for holder in gradients.cleared:
            holder.held_grad = None
        for place, k in gradients.arguments:
            leaves[place].held_grad = wrap(constant(outputs[k]))

    def _tracked_nodes(self, before: Sequence[Node], outputs: Sequence[Array]) -> dict[int, Node]:
        """Nodes for the results that depend on what requires a gradient.

        They are outputs of a `call` of the whole graph, which runs again on the way back; or, where
        the States they were computed from are gone, of a node that says so when it is asked.
        """
        if not self._tracked:
            return {}
        values = tuple(outputs[k] for k in self._tracked)
        avals = tuple(Aval(value.shape, value.dtype) for value in values)
        mode = MODE.get()
        origin = user_origin(mode.scope)
        if self._history is not None:
            bits = 0
            for node in before:
                bits |= node.tracked
            parent = Node(
                call_op, tuple(before), {"graph": self._history}, *avals[0], values,
                bits & mode.active, origin, None, avals,
            )  # fmt: skip
        else:
            outputs_like = [argument(*aval) for aval in avals]
            params = {
                "graph": Graph((_ANY,), outputs_like),
                "forward": _LOST,
                "backward": _LOST,
            }
            parent = Node(custom_op, (_ANY,), params, *avals[0], values, 1, origin, None, avals)
        return {k: output(parent, j) for j, k in enumerate(self._tracked)}


def _gone() -> Graph:
    raise GradientError(
        "the gradient of a compiled function's result was asked for outside it, but the function "
        "changed the Parameters that the result was computed from (or used no_grad on the way): "
        "call backward() or cg.grad inside the function, or return the result detached"
    )


_ANY = argument((), np.dtype(np.float32))
_LOST = Deferred(_gone, None)


def _gradient(holder: Tensor) -> Array:
    grad = holder.held_grad
    return np.zeros(holder.shape, holder.dtype) if grad is None else array_of(grad)
