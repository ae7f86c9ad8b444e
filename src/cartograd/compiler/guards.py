"""What a compiled function takes for granted besides its signature, and what changed about it."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..graph import Aval
from ..runtime import WORLD, Residence
from ..tensor import State, Tensor
from .step import Facts, Step
from .variables import Variable, variables_of

__all__ = ["Guards", "guards_of"]


@dataclass(slots=True)
class Guards:
    """What one program took for granted. `epoch` is when they were last looked at.

    Variables are looked at in every call, the rest when the epoch has moved on.
    """

    variables: tuple[Variable, ...]
    gradients: tuple[tuple[Tensor, Aval | None], ...]
    modules: tuple[Facts, ...]
    states: tuple[tuple[State, Residence, bool], ...]
    epoch: int
    cells: tuple[tuple[Any, Any], ...] = field(init=False)
    globals: tuple[tuple[str, dict[str, Any], Any], ...] = field(init=False)

    def __post_init__(self) -> None:
        names = [v for v in self.variables if not isinstance(v.home, types.CellType)]
        cells = [v for v in self.variables if isinstance(v.home, types.CellType)]
        self.globals = tuple((v.name, v.home, v.value) for v in names)
        self.cells = tuple((v.home, v.value) for v in cells)

    def hold(self) -> bool:
        """Whether nothing has changed, found out quickly."""
        for name, home, value in self.globals:
            if home.get(name) is not value:
                return not self.change()
        for cell, value in self.cells:
            if cell.cell_contents is not value:
                return not self.change()
        return WORLD.epoch == self.epoch or not self.change()

    def change(self) -> str:
        """What has changed, in words, or "" if nothing has."""
        for variable in self.variables:
            if variable.changed():
                return f"the variable {variable.name} that the function reads has another value"
        epoch = WORLD.epoch
        if epoch != self.epoch:
            for holder, aval in self.gradients:
                if change := _gradient_change(holder, aval):
                    return f"the gradient of a Tensor of shape {holder.shape} {change}"
            for facts in self.modules:
                if change := facts.change():
                    return f"{change} has changed"
            for state, residence, wanted in self.states:
                if state.wants_grad != wanted:
                    return f"requires_grad of a State of shape {state.shape} has changed"
                if state.residence is not residence:
                    return f"a State of shape {state.shape} was made anew"
            self.epoch = epoch
        return ""


def _gradient_change(holder: Tensor, aval: Aval | None) -> str:
    grad = holder.held_grad
    if grad is None:
        return "" if aval is None else "is None now"
    if aval is None:
        return "was None"
    return "is of another kind" if grad.node.aval != aval or grad.requires_grad else ""


def guards_of(step: Step, f: Callable[..., Any], residences: tuple[Residence, ...]) -> Guards:
    """The guards of a traced function."""
    gradients = step.gradients
    return Guards(
        variables_of(f),
        gradients.guards,
        step.modules,
        tuple((s, r, s.wants_grad) for s, r in zip(step.states, residences, strict=True)),
        WORLD.epoch,
    )
