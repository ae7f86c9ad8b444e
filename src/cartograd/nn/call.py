"""functional_call: a Module as a function of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ShapeError, UsageError
from ..graph import where_called
from ..tensor import Tensor
from .module import Module, as_args

__all__ = ["functional_call"]

Slots = list[tuple[dict[str, Any], str]]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call `module(*args, **kwargs)` with these Tensors in place of its own, by their paths.

    `args` is a tuple, or one argument. The Module has its own Tensors back afterwards, also if the
    call raises. A Parameter used under several paths is replaced under all of them
    (`tie_weights`). With `strict`, every Parameter and Buffer must be given. A plain Tensor that
    stands for a Buffer is not changed by a layer that updates it: pass a `cg.Buffer` to keep the
    update. An unknown path, or a shape that differs, raises an error.

    >>> import cartograd as cg
    >>> layer = cg.nn.Linear(2, 1, bias=False)
    >>> f = lambda w: cg.nn.functional_call(layer, {"weight": w}, cg.asarray([1.0, 2.0])).sum()
    >>> cg.grad(f)(cg.zeros((1, 2))).tolist()
    [[1.0, 2.0]]
    """
    given = _merged(parameter_and_buffer_dicts)
    slots = _slots(module, tie_weights)
    unknown = [name for name in given if name not in slots]
    absent = [name for name in slots if name not in given] if strict else []
    if unknown or absent:
        parts = [f"no such parameter or buffer: {', '.join(unknown)}"] if unknown else []
        parts += [f"not given, though strict: {', '.join(absent)}"] if absent else []
        raise UsageError(
            f"functional_call of {type(module).__name__}: {'; '.join(parts)}{where_called()}"
        )
    for name, value in given.items():
        table, key = slots[name][0]
        if tuple(value.shape) != tuple(table[key].shape):
            raise ShapeError(
                f"functional_call: {name} has shape {tuple(value.shape)}, "
                f"{tuple(table[key].shape)} is needed{where_called()}"
            )
    positional = () if args is None else as_args(args)
    before = [(table, key, table[key]) for name in given for table, key in slots[name]]
    try:
        for name, value in given.items():
            for table, key in slots[name]:
                table[key] = value
        return module(*positional, **(kwargs or {}))
    finally:
        for table, key, value in before:
            table[key] = value


def _merged(dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    if isinstance(dicts, Mapping):
        return dict(dicts)
    merged: dict[str, Tensor] = {}
    for one in dicts:
        twice = [name for name in one if name in merged]
        if twice:
            raise UsageError(f"functional_call: {', '.join(twice)} is given twice{where_called()}")
        merged.update(one)
    return merged


def _slots(module: Module, tie: bool) -> dict[str, Slots]:
    """For each path, the table entries that it stands for: one, or all that share the Tensor."""
    found: dict[str, Slots] = {}
    shared: dict[int, Slots] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for kind in ("_parameters", "_buffers"):
            table: dict[str, Any] = part.__dict__[kind]
            for name, value in table.items():
                if value is None:
                    continue
                key = f"{path}.{name}" if path else name
                if tie:
                    found[key] = shared.setdefault(id(value), [])
                else:
                    found[key] = []
                found[key].append((table, name))
    return found
