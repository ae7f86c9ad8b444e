"""Loading a state_dict: everything is checked before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..dtype import DType, is_floating
from ..errors import ShapeError, UsageError
from ..functional._xp import xp
from ..graph import where_called
from ..tensor import State, Tensor

__all__ = ["IncompatibleKeys", "convert", "load"]


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and what it found no place for.

    >>> IncompatibleKeys(["weight"], []).missing_keys
    ['weight']
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


def convert(state: State, dtype: DType) -> None:
    """Give a floating State another dtype: the same object, so that an optimiser keeps it.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.zeros(2))
    >>> convert(p, cg.float64)
    >>> p.dtype
    dtype('float64')
    """
    if is_floating(state.dtype) and state.dtype != dtype:
        replace(state, state.detach().astype(dtype))


def replace(state: State, value: Tensor) -> None:
    """Let a State hold a value of another dtype."""
    State.__init__(state, value, state.requires_grad)


def load(
    owner: str,
    wanted: Mapping[str, State],
    optional: set[str],
    given: Mapping[str, Any],
    strict: bool,
    assign: bool,
) -> IncompatibleKeys:
    """Assign the values of a state_dict to the States of the same keys.

    Values are converted to each State's dtype, or with `assign` keep their own. Shapes that differ
    raise ShapeError; with `strict`, keys that are missing (but for `optional` ones) or have no
    place raise UsageError. The message lists every problem, and then nothing has changed.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.zeros(1))
    >>> _ = load("Model", {"p": p}, set(), {"p": cg.ones(1)}, True, False)
    >>> p.tolist()
    [1.0]
    """
    missing = [key for key in wanted if key not in given and key not in optional]
    unexpected = [key for key in given if key not in wanted]
    values = {key: _value_of(key, given[key]) for key in wanted if key in given}
    wrong = [
        f"{key}: {tuple(value.shape)} was given, {tuple(wanted[key].shape)} is needed"
        for key, value in values.items()
        if tuple(value.shape) != tuple(wanted[key].shape)
    ]
    problems: list[str] = []
    if strict and missing:
        problems.append(f"missing: {', '.join(missing)}")
    if strict and unexpected:
        problems.append(f"unexpected: {', '.join(map(str, unexpected))}")
    if wrong:
        problems.append(f"of the wrong shape: {'; '.join(wrong)}")
    if problems:
        text = "\n  ".join(problems)
        kind = ShapeError if wrong else UsageError
        raise kind(f"load_state_dict of {owner} changed nothing:\n  {text}{where_called()}")
    for key, value in values.items():
        state, new = wanted[key], value.detach()
        if assign and new.dtype != state.dtype:
            replace(state, new)
        else:
            state.assign(new.astype(state.dtype))
    return IncompatibleKeys(missing, unexpected)


def _value_of(key: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if not hasattr(value, "__array__") and not isinstance(value, int | float):
        raise UsageError(
            f"load_state_dict: {key} is a {type(value).__name__}, not a Tensor or an array"
            f"{where_called()}"
        )
    return xp.asarray(value)
