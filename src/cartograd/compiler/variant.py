"""One program of a compiled function, and what is done around each run of it in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import GradientError
from ..graph import MODE, Aval, Graph, Node, user_origin
from ..ops.control import call as call_op
from ..ops.control import custom as custom_op
from ..ops.op import OUTPUT, argument, constant, output
from ..ops.subgraph import Deferred
from ..runtime import WORLD
from ..tensor import Tensor, wrap
from .build import build
from .executable import Executable
from .guards import guards_of
from .matching import builder_of, matcher_of
from .options import Options
from .signature import Signature, array_of
from .step import Result, Step

__all__ = ["MISS", "Variant"]

Array = np.ndarray[Any, Any]

MISS: Any = object()  # the answer of `attempt` to arguments that are not as expected


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
        self.recording = signature.recording
        self._gradients = step.gradients
        self._states = step.states
        self._places = [k for k, a in enumerate(signature.arguments) if a.shape is not None]
        self._donated = frozenset(donated)
        residences = tuple(state.reside() for state in step.states)
        self.guards = guards_of(step, f, residences)
        self._tracked = [r.output for r in step.results if r.tracked and r.output is not None]
        tracked = [step.graph.outputs[k] for k in self._tracked]
        updated = any(step.states[k].wants_grad for k, _ in step.assigned)
        self._history: Graph | None = None
        if tracked and not updated and not step.severed:
            self._history = Graph((*step.graph.inputs, *step.nodes), tracked)
        elif tracked:
            self._lost = _lost_parent(tracked)
        self._makers = [_maker(result, self._tracked) for result in step.results]
        self._build = builder_of(step.structure)
        self._match = matcher_of(signature) if self._history is None else None
        inputs = [self._places.index(place) for place in donated]
        self._runner = build(step, residences, inputs, options)
        self._in_order = [place for place, _, _ in self._makers] == list(range(len(self._makers)))
        self._results = self._quick_results(step)

    def _quick_results(self, step: Step) -> Callable[[Sequence[Array]], list[Tensor]] | None:
        """The executable's `results`, where nothing but results is left to be dealt with."""
        gradients, runner = step.gradients, self._runner
        left = gradients.given or gradients.made or gradients.cleared or gradients.arguments
        if self._match is None or left or not isinstance(runner, Executable):
            return None
        makers: dict[int, Callable[[Array], Tensor]] = {}
        for place, _, index in self._makers:
            if place is not None:
                makers[place] = _plain if index is None else partial(self._lost_tensor, index)
        ready = runner.prepare([makers[k] for k in sorted(makers)])
        return runner.results if ready else None

    def accepts(self, leaves: Sequence[Any]) -> bool:
        """Whether gradients that the function leaves to its arguments can be put there."""
        for place, _ in self._gradients.arguments:
            leaf: Tensor = leaves[place]
            if not leaf.is_leaf or leaf.held_grad is not None:
                return False
        return True

    def attempt(self, args: tuple[Any, ...]) -> Any:
        """One call, if these arguments are as expected and the guards hold; else MISS."""
        if self._match is None:
            return MISS
        arrays = self._match(args)
        if arrays is None or not self.guards.hold():
            return MISS
        if self._results is None:
            return self._finish(arrays, ())
        tensors = self._results(arrays)
        if self._in_order:
            return self._build(tensors)
        leaves = [t if k is None else tensors[k] for k, t, _ in self._makers]
        return self._build(leaves)

    def run(self, leaves: Sequence[Any]) -> Any:
        """One call."""
        return self._finish([array_of(leaves[k]) for k in self._places], leaves)

    def _finish(self, arrays: list[Array], leaves: Sequence[Any]) -> Any:
        """Run on the arguments' arrays, change gradients, and make the results."""
        given = [_gradient(holder) for holder in self._gradients.given]
        before: list[Node] = []
        if self._history is not None:
            before = [*self._argument_nodes(leaves), *map(constant, given)]
            before += [state.node for state in self._states]
        outputs = self._runner.run([*arrays, *given])
        self._leave_gradients(outputs, leaves)
        parent = self._parent(before, outputs) if self._history is not None else None
        return self._build(self._wrapped(outputs, parent))

    def _wrapped(self, outputs: Sequence[Array], parent: Node | None = None) -> list[Any]:
        """The leaves of the result."""
        leaves: list[Any] = []
        for place, thing, index in self._makers:
            if place is None:
                leaves.append(thing)
                continue
            value = outputs[place]
            if index is None:
                leaves.append(_plain(value))
            elif parent is not None:
                leaves.append(wrap(output(parent, index)))
            else:
                leaves.append(self._lost_tensor(index, value))
        return leaves

    def _lost_tensor(self, index: int, value: Array) -> Tensor:
        """A Tensor whose history is gone, and which says so when it is asked for it."""
        lost = self._lost
        params = {"index": index}
        return wrap(Node(OUTPUT, (lost,), params, value.shape, value.dtype, value, 1, lost.origin))

    def _argument_nodes(self, leaves: Sequence[Any]) -> list[Node]:
        found: list[Node] = []
        for k in self._places:
            leaf = leaves[k]
            found.append(leaf.node if isinstance(leaf, Tensor) else constant(np.array(leaf)))
        return found

    def _leave_gradients(self, outputs: Sequence[Array], leaves: Sequence[Any]) -> None:
        gradients = self._gradients
        if gradients.made or gradients.cleared or gradients.arguments:
            WORLD.epoch += 1
        for holder, k in gradients.made:
            holder.held_grad = _plain(outputs[k])
        for holder in gradients.cleared:
            holder.held_grad = None
        for place, k in gradients.arguments:
            leaves[place].held_grad = _plain(outputs[k])

    def _parent(self, before: Sequence[Node], outputs: Sequence[Array]) -> Node:
        """A `call` of the whole graph, for the way back: it runs again there."""
        values = tuple(outputs[k] for k in self._tracked)
        avals = tuple(Aval(value.shape, value.dtype) for value in values)
        bits = 0
        for node in before:
            bits |= node.tracked
        mode = MODE.get()
        return Node(
            call_op, tuple(before), {"graph": self._history}, *avals[0], values,
            bits & mode.active, user_origin(mode.scope), None, avals,
        )  # fmt: skip


def _maker(result: Result, tracked: Sequence[int]) -> tuple[int | None, Any, int | None]:
    """Of one leaf of the result: its output or the thing it is, and its place among the tracked."""
    place = result.output
    is_tracked = result.tracked and place is not None
    return place, result.thing, tracked.index(place) if is_tracked else None


def _plain(value: Array) -> Tensor:
    return wrap(constant(value))


def _lost_parent(outputs: Sequence[Node]) -> Node:
    """What nodes whose history is gone are outputs of: its derivative raises GradientError."""
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


def _gradient(holder: Tensor) -> Array:
    grad = holder.held_grad
    return np.zeros(holder.shape, holder.dtype) if grad is None else array_of(grad)
