"""One program of a compiled function, and what is done around each run of it in Python.

Three ways through a call: `attempt` knows arguments like those of the last call (or the very trees
that it handed out), and hands out what nobody holds any more; `run` does everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import tree
from ..graph import Node, user_origin
from ..ops.op import constant
from ..runtime import WORLD
from ..tensor import Tensor, wrap
from .build import build
from .donation import Pair, claim, donation_of, give_up
from .executable import Executable
from .guards import guards_of
from .history import History
from .matching import builder_of, matcher_of
from .options import Options
from .relay import Relay, Side
from .signature import Signature, array_of, is_whole
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
        donate: Sequence[int],
        f: Callable[..., Any],
        options: Options,
    ) -> None:
        self.recording = signature.recording
        self._gradients, self._results = step.gradients, step.results
        self._states = step.states
        self._places = [k for k, a in enumerate(signature.arguments) if a.shape is not None]
        self._history = History(step)
        donation = donation_of(donate, signature, step)
        self._donated, pairs = donation.places, donation.pairs
        residences = tuple(state.reside() for state in step.states)
        self.guards = guards_of(step, f, residences)
        self._runner = build(step, residences, donation.inputs, options)
        self.cached = self._runner.cached
        self._build = builder_of(step.structure)
        self._outputs = [result.output for result in step.results]
        self._in_order = self._outputs == list(range(len(self._outputs)))
        self._every = range(len(self._places))
        self._keys = list(signature.structure.children[1].data)
        self._match = matcher_of(signature)
        self._again = self._prepared(step)
        self._relay: Relay | None = None
        self._relayed = pairs if self._goes_round(pairs, donate) else []
        self._prepare_relay(step, signature)

    # --- made once

    def _prepared(self, step: Step) -> Executable | None:
        """The executable, if it can be run in the quick way: nothing but results comes of it."""
        gradients, runner = step.gradients, self._runner
        left = gradients.given or gradients.made or gradients.cleared or gradients.arguments
        left = left or self._history.again is not None
        if self._match is None or left or not isinstance(runner, Executable):
            return None
        make = self._history.tensor
        runner.prepare({r.output: partial(make, r) for r in step.results if r.output is not None})
        return runner

    def _goes_round(self, pairs: Sequence[Pair], donate: Sequence[int]) -> bool:
        """Whether all that is donated is taken over by its pair."""
        wanted = {k: j for pair in pairs for k, j in zip(pair.outputs, pair.inputs, strict=True)}
        return bool(pairs) and len(pairs) == len(donate) and wanted == dict(self._runner.donated)

    def _prepare_relay(self, step: Step, signature: Signature) -> None:
        """What is left of a call when donated trees go round."""
        gone = {k for pair in self._relayed for k in pair.inputs}
        self._kept = [k for k in range(len(self._places)) if k not in gone]
        skip = {pair.position for pair in self._relayed}
        self._match_kept = matcher_of(signature, skip) if self._relayed else None
        # The children of the result: a part that goes round, or what builds one of other leaves.
        self._children: list[tuple[int, Callable[[Sequence[Any]], Any], list[Result]]] = []
        structure, parts = step.structure, {pair.part: n for n, pair in enumerate(self._relayed)}
        if self._relayed and None not in parts:
            first = 0
            for k, child in enumerate(structure.children):
                own = list(step.results[first : first + child.count])
                first += child.count
                self._children.append((parts.get(k, -1), builder_of(child), own))
        self._kind: Any = structure.kind

    # --- calls

    def accepts(self, leaves: Sequence[Any]) -> bool:
        """Whether gradients that the function leaves to its arguments can be put there."""
        for place, _ in self._gradients.arguments:
            leaf: Tensor = leaves[place]
            if not leaf.is_leaf or leaf.held_grad is not None:
                return False
        return True

    def attempt(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """One call, if these arguments are as expected and the guards hold; else MISS."""
        if self._match is None:
            return MISS
        if options or self._keys:
            if list(options) != self._keys:
                return MISS
            args = (*args, *options.values())
        if self._donated:
            return self._relay_call(args)
        arrays = self._match(args)
        if arrays is None or not self.guards.hold():
            return MISS
        if self._again is None:
            return self._finish(arrays, tree.leaves(args, is_leaf=is_whole))
        tensors = self._again.results(self._every, arrays)
        return self._build(tensors if self._in_order else _placed(self._results, tensors))

    def run(self, leaves: Sequence[Any]) -> Any:
        """One call."""
        return self._finish([array_of(leaves[k]) for k in self._places], leaves)

    def _finish(self, arrays: list[Array], leaves: Sequence[Any]) -> Any:
        """Run on the arguments' arrays, change gradients, and make the results."""
        given = [_gradient(holder) for holder in self._gradients.given]
        before: list[Node] = []
        if self._history.again is not None:
            before = [*self._argument_nodes(leaves), *map(constant, given)]
            before += [state.node for state in self._states]
        for k in self._runner.donated.values():
            claim(leaves[self._places[k]], arrays, k)
        self._relay = None
        try:
            outputs = self._runner.run([*arrays, *given])
        finally:
            origin = user_origin() if self._donated else None
            for place in self._donated:
                give_up(leaves[place], origin)
        self._leave_gradients(outputs, leaves)
        parent = self._history.parent(before, outputs)
        tensors: list[Any] = [None] * len(outputs)
        for result in self._results:
            if result.output is not None:
                tensors[result.output] = self._history.tensor(
                    result, outputs[result.output], parent
                )
        if not self._relayed:
            return self._build(_placed(self._results, tensors))
        arrays_of = [[outputs[k] for k in pair.outputs] for pair in self._relayed]
        self._relay = Relay(self._relayed, arrays_of)
        return self._assembled(tensors, self._relay.side)

    def _relay_call(self, args: tuple[Any, ...]) -> Any:
        """A call with the very trees that the last one handed out."""
        relay, match, runner = self._relay, self._match_kept, self._again
        if relay is None or match is None or runner is None:
            return MISS
        arrays = match(args)
        if arrays is None or not relay.matches(args) or not self.guards.hold():
            return MISS
        side = relay.swap(user_origin())
        try:
            tensors = runner.results(self._kept, arrays)
        except BaseException:
            self._relay = None
            raise
        return self._assembled(tensors, side)

    def _assembled(self, tensors: Sequence[Any], side: Side) -> Any:
        """The result, with the parts that go round in their places."""
        if not self._children:
            return side.parts[0]
        return self._kind(
            [
                make(_placed(own, tensors)) if part < 0 else side.parts[part]
                for part, make, own in self._children
            ]
        )

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
            holder.held_grad = wrap(constant(outputs[k]))
        for holder in gradients.cleared:
            holder.held_grad = None
        for place, k in gradients.arguments:
            leaves[place].held_grad = wrap(constant(outputs[k]))


def _placed(results: Sequence[Result], tensors: Sequence[Any]) -> list[Any]:
    """The leaves of a result, those that are no outputs among them."""
    return [r.thing if r.output is None else tensors[r.output] for r in results]


def _gradient(holder: Tensor) -> Array:
    grad = holder.held_grad
    return np.zeros(holder.shape, holder.dtype) if grad is None else array_of(grad)
