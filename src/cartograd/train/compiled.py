"""The steps of training and of looking at a model as native code: what a Trainer runs by default.

A native step does not stop half-way for someone to look at its numbers. It computes the update in
any case and keeps it only if the loss and the norm of the gradients are finite: every State that it
would change is then either new or as before, which is what the step in Python comes to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any

from .. import namespace as xp
from .. import tree
from ..compiler import CompiledFunction
from ..compiler import compile as compile_function
from ..dtype import float64
from ..errors import CompileError, TraceError
from ..graph import Node
from ..optim import Optimizer
from ..record import EVENTS
from ..tensor import State, Tensor, no_grad, wrap
from .batches import Batch, count_examples
from .engine import Ran
from .moment import states_of
from .step import TrainStep

__all__ = ["CompiledLooks", "CompiledSteps"]


class _LeftToPython(Exception):
    """The optimiser's step cannot be traced, and why."""


def _native(name: str, f: Callable[..., Any]) -> CompiledFunction:
    """f compiled; its name in records and warnings; an event "compiling" before that is done."""

    def step(*args: Any) -> Any:
        EVENTS.emit("compiling", function=name)  # in Python only while it is traced
        return f(*args)

    step.__qualname__ = name
    return compile_function(step)


@contextlib.contextmanager
def _explained(what: str) -> Generator[None]:
    """What cannot be compiled, with the way out."""
    try:
        yield
    except (CompileError, TraceError) as error:
        raise type(error)(
            f"{what} cannot be compiled: {error}; or leave it to Python: Trainer(compile=False), "
            "--eager on the command line"
        ) from error


def _batch_of(args: tuple[Any, ...], kwargs: dict[str, Any], target: Any) -> Batch:
    return Batch(args, kwargs, target, count_examples((args, kwargs) if target is None else target))


def _plain(output: Any) -> Any:
    """An output without its history, which would be kept for derivatives that nobody takes."""
    return tree.map(_detached, output)


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _finite(x: Tensor) -> Tensor:
    return xp.all(xp.isfinite(x.detach()))


def _number(x: float) -> Tensor:
    return xp.asarray(x, dtype=float64)


class CompiledSteps:
    """The training step, its part that only adds up gradients, and the update alone, each compiled.

    outputs: whether anyone needs the model's output. tell: called with (kind, data) of an event.
    An optimiser that has hooks, or asks for a value in its step, is left to Python, which an event
    "note" says; anything else that cannot be traced raises TraceError.
    """

    def __init__(
        self, step: TrainStep, *, outputs: bool, tell: Callable[..., None] = EVENTS.emit
    ) -> None:
        self._step, self._outputs, self._tell = step, outputs, tell
        self.buffers: Sequence[State] = ()
        self._in_python = False
        if step.optimizer is not None and step.optimizer.has_step_hooks:
            self._leave("it has hooks, which are Python functions")
        self._make()

    def batch(self, batch: Batch, share: float, scale: float | None) -> Ran:
        """The gradients; where an update follows, their norm and the update."""
        self._look_at_groups()
        parts = (batch.args, batch.kwargs, batch.target)
        if scale is None:
            loss, output = self._run(lambda: self._part, *parts, _number(share))
            return Ran(loss, output, None)
        factors = () if share == 1.0 == scale else (_number(share), _number(scale))
        return Ran(*self._run(lambda: self._whole, *parts, *factors))

    def close(self, scale: float) -> Tensor:
        """The norm of the gradients that wait, and the update."""
        self._look_at_groups()
        return self._run(lambda: self._last, _number(scale))

    def update(self, norm: Tensor) -> None:
        """What is left to Python of an update."""
        if self._in_python:
            self._step.update(norm)
        elif self._step.optimizer is not None:
            self._step.optimizer.step_calls += 1

    # --- what is compiled

    def _make(self) -> None:
        self._groups = _groups(self._step.optimizer)
        self._whole = _native("the training step", self._train)
        self._part = _native("the step that adds up gradients", self._add_up)
        self._last = _native("the last update of an epoch", self._update)

    def _train(self, args: Any, kwargs: Any, target: Any, *factors: Tensor) -> Any:
        before = self._held()
        share, scale = factors or (1.0, 1.0)
        loss, output = self._step.gradients(_batch_of(args, kwargs, target), share)
        norm = self._step.norm(scale)
        self._apply(norm)
        _keep_if(_finite(loss) & _finite(norm), before)
        return loss, self._shown(output), norm

    def _add_up(self, args: Any, kwargs: Any, target: Any, share: Tensor) -> Any:
        before = self._held()
        loss, output = self._step.gradients(_batch_of(args, kwargs, target), share)
        _keep_if(_finite(loss), before)
        return loss, self._shown(output)

    def _update(self, scale: Tensor) -> Tensor:
        before = self._held()
        norm = self._step.norm(scale)
        self._apply(norm)
        _keep_if(_finite(norm), before)
        return norm

    def _apply(self, norm: Tensor) -> None:
        if self._in_python:
            return
        try:
            self._step.update(norm)
        except TraceError as error:
            raise _LeftToPython(str(error)) from error

    def _held(self) -> list[tuple[State, Node]]:
        """Every State that a step may change, with the node of its value."""
        step = self._step
        return [(s, s.node) for s in states_of(step.model, step.optimizer, step.ema)]

    def _shown(self, output: Any) -> Any:
        return _plain(output) if self._outputs else None

    # --- calls

    def _run(self, function: Callable[[], CompiledFunction], *args: Any) -> Any:
        optimizer = self._step.optimizer
        calls = 0 if optimizer is None else optimizer.step_calls
        try:
            with _explained("the training step"):
                return function()(*args)
        except _LeftToPython as left:
            self._leave(str(left))
            self._make()
            return self._run(function, *args)
        finally:
            if optimizer is not None:
                optimizer.step_calls = calls  # a trace counts as no step

    def _leave(self, reason: str) -> None:
        self._in_python = True
        name = type(self._step.optimizer).__name__
        self._tell("note", text=f"the step of {name} is not compiled: {reason}")

    def _look_at_groups(self) -> None:
        """Begin anew where the optimiser has been given other parameters."""
        if _groups(self._step.optimizer) != self._groups:
            self._make()


def _groups(optimizer: Optimizer | None) -> list[int]:
    return [] if optimizer is None else [len(group.params) for group in optimizer.param_groups]


def _keep_if(good: Tensor, before: Sequence[tuple[State, Node]]) -> None:
    """Give the States that have changed their values of before, unless all is good."""
    with no_grad():
        for state, node in before:
            if state.node is not node:
                state.assign(xp.where(good, state.detach(), wrap(node)))


class CompiledLooks:
    """The evaluation step and the prediction of a TrainStep, each compiled.

    outputs: whether the model's output is needed beside the loss.
    """

    def __init__(self, step: TrainStep, *, outputs: bool) -> None:
        def look(args: Any, kwargs: Any, target: Any) -> Any:
            loss, output = step.evaluate(_batch_of(args, kwargs, target))
            return loss.detach(), _plain(output) if outputs else None

        def guess(args: Any, kwargs: Any, target: Any) -> Any:
            return _plain(step.predict(_batch_of(args, kwargs, target)))

        self._look = _native("the evaluation step", look)
        self._guess = _native("the prediction", guess)

    def evaluate(self, batch: Batch) -> tuple[Tensor, Any]:
        """Return the loss and the output of one batch."""
        with _explained("the evaluation step"):
            return self._look(batch.args, batch.kwargs, batch.target)

    def predict(self, batch: Batch) -> Any:
        """Return the model's output on one batch."""
        with _explained("the prediction"):
            return self._guess(batch.args, batch.kwargs, batch.target)
