"""What a compiled function takes for granted besides its signature, and what changed about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..graph import Aval
from ..runtime import WORLD, Residence
from ..tensor import State, Tensor
from .step import Facts, Step
from .variables import Variable, variables_of

__all__ = ["Guards", "guards_of"]


@dataclass(slots=True)
class Guards:
    """What one program took for granted. `epoch` is when Modules and States were last looked at."""

    variables: tuple[Variable, ...]
    gradients: tuple[tuple[Tensor, Aval | None], ...]
    modules: tuple[Facts, ...]
    states: tuple[tuple[State, Residence, bool], ...]
    epoch: int

    def change(self) -> str:
        """What has changed, in words, or "" if nothing has."""
        for variable in self.variables:
            if variable.changed():
                return f"the variable {variable.name} that the function reads has another value"
        for holder, aval in self.gradients:
            grad = holder.held_grad
            if grad is None:
                if aval is not None:
                    return f"the gradient of a Tensor of shape {holder.shape} is None now"
            elif aval is None:
                return f"a Tensor of shape {holder.shape} has a gradient now, and had none"
            elif grad.node.aval != aval or grad.requires_grad:
                return f"the gradient of a Tensor of shape {holder.shape} is of another kind"
        epoch = WORLD.epoch
        if epoch != self.epoch:
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
