"""The variables that a function reads from around it, and whether they are what they were."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

__all__ = ["Variable", "same", "variables_of"]

_FIXED = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)


class Variable(NamedTuple):
    """A variable that a function reads from around it, and the value that it had."""

    name: str
    home: Any  # the cell, or the dict of globals
    value: Any

    def changed(self) -> bool:
        """Whether it now has another value."""
        try:
            home = self.home
            now = home.cell_contents if isinstance(home, types.CellType) else home[self.name]
        except (KeyError, ValueError):
            return True
        return now is not self.value and not same(now, self.value)


def variables_of(f: Callable[..., Any]) -> tuple[Variable, ...]:
    """The variables of enclosing functions and the globals that the code of f reads.

    Functions, classes and modules among them are taken to stay what they are.
    """
    function = _function_of(f)
    if function is None:
        return ()
    found: list[Variable] = []
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            found.append(Variable(name, cell, cell.cell_contents))
        except ValueError:  # not assigned yet
            continue
    space = function.__globals__
    read = dict.fromkeys(_globals_read(function.__code__))
    found += [Variable(name, space, space[name]) for name in read if name in space]
    return tuple(each for each in found if not isinstance(each.value, _FIXED))


def _function_of(f: Any) -> types.FunctionType | None:
    """The Python function behind a method, a partial or an object that can be called."""
    while not isinstance(f, types.FunctionType):
        if isinstance(f, functools.partial):
            f = cast("functools.partial[Any]", f).func
        elif isinstance(f, types.MethodType):
            f = f.__func__
        else:
            f = getattr(cast("type[Any]", type(f)), "__call__", None)  # noqa: B004 (the function itself is wanted)
            if not isinstance(f, types.FunctionType):
                return None
    return f


def _globals_read(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_read(constant)


def same(now: Any, was: Any) -> bool:
    """Whether two facts are one: the same object, or equal plain values of one type.

    >>> same(0.0, -0.0), same("a", "a")
    (False, True)
    """
    if now is was:
        return True
    plain = isinstance(was, (bool, int, float, str))
    return plain and type(now) is type(was) and repr(now) == repr(was)
