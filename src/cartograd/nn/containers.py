"""Modules that hold Modules or Parameters: Sequential, lists and dicts of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, cast, overload

from ..errors import IndexOutOfRangeError, UsageError
from ..graph import where_called
from ..tensor import Parameter, Tensor
from .module import Module

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


def _position(owner: str, index: Any, count: int) -> int:
    k = int(index)
    if not -count <= k < count:
        raise IndexOutOfRangeError(f"{owner} has {count} entries, no number {k}{where_called()}")
    return k % count


class _Numbered(Module):
    """Sub-modules named "0", "1", ...: what Sequential and ModuleList share."""

    def _replace(self, modules: Iterable[Module]) -> None:
        self._modules.clear()
        for k, module in enumerate(modules):
            self.add_module(str(k), module)

    def _items(self) -> list[Any]:
        return list(self._modules.values())

    def _key(self, index: Any) -> str:
        return list(self._modules)[_position(type(self).__name__, index, len(self._modules))]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())

    def __contains__(self, module: object) -> bool:
        return any(module is child for child in self._modules.values())

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            part = type(self)()
            part._replace(self._items()[index])
            return part
        return self._modules[self._key(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._key(index), module)

    def __delitem__(self, index: int | slice) -> None:
        items = self._items()
        if isinstance(index, slice):
            del items[index]
        else:
            del items[_position(type(self).__name__, index, len(items))]
        self._replace(items)

    def append(self, module: Module) -> Self:
        """Add a Module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add Modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Put a Module before the one numbered `index`."""
        items = self._items()
        items.insert(index, module)
        self._replace(items)
        return self

    def pop(self, key: int = -1) -> Any:
        """Take a Module out, the last by default, and return it."""
        module = self[key]
        del self[key]
        return module


class Sequential(_Numbered):
    """Calls its Modules one after the other; from arguments, or an OrderedDict with names.

    >>> import cartograd as cg
    >>> model = cg.nn.Sequential(cg.nn.Linear(2, 4), cg.nn.ReLU())
    >>> model(cg.zeros((3, 2))).shape
    (3, 4)
    >>> model[1]
    ReLU()
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], dict):
            for name, module in args[0].items():  # pyright: ignore[reportUnknownVariableType]
                self.add_module(name, module)  # pyright: ignore[reportUnknownArgumentType]
        else:
            self._replace(args)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    def __add__(self, other: Sequential) -> Sequential:
        return Sequential(*self, *other)

    def forward(self, input: Any) -> Any:
        """The last Module's result."""
        for module in self._modules.values():
            input = module(input)
        return input


class _Uncalled(Module):
    """A Module that is never called itself, so those below carry its name in theirs."""

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a sub-module, or None."""
        super().add_module(name, module)
        if module is not None and self._name:
            module._named(f"{self._name}.{name}")

    def _named(self, name: str) -> None:
        super()._named(name)
        for key, child in self._modules.items():
            if child is not None:
                child._named(f"{name}.{key}")


class ModuleList(_Uncalled, _Numbered):
    """A list of Modules that registers them; it has no forward of its own.

    >>> import cartograd as cg
    >>> layers = cg.nn.ModuleList(cg.nn.Linear(2, 2) for _ in range(3))
    >>> len(layers), len(list(layers.parameters()))
    (3, 6)
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self._replace(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __iadd__(self, other: Iterable[Module]) -> Self:
        return self.extend(other)


class ModuleDict(_Uncalled):
    """A dict of Modules that registers them; it has no forward of its own.

    >>> import cartograd as cg
    >>> heads = cg.nn.ModuleDict({"a": cg.nn.Linear(2, 1), "b": cg.nn.Linear(2, 3)})
    >>> heads["b"](cg.zeros(2)).shape
    (3,)
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def _claim(self, name: str, kind: str) -> None:
        # A key may be the name of a method here: it is reached by [].
        if not isinstance(name, str) or not name or "." in name:  # pyright: ignore
            raise UsageError(f"ModuleDict: {name!r} is not a name without dots{where_called()}")

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        """The Modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """The names with their Modules."""
        return self._modules.items()

    def pop(self, key: str) -> Any:
        """Take a Module out, and return it."""
        return self._modules.pop(key)

    def clear(self) -> None:
        """Take every Module out."""
        self._modules.clear()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace Modules by name."""
        named = isinstance(modules, Mapping | ModuleDict)
        pairs = cast("Any", modules).items() if named else modules
        for name, module in pairs:
            self.add_module(name, module)


def _parameter(value: Any) -> Parameter:
    return value if isinstance(value, Parameter) else Parameter(value)


class ParameterList(Module):
    """A list of Parameters that registers them; plain Tensors are wrapped.

    >>> import cartograd as cg
    >>> weights = cg.nn.ParameterList([cg.zeros(2), cg.zeros(3)])
    >>> [w.shape for w in weights]
    [(2,), (3,)]
    """

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        if values is not None:
            self.extend(values)

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._parameters.values()))

    @overload
    def __getitem__(self, index: int) -> Parameter: ...
    @overload
    def __getitem__(self, index: slice) -> ParameterList: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return ParameterList(list(self)[index])
        return self._parameters[str(_position("ParameterList", index, len(self)))]

    def __setitem__(self, index: int, value: Tensor) -> None:
        at = _position("ParameterList", index, len(self))
        self.register_parameter(str(at), _parameter(value))

    def append(self, value: Tensor) -> Self:
        """Add a Parameter at the end."""
        self.register_parameter(str(len(self)), _parameter(value))
        return self

    def extend(self, values: Iterable[Tensor]) -> Self:
        """Add Parameters at the end."""
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Tensor]) -> Self:
        return self.extend(values)

    def __repr__(self) -> str:
        return _listed("ParameterList", self._parameters)


class ParameterDict(Module):
    """A dict of Parameters that registers them; plain Tensors are wrapped.

    >>> import cartograd as cg
    >>> weights = cg.nn.ParameterDict({"a": cg.zeros(2)})
    >>> weights["a"].shape
    (2,)
    """

    def __init__(self, parameters: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        if parameters is not None:
            self.update(parameters)

    def _claim(self, name: str, kind: str) -> None:
        if not isinstance(name, str) or not name or "." in name:  # pyright: ignore
            raise UsageError(f"ParameterDict: {name!r} is not a name without dots{where_called()}")

    def __getitem__(self, key: str) -> Any:
        return self._parameters[key]

    def __setitem__(self, key: str, value: Tensor) -> None:
        self.register_parameter(key, _parameter(value))

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __contains__(self, key: object) -> bool:
        return key in self._parameters

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._parameters.keys()

    def values(self) -> Iterable[Any]:
        """The Parameters."""
        return self._parameters.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """The names with their Parameters."""
        return self._parameters.items()

    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Add or replace Parameters by name."""
        for name, value in parameters.items():
            self[name] = value

    def __repr__(self) -> str:
        return _listed("ParameterDict", self._parameters)


def _listed(name: str, parameters: Mapping[str, Any]) -> str:
    lines = [
        f"  ({key}): Parameter of shape {tuple(p.shape)}, {p.dtype.name}"
        for key, p in parameters.items()
    ]
    return f"{name}()" if not lines else f"{name}(\n" + "\n".join(lines) + "\n)"
