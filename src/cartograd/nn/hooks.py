"""Hooks: functions that a Module calls before and after its forward, and what removes them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from .. import tree
from ..errors import UsageError
from ..graph import NO_PARAMS, where_called
from ..ops.op import REGISTRY, build
from ..tensor import Tensor, wrap

__all__ = ["BackwardWatch", "Hooks", "RemovableHandle"]

_number = itertools.count()


class RemovableHandle:
    """What registering a hook returns: `remove()` takes the hook away; also a `with` block.

    >>> import cartograd as cg
    >>> layer = cg.nn.ReLU()
    >>> handle = layer.register_forward_hook(lambda module, args, out: print(out.shape))
    >>> _ = layer(cg.zeros(2))
    (2,)
    >>> handle.remove()
    >>> _ = layer(cg.zeros(2))
    """

    def __init__(self, hooks: Hooks, key: int) -> None:
        self._hooks, self._key = hooks, key

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        self._hooks.pop(self._key, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class Hooks(dict[int, tuple[Callable[..., Any], dict[str, bool]]]):
    """The hooks of one kind, in the order they are called, each with its options.

    >>> Hooks().add(print, prepend=False)
    <...RemovableHandle object at ...>
    """

    def add(
        self, hook: Callable[..., Any], *, prepend: bool = False, **options: bool
    ) -> RemovableHandle:
        """Add a hook at the end, or at the front with `prepend`."""
        key = next(_number)
        if prepend:
            rest = dict(self)
            self.clear()
            self[key] = (hook, options)
            self.update(rest)
        else:
            self[key] = (hook, options)
        return RemovableHandle(self, key)


class BackwardWatch:
    """The gradients of one call of a Module, as `Tensor.backward` finds them, for its hooks.

    Inputs and outputs are passed through identity nodes of their own, so that what other layers do
    with the same Tensors is not counted. The way back meets the nodes in the reverse order of their
    making: all outputs first, the first input last, which is when the hooks are called.

    >>> import cartograd as cg
    >>> layer = cg.nn.Linear(2, 1)
    >>> hook = lambda module, grad_input, grad_output: print(grad_output[0].tolist())
    >>> handle = layer.register_full_backward_hook(hook)
    >>> layer(cg.ones((1, 2))).sum().backward()
    [[1.0]]
    """

    def __init__(self, module: Any, before: Hooks, after: Hooks) -> None:
        self.module, self.before, self.after = module, before, after
        self.grad_input: list[Tensor | None] = []
        self.grad_output: list[Tensor | None] = []
        self.watched = 0

    def inputs(self, args: Any) -> Any:
        """The arguments, those that require a gradient marked."""
        leaves, structure = tree.flatten(args)
        marked = list(leaves)
        self.grad_input = [None] * len(leaves)
        for k, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                marked[k] = _identity(leaf)
                marked[k].register_hook(self._at_input(k, first=self.watched == 0))
                self.watched += 1
        return tree.unflatten(structure, marked)

    def outputs(self, result: Any) -> Any:
        """The result, what requires a gradient marked."""
        leaves, structure = tree.flatten(result)
        marked = list(leaves)
        self.grad_output = [None] * len(leaves)
        for k, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                marked[k] = _identity(leaf)
                marked[k].register_hook(self._at_output(k))
        return tree.unflatten(structure, marked)

    def _at_output(self, k: int) -> Callable[[Tensor], Tensor | None]:
        def see(grad: Tensor) -> Tensor | None:
            alone = len(self.grad_output) == 1
            self.grad_output[k] = grad
            for hook, _ in list(self.before.values()):
                changed = hook(self.module, tuple(self.grad_output))
                if changed is not None:
                    self.grad_output[k] = _only(changed, alone, "full_backward_pre_hook", "output")
            if not self.watched:
                self._finish()
            new = self.grad_output[k]
            return None if new is grad else new

        return see

    def _at_input(self, k: int, first: bool) -> Callable[[Tensor], Tensor | None]:
        def see(grad: Tensor) -> Tensor | None:
            self.grad_input[k] = grad
            return self._finish() if first else None

        return see

    def _finish(self) -> Tensor | None:
        new: Tensor | None = None
        for hook, _ in list(self.after.values()):
            changed = hook(self.module, tuple(self.grad_input), tuple(self.grad_output))
            if changed is not None:
                new = _only(changed, self.watched == 1, "full_backward_hook", "input")
        return new


def _only(changed: Any, alone: bool, kind: str, side: str) -> Tensor:
    given = [x for x in tree.leaves(changed) if isinstance(x, Tensor)]
    if not alone or len(given) != 1:
        raise UsageError(
            f"a {kind} can replace the gradient of a Module with one differentiable {side} only"
            f"{where_called()}"
        )
    return given[0]


def _identity(x: Tensor) -> Tensor:
    return wrap(build(REGISTRY["identity"], (x.node,), NO_PARAMS))
