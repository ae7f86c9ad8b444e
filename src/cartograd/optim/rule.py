"""What an optimiser is: its options, the state it keeps for each parameter, and one pure update.

The update is written once, as a function of Tensors. The classes (`Adam(...).step()`) and the
functional idiom (`functional.adam(...).update(...)`) both call it through `Rule.apply`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import dtype as dtypes
from ..errors import UsageError
from ..tensor import Tensor

__all__ = [
    "FLAG",
    "LIKE",
    "PASSIVE",
    "STEP",
    "Fixed",
    "Live",
    "Option",
    "Rule",
    "Slot",
    "Values",
    "compute_dtype",
]

Values = dict[str, Any]
"""Values by name: a parameter's state, or a group's options."""


def _items(value: Any) -> list[Any] | None:
    """The items of a tuple or list; None for anything else."""
    return list(value) if isinstance(value, (tuple, list)) else None  # pyright: ignore[reportUnknownArgumentType]


@dataclass(frozen=True, slots=True)
class Live:
    """An option that may change between steps: one number, or `count` numbers.

    A traced step reads it from a 0-d State, so a schedule needs no new trace. `switch` says that
    being zero or not decides what the graph contains.

    >>> Live(below=1.0).check("beta", 0.9)
    """

    low: float = 0.0
    below: float = math.inf
    upto: float = math.inf
    count: int = 0
    switch: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise UsageError unless the value is finite and inside the bounds."""
        items = _items(value) if self.count else [value]
        if items is None or len(items) != max(1, self.count):
            raise UsageError(f"{name} must be {self.count} numbers, but is {value!r}")
        for i, item in enumerate(items):
            label = f"{name}[{i}]" if self.count else name
            if isinstance(item, bool) or not isinstance(item, (int, float)):
                raise UsageError(f"{label} must be a number, but is {item!r}")
            if not (self.low <= item < self.below and item <= self.upto and math.isfinite(item)):
                raise UsageError(f"{label} must be {self._range()}, but is {item!r}")

    def _range(self) -> str:
        text = f">= {self.low:g}"
        if self.below < math.inf:
            return f"{text} and < {self.below:g}"
        if self.upto < math.inf:
            return f"{text} and <= {self.upto:g}"
        return f"{text} and finite"


@dataclass(frozen=True, slots=True)
class Fixed:
    """An option that decides what the graph contains: one of some kinds, perhaps of some choices.

    >>> Fixed((bool,)).check("nesterov", True)
    """

    kinds: tuple[type, ...]
    choices: tuple[object, ...] = ()
    low: float = -math.inf
    hint: str = ""

    def check(self, name: str, value: object) -> None:
        """Raise UsageError unless the value is of a kind, one of the choices and not too small."""
        names = " or ".join(kind.__name__ for kind in self.kinds)
        wrong_kind = not isinstance(value, self.kinds)
        if wrong_kind or (isinstance(value, bool) and bool not in self.kinds):
            raise UsageError(f"{name} must be {names}, but is {value!r}")
        if self.choices and value not in self.choices:
            allowed = " or ".join(map(repr, self.choices))
            raise UsageError(f"{name} must be {allowed}, but is {value!r}{self.hint}")
        if isinstance(value, (int, float)) and value < self.low:
            raise UsageError(f"{name} must be >= {self.low:g}, but is {value!r}")


FLAG = Fixed((bool,))
_MAYBE = Fixed((bool, type(None)))
PASSIVE: dict[str, Fixed] = {
    "foreach": _MAYBE,
    "fused": _MAYBE,
    "capturable": FLAG,
    "differentiable": Fixed(
        (bool,), (False,), hint=": to differentiate through updates, use cg.optim.functional"
    ),
}
"""Options that choose between PyTorch's kernels: accepted and kept, without effect here.

`differentiable` asks for more than that, and is refused.
"""


@dataclass(frozen=True, slots=True)
class Slot:
    """One entry of a parameter's state: shaped like the parameter, or one float64 number.

    >>> Slot(scalar=True, fill=1.0)
    Slot(scalar=True, fill=1.0)
    """

    scalar: bool = False
    fill: float = 0.0


STEP = Slot(scalar=True)
LIKE = Slot()

Option = Live | Fixed
Update = Callable[[Tensor, Tensor, Values, Values], tuple[Tensor, Values]]


def _accept(options: Values) -> None:
    """The check of a rule whose options need none beyond their own."""


def _any_shape(shape: tuple[int, ...]) -> None:
    """The check of a rule that takes parameters of every shape."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An optimiser as data.

    `options`: what a parameter group may set. `slots(options)`: the state it keeps, by name.
    `update(p, g, state, options) -> (new p, new state)`: the formula; p, g and like-shaped state
    have one floating dtype, scalars are Python floats or 0-d float64 Tensors (`scalar.py`).
    `check(options)`: raises UsageError for options that do not go together. `check_shape(shape)`:
    raises UsageError for parameters that the rule cannot take.

    >>> import cartograd as cg
    >>> options = {"lr": 0.5, "momentum": 0.0, "weight_decay": 0.0, "maximize": False}
    >>> p, state = cg.optim.SGD.rule.apply(cg.asarray(1.0), cg.asarray(1.0), {}, options)
    >>> p.item()
    0.5
    """

    name: str
    options: Mapping[str, Option]
    slots: Callable[[Values], dict[str, Slot]]
    update: Update
    check: Callable[[Values], None] = _accept
    check_shape: Callable[[tuple[int, ...]], None] = _any_shape

    def apply(self, p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
        """One update of one parameter, in float32 at least; the result has p's dtype.

        `maximize` and the widening of 16-bit floats are dealt with here, for every rule.
        """
        wide = compute_dtype(p)
        wide_p = p if p.dtype == wide else p.astype(wide)
        wide_g = g if g.dtype == wide else g.astype(wide)
        if options.get("maximize"):
            wide_g = -wide_g
        new_p, new_state = self.update(wide_p, wide_g, state, options)
        return (new_p if p.dtype == wide else new_p.astype(p.dtype)), new_state


def compute_dtype(p: Tensor) -> dtypes.DType:
    """The dtype in which a parameter is updated and its state kept: its own, at least float32.

    >>> import cartograd as cg
    >>> compute_dtype(cg.ones(2, dtype=cg.bfloat16))
    dtype('float32')
    """
    return p.dtype if p.dtype.itemsize >= 4 else dtypes.float32
