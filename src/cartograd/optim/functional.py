"""Optimisers as pure functions of trees, for the functional idiom.

    optimizer = cg.optim.functional.adam(lr=1e-3)
    state = optimizer.init(params)
    loss, grads = cg.value_and_grad(loss_fn)(params, batch)
    params, state = optimizer.update(grads, state, params)

Names, arguments and defaults are those of the classes, and so is the update: both call one rule.
A state is a tree of Tensors: {"exp_avg": tree like the parameters, "step": ..., ...}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import numpy as np

from .. import namespace as xp
from .. import tree
from ..dtype import is_floating
from ..errors import UsageError
from ..tensor import Parameter, Tensor
from .adadelta import Adadelta
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .lion import Lion
from .muon import Muon
from .nadam import NAdam
from .optimizer import Optimizer
from .param_group import option_error
from .radam import RAdam
from .rmsprop import RMSprop
from .rule import Rule, Slot, Values, compute_dtype
from .sgd import SGD

__all__ = [
    "Transform",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "lion",
    "muon",
    "nadam",
    "radam",
    "rmsprop",
    "sgd",
]

P = ParamSpec("P")


class Transform:
    """An optimiser without state of its own: `init` makes the state, `update` steps.

    >>> import cartograd as cg
    >>> opt = cg.optim.functional.sgd(lr=0.1)
    >>> params = {"w": cg.asarray([1.0, 2.0])}
    >>> grads = {"w": cg.asarray([1.0, 1.0])}
    >>> params, state = opt.update(grads, opt.init(params), params)
    >>> params["w"]
    Tensor([0.9, 1.9], dtype=float32)
    """

    __slots__ = ("options", "rule")

    def __init__(self, rule: Rule, options: Values) -> None:
        self.rule = rule
        self.options = options

    def init(self, params: Any) -> dict[str, Any]:
        """The state before the first step, for a tree of floating Tensors."""
        leaves, structure = tree.flatten(params)
        for leaf in leaves:
            if not isinstance(leaf, Tensor) or not is_floating(leaf.dtype):
                raise UsageError(f"parameters must be floating Tensors, but a leaf is {leaf!r}")
            self.rule.check_shape(leaf.shape)
        return {
            name: tree.unflatten(structure, [_initial(leaf, slot) for leaf in leaves])
            for name, slot in self.rule.slots(self.options).items()
        }

    def update(
        self, grads: Any, state: dict[str, Any], params: Any, **options: Any
    ) -> tuple[Any, dict[str, Any]]:
        """New parameters and new state; the arguments are unchanged.

        `grads` has the structure of `params`. Keyword options (`lr=...`) replace the optimiser's
        for this step, and may be 0-d Tensors, so a schedule needs no new trace and lr itself can
        be differentiated. Raises UsageError for structures that differ or unknown options.
        """
        leaves, structure = tree.flatten(params)
        grad_leaves = _match(grads, structure, "grads")
        columns = {
            name: _match(part, structure, f"state[{name!r}]") for name, part in state.items()
        }
        for key in options:
            if key not in self.rule.options:
                raise option_error(key, self.rule.options)
        merged: Values = self.options | options
        stepped = [
            self.rule.apply(p, g, {name: column[i] for name, column in columns.items()}, merged)
            for i, (p, g) in enumerate(zip(leaves, grad_leaves, strict=True))
        ]
        new_state = {
            name: tree.unflatten(structure, [entry[name] for _, entry in stepped])
            for name in self.rule.slots(merged)
        }
        return tree.unflatten(structure, [p for p, _ in stepped]), new_state

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{self.rule.name}({shown})"


def _match(part: Any, structure: Any, name: str) -> list[Any]:
    leaves, found = tree.flatten(part)
    if found != structure:
        raise UsageError(f"{name} is a tree of {found}, but the parameters are of {structure}")
    return leaves


def _initial(p: Tensor, slot: Slot) -> Tensor:
    if slot.scalar:
        return xp.asarray(np.asarray(slot.fill, np.float64))
    return xp.full(p.shape, slot.fill, dtype=compute_dtype(p))


_DOC = """`{name}` as pure functions: its arguments without `params`, the same update.

    >>> import cartograd as cg
    >>> opt = cg.optim.functional.{function}()
    >>> params = cg.ones((2, 2))
    >>> new, state = opt.update(params * 0.5, opt.init(params), params)
    >>> bool(cg.all(new < params))
    True
    """


def _functional(optimizer: Callable[Concatenate[Any, P], Optimizer]) -> Callable[P, Transform]:
    """The functional form of an optimiser class, with the same arguments after `params`."""

    def make(*args: P.args, **kwargs: P.kwargs) -> Transform:
        model = optimizer([Parameter(np.zeros((1, 1), np.float32))], *args, **kwargs)
        options = model.param_groups[0].hyper(False)
        return Transform(model.rule, {key: options[key] for key in model.rule.options})

    name = getattr(optimizer, "__name__", "optimizer")
    make.__doc__ = _DOC.format(name=name, function=name.lower())
    make.__name__ = make.__qualname__ = name.lower()
    return make


sgd = _functional(SGD)
adam = _functional(Adam)
adamw = _functional(AdamW)
nadam = _functional(NAdam)
radam = _functional(RAdam)
adamax = _functional(Adamax)
rmsprop = _functional(RMSprop)
adagrad = _functional(Adagrad)
adadelta = _functional(Adadelta)
lion = _functional(Lion)
muon = _functional(Muon)
