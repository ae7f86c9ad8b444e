"""Copies of what a Step works on: to run it on them changes nothing that anyone holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..runtime import LOCK, Residence, aligned
from .signature import Signature, array_of
from .step import Step

__all__ = ["Copies", "copied"]

Array = np.ndarray[Any, Any]


class _StandIn:
    """What a Residence refers to in the place of a State."""


class Copies:
    """The arguments of one call and the States of its Step, read and copied when asked for."""

    def __init__(self, step: Step, signature: Signature, leaves: Sequence[Any]) -> None:
        self._step, self._leaves = step, list(leaves)
        self._places = [k for k, a in enumerate(signature.arguments) if a.shape is not None]

    def inputs(self) -> list[Array]:
        """The inputs of the graph: the arrays of the arguments, then gradients that are there."""
        found = [copied(array_of(self._leaves[k])) for k in self._places]
        for holder in self._step.gradients.given:
            grad = holder.held_grad
            zero = np.zeros(holder.shape, holder.dtype)
            found.append(copied(zero if grad is None else array_of(grad)))
        return found

    def states(self) -> list[Array]:
        """The values of the States."""
        with LOCK:
            return [
                copied(s.node.value if s.residence is None else s.residence.array)
                for s in self._step.states
            ]

    def residences(self) -> list[Residence]:
        """Memory with the values of the States, which belongs to no State."""
        return [Residence(_StandIn(), value) for value in self.states()]


def copied(value: Array) -> Array:
    """A copy in aligned memory, in row-major order."""
    copy = aligned(value.shape, value.dtype)
    copy[...] = value
    return copy
