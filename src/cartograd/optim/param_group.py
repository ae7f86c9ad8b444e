"""A parameter group: a mapping from option names to values, as in PyTorch, that a trace can follow.

Numbers that a schedule may change (`lr`, `betas`, `momentum`, `weight_decay`, ...) live in 0-d
float64 States. Users read and write Python floats, `group["lr"] *= 0.1`; a traced step reads the
State, so a new learning rate needs no new trace. Options that decide what the graph contains
(`nesterov`, `amsgrad`, whether `momentum` is zero) are fixed once a step has been traced: changing
one afterwards raises instead of being silently ignored by the compiled step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, cast

import numpy as np

from ..errors import UsageError
from ..tensor import State, Tensor
from .rule import Fixed, Live, Option, Values

__all__ = ["NOTES", "ParamGroup", "option_error"]

NOTES = frozenset(
    {
        "name",
        "param_names",
        "meta",
        "initial_lr",
        "max_lr",
        "min_lr",
        "swa_lr",
        "max_momentum",
        "base_momentum",
    }
)
"""Keys that a group may hold beside its options: labels, and what schedules note."""


def option_error(key: object, options: Mapping[str, Option]) -> UsageError:
    """The error for a key that no group of this optimiser has.

    >>> print(option_error("learning_rate", {"lr": Live()}))  # doctest: +ELLIPSIS
    a parameter group has no option 'learning_rate': its options are lr (notes of your own go ...
    """
    return UsageError(
        f"a parameter group has no option {key!r}: its options are {', '.join(options)} "
        "(notes of your own go under 'name' and 'meta')"
    )


def _cell(value: float) -> State:
    return State(np.asarray(value, dtype=np.float64))


class ParamGroup(MutableMapping[str, Any]):
    """The parameters of one group under "params", and the group's options by name.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.ones(2))
    >>> group = cg.optim.SGD([p], lr=0.1).param_groups[0]
    >>> group["lr"] = group["lr"] / 2
    >>> group["lr"]
    0.05
    """

    __slots__ = ("_cells", "_options", "_traced", "_values", "_zero", "params")

    def __init__(
        self, params: list[State], options: Mapping[str, Option], values: Mapping[str, Any]
    ) -> None:
        self.params = params
        self._options = options
        self._traced = False
        self._zero: dict[str, bool] = {}
        self._cells: dict[str, tuple[State, ...]] = {}
        self._values: Values = {}
        for key, value in values.items():
            self[key] = value

    def __getitem__(self, key: str) -> Any:
        if key == "params":
            return self.params
        if key in self._cells:
            numbers = tuple(float(cell.numpy()) for cell in self._cells[key])
            return numbers if self._count(key) else numbers[0]
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "params":
            raise UsageError("a group's parameters are fixed: use optimizer.add_param_group")
        option = self._options.get(key)
        if isinstance(option, Live):
            self._set_live(key, option, value)
        elif isinstance(option, Fixed):
            value = _plain(value)
            option.check(key, value)
            if self._traced and value != self._values[key]:
                raise self._frozen(key, self._values[key], value)
            self._values[key] = value
        elif key in NOTES:
            self._values[key] = value
        else:
            raise option_error(key, self._options)

    def __delitem__(self, key: str) -> None:
        if key not in self._values or key in self._options:
            raise UsageError(f"the option {key!r} of a parameter group cannot be deleted")
        del self._values[key]

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield from (key for key in self._options if key in self)
        yield from (key for key in self._values if key not in self._options)

    def __contains__(self, key: object) -> bool:
        return key == "params" or key in self._cells or key in self._values

    def __len__(self) -> int:
        return 1 + len(self._cells) + len(self._values)

    def __repr__(self) -> str:
        shown = {key: self[key] for key in self if key != "params"}
        return f"ParamGroup({len(self.params)} parameters, {shown})"

    def cell(self, key: str, index: int = 0) -> State:
        """The 0-d float64 State behind a number, for assigning to it inside a traced step.

        >>> import cartograd as cg
        >>> group = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=0.1).param_groups[0]
        >>> group.cell("lr").assign(cg.asarray(0.5, dtype=cg.float64))
        >>> group["lr"]
        0.5
        """
        if key not in self._cells:
            raise UsageError(f"{key!r} is not a number that may change between steps")
        return self._cells[key][index]

    def hyper(self, traced: bool) -> Values:
        """The options for an update rule: Python floats, or in a trace the States behind them."""
        values: Values = {key: self._values[key] for key in self._options if key in self._values}
        for key, cells in self._cells.items():
            values[key] = self._traced_value(key, cells) if traced else self[key]
        self._traced = self._traced or traced
        return values

    @property
    def settable(self) -> frozenset[str]:
        """The keys that may be assigned: the options and the notes."""
        return frozenset(self._options) | NOTES

    def checked(self, saved: Mapping[str, Any]) -> Values:
        """The options as they would be after taking over saved ones; raises if one is wrong."""
        found = self.hyper(False)
        for key, option in self._options.items():
            if key in saved:
                found[key] = _plain(saved[key])
                option.check(key, found[key])
        return found

    def _traced_value(self, key: str, cells: tuple[State, ...]) -> Any:
        if self._count(key):
            return cells
        return 0.0 if self._is_switch(key) and self._zero[key] else cells[0]

    def _set_live(self, key: str, option: Live, value: Any) -> None:
        value = _plain(value)
        option.check(key, value)
        numbers: tuple[float, ...] = tuple(value) if option.count else (value,)
        cells = self._cells.get(key)
        zero = value == 0
        if cells is None:
            self._cells[key] = tuple(_cell(number) for number in numbers)
        else:
            if self._traced and option.switch and self._zero[key] != zero:
                raise self._frozen(key, self[key], value)
            for cell, number in zip(cells, numbers, strict=True):
                cell.assign(number)
        self._zero[key] = zero

    def _count(self, key: str) -> int:
        option = self._options[key]
        return option.count if isinstance(option, Live) else 0

    def _is_switch(self, key: str) -> bool:
        option = self._options[key]
        return isinstance(option, Live) and option.switch

    def _frozen(self, key: str, old: object, new: object) -> UsageError:
        return UsageError(
            f"{key} cannot change from {old!r} to {new!r}: it decides what the step computes, and "
            "this optimiser's step has been traced; make the optimiser anew and trace again"
        )


def _plain(value: Any) -> Any:
    """Python numbers for 0-d Tensors and NumPy scalars, one by one in a tuple or list."""
    if isinstance(value, (tuple, list)):
        return tuple(_plain(item) for item in cast("Sequence[Any]", value))
    if isinstance(value, Tensor):
        return value.item()
    return cast(Any, value.item()) if isinstance(value, np.generic) else value
