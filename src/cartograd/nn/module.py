"""Module: parameters, buffers and sub-modules with names, and a forward function.

It is PyTorch's Module in names and behaviour. Attributes that are a Parameter, a Buffer or a Module
register themselves. Calling a Module enters a scope of its name, so that every node of the graph
knows its layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, cast

from ..dtype import DType, as_dtype, bfloat16, float16, float32, float64, is_floating
from ..errors import UnsupportedError, UsageError
from ..functional._xp import xp
from ..graph import current_mode, scope, where_called
from ..runtime import WORLD
from ..tensor import Buffer, Parameter, State, Tensor
from .hooks import BackwardWatch, Hooks, RemovableHandle
from .state import IncompatibleKeys, convert, load

__all__ = ["Module", "as_args"]


def _not_defined(self: Module, *args: Any, **kwargs: Any) -> Any:
    raise UnsupportedError(
        f"{type(self).__name__} has no forward: define `def forward(self, ...)`{where_called()}"
    )


class Module:
    """The base of every layer and model.

    Subclass it, call `super().__init__()`, assign Parameters, Buffers and Modules to attributes,
    and define `forward`. Call the Module, not `forward`, so that hooks and scopes work.

    >>> import cartograd as cg
    >>> class Scale(cg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = cg.Parameter(cg.asarray(2.0))
    ...
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> model = Scale()
    >>> model(cg.asarray(3.0)).item()
    6.0
    >>> list(model.state_dict())
    ['factor']
    """

    training: bool
    optional_keys: frozenset[str] = frozenset()
    """Names of this Module's own state that may be absent from a loaded state_dict."""

    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]
    _transient: set[str]
    _name: str
    _forward_hooks: Hooks
    _forward_pre_hooks: Hooks
    _backward_hooks: Hooks
    _backward_pre_hooks: Hooks

    def __init__(self) -> None:
        own = self.__dict__
        own["training"] = True
        own["_parameters"] = {}
        own["_buffers"] = {}
        own["_modules"] = {}
        own["_transient"] = set[str]()  # names of buffers that state_dict leaves out
        own["_name"] = ""
        own["_forward_hooks"] = Hooks()
        own["_forward_pre_hooks"] = Hooks()
        own["_backward_hooks"] = Hooks()
        own["_backward_pre_hooks"] = Hooks()

    forward: Callable[..., Any] = _not_defined

    # --- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        trace = current_mode().trace
        if trace is not None:
            trace.enter(self)
        with scope(self._name or type(self).__name__):
            if self._forward_hooks or self._forward_pre_hooks or self._watches_backward():
                return self._call_with_hooks(args, kwargs)
            return self.forward(*args, **kwargs)

    def _watches_backward(self) -> bool:
        return bool(self._backward_hooks or self._backward_pre_hooks)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook, options in list(self._forward_pre_hooks.values()):
            if options["with_kwargs"]:
                changed = hook(self, args, kwargs)
                if changed is not None:
                    args, kwargs = changed
            else:
                changed = hook(self, args)
                if changed is not None:
                    args = as_args(changed)
        watch = None
        if self._watches_backward():
            watch = BackwardWatch(self, self._backward_pre_hooks, self._backward_hooks)
            args = watch.inputs(args)
        result = self.forward(*args, **kwargs)
        if watch is not None:
            result = watch.outputs(result)
        for hook, options in list(self._forward_hooks.values()):
            if options["with_kwargs"]:
                changed = hook(self, args, kwargs, result)
            else:
                changed = hook(self, args, result)
            if changed is not None:
                result = changed
        return result

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before forward; what it returns, if not None, replaces args.

        With `with_kwargs`, `hook(module, args, kwargs)`, which may return both.
        """
        return self._forward_pre_hooks.add(hook, prepend=prepend, with_kwargs=with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after forward; a result, if not None, replaces it.

        With `with_kwargs`, `hook(module, args, kwargs, output)`.
        """
        return self._forward_hooks.add(hook, prepend=prepend, with_kwargs=with_kwargs)

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when `backward` has both.

        They are tuples with a place for each positional argument and output, None for those that
        have no gradient. It is called when the gradient of the first differentiable argument is
        known. With one such argument, a result that is not None replaces its gradient.
        """
        return self._backward_hooks.add(hook, prepend=prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_output)` before `backward` goes through this Module.

        With one output, a result that is not None replaces its gradient.
        """
        return self._backward_pre_hooks.add(hook, prepend=prepend)

    # --- attributes

    def __getattr__(self, name: str) -> Any:
        # Only reached when the usual look-up fails.
        own = self.__dict__
        for kind in ("_parameters", "_buffers", "_modules"):
            found = own.get(kind)
            if found is not None and name in found:
                return found[name]
        hint = "" if "_modules" in own else "; call super().__init__() before anything else"
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}{hint}")

    def __setattr__(self, name: str, value: Any) -> None:
        WORLD.epoch += 1
        own = self.__dict__
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.add_module(name, value)
        elif isinstance(value, Buffer):
            self.register_buffer(name, value, persistent=name not in own.get("_transient", ()))
        elif name in own.get("_parameters", ()):
            if value is not None:
                raise UsageError(
                    f"{name} is a Parameter: change it with self.{name}.assign(value), or replace "
                    f"it with a cg.Parameter, not a {type(value).__name__}{where_called()}"
                )
            self._parameters[name] = None
        elif name in own.get("_buffers", ()):
            self._set_buffer(name, value)
        elif name in own.get("_modules", ()):
            if value is not None:
                raise UsageError(
                    f"{name} is a Module: replace it with a Module or None, not a "
                    f"{type(value).__name__}{where_called()}"
                )
            self._modules[name] = None
        else:
            object.__setattr__(self, name, value)

    def _set_buffer(self, name: str, value: Any) -> None:
        """A new value of a buffer: assigned to it where it fits, so that the State stays."""
        old = self._buffers[name]
        if value is not None and not isinstance(value, Tensor):
            raise UsageError(
                f"{name} is a Buffer: set it to a Tensor or None, not a "
                f"{type(value).__name__}{where_called()}"
            )
        if (
            isinstance(old, State)
            and value is not None
            and (old.shape, old.dtype) == (value.shape, value.dtype)
        ):
            old.assign(value)
        elif isinstance(old, State) and value is not None and not isinstance(value, State):
            self._buffers[name] = Buffer(value)
        else:
            self._buffers[name] = value

    def __delattr__(self, name: str) -> None:
        for kind in (self._parameters, self._buffers, self._modules):
            if name in kind:
                del kind[name]
                self._transient.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = [*self._parameters, *self._buffers, *self._modules]
        return sorted({*object.__dir__(self), *names})

    def _claim(self, name: str, kind: str) -> None:
        """Make `name` free to register: `kind` is the table it will be in."""
        own = self.__dict__
        if "_parameters" not in own:
            raise UsageError(
                f"{type(self).__name__}: call super().__init__() before assigning {name}"
                f"{where_called()}"
            )
        if not isinstance(name, str) or not name or "." in name:  # pyright: ignore
            raise UsageError(f"{name!r} is not a name without dots{where_called()}")
        if name in own:
            del own[name]
        elif hasattr(type(self), name) and not any(name in own[k] for k in _TABLES):
            raise UsageError(
                f"{type(self).__name__} already has an attribute {name!r}{where_called()}"
            )
        for table in _TABLES:
            if table != kind:
                own[table].pop(name, None)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a Parameter, or None for one that this Module goes without."""
        if param is not None and not isinstance(param, Parameter):  # pyright: ignore
            raise UsageError(
                f"register_parameter: {name} must be a cg.Parameter or None, not a "
                f"{type(param).__name__}{where_called()}"
            )
        self._claim(name, "_parameters")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a Buffer; a plain Tensor is wrapped. state_dict has it only if `persistent`."""
        if tensor is not None and not isinstance(tensor, Tensor):  # pyright: ignore
            raise UsageError(
                f"register_buffer: {name} must be a Tensor or None, not a "
                f"{type(tensor).__name__}{where_called()}"
            )
        self._claim(name, "_buffers")
        if tensor is not None and not isinstance(tensor, State):
            tensor = Buffer(tensor)
        self._buffers[name] = tensor
        if persistent:
            self._transient.discard(name)
        else:
            self._transient.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a sub-module, or None for one that this Module goes without."""
        if module is not None and not isinstance(module, Module):  # pyright: ignore
            raise UsageError(
                f"add_module: {name} must be a Module or None, not a "
                f"{type(module).__name__}{where_called()}"
            )
        self._claim(name, "_modules")
        self._modules[name] = module
        if module is not None:
            module._named(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """The same as `add_module`."""
        self.add_module(name, module)

    def _named(self, name: str) -> None:
        """Take the name under which nodes made here are recorded."""
        self.__dict__["_name"] = name

    # --- walking

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This Module and all below it, each with its path; one used twice comes once."""
        seen = set[Module]() if memo is None else memo
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if remove_duplicate:
                if module in seen:
                    continue
                seen.add(module)
            yield path, module
            children = [
                (f"{path}.{name}" if path else name, child)
                for name, child in module._modules.items()
                if child is not None
            ]
            stack.extend(reversed(children))

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This Module and all below it."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The Modules directly below this one, with their names; one used twice comes once."""
        seen = set[Module]()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The Modules directly below this one."""
        for _, child in self.named_children():
            yield child

    def _members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen = set[int]()
        modules: Iterable[tuple[str, Module]] = [(prefix, self)]
        if recurse:
            modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        for path, module in modules:
            for name, value in module.__dict__[table].items():
                if value is None or (remove_duplicate and id(value) in seen):
                    continue
                seen.add(id(value))
                yield (f"{path}.{name}" if path else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Each Parameter with its path; one used twice comes once."""
        return self._members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Each Parameter, for an optimiser."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Buffer]]:
        """Each Buffer with its path; one used twice comes once."""
        return self._members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Buffer]:
        """Each Buffer."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The Module at a path such as "encoder.layers.0"; "" is this one."""
        module: Module = self
        for name in target.split(".") if target else ():
            child = module._modules.get(name)
            if child is None:
                known = ", ".join(module._modules) or "none"
                raise AttributeError(
                    f"{type(module).__name__} has no sub-module {name!r} (of {target!r}); it has: "
                    f"{known}"
                )
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The Parameter at a path such as "encoder.0.weight"."""
        return self._get("_parameters", "Parameter", target)

    def get_buffer(self, target: str) -> Buffer:
        """The Buffer at a path such as "encoder.0.running_mean"."""
        return self._get("_buffers", "Buffer", target)

    def _get(self, table: str, kind: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        found = self.get_submodule(path).__dict__[table].get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no {kind} {target!r}")
        return found

    def apply(self, fn: Callable[[Module], object]) -> Self:
        """Call `fn(module)` for every Module, those below first; returns this Module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def facts(self) -> dict[Any, Any]:
        """What a compiled function takes for granted of this Module: see `runtime.Watched`."""
        own = self.__dict__
        found: dict[Any, Any] = {k: v for k, v in own.items() if isinstance(v, _PLAIN)}
        for table in _TABLES:
            found.update(((table, name), value) for name, value in own[table].items())
        return found

    # --- modes and gradients

    def train(self, mode: bool = True) -> Self:
        """Set every Module to training mode (dropout drops, batch norm uses the batch)."""
        if not isinstance(mode, bool):  # pyright: ignore
            raise UsageError(f"train(mode) takes True or False, not {mode!r}{where_called()}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set every Module to evaluation mode; returns this Module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for the gradients of every Parameter, or stop asking."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient of every Parameter, or set it to zero."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad = xp.zeros_like(parameter.detach())

    # --- dtypes

    def to(self, *args: Any, dtype: Any = None, device: Any = None) -> Self:
        """Convert every floating Parameter and Buffer to a dtype, in place; device is "cpu".

        Parameters stay the same objects, so an optimiser keeps them; their gradients are dropped.
        """
        for arg in args:
            if isinstance(arg, Tensor):
                dtype = arg.dtype
            elif arg == "cpu":
                device = arg
            else:
                dtype = arg
        if device not in (None, "cpu"):
            raise UsageError(f"there is no device {device!r}: everything is on 'cpu'")
        return self if dtype is None else self._cast(as_dtype(dtype))

    def type(self, dst_type: Any) -> Self:
        """Convert as `to(dtype)` does."""
        return self.to(dtype=dst_type)

    def float(self) -> Self:
        """Convert to float32."""
        return self._cast(float32)

    def double(self) -> Self:
        """Convert to float64."""
        return self._cast(float64)

    def half(self) -> Self:
        """Convert to float16."""
        return self._cast(float16)

    def bfloat16(self) -> Self:
        """Convert to bfloat16."""
        return self._cast(bfloat16)

    def cpu(self) -> Self:
        """This Module: everything is on the CPU."""
        return self

    def _cast(self, dtype: DType) -> Self:
        if not is_floating(dtype):
            raise UsageError(
                f"a Module can be converted to a floating dtype only, not {dtype.name}"
                f"{where_called()}"
            )
        for state in [*self.parameters(), *self.buffers()]:
            convert(state, dtype)
        return self

    # --- state

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Every Parameter and persistent Buffer by its path, as Tensors without history.

        Their values are those of now: a later step does not change them. With `keep_vars`, the
        Parameters and Buffers themselves.
        """
        found: dict[str, Tensor] = {}
        for path, module in self.named_modules(prefix=prefix, remove_duplicate=False):
            for name, state in module._state():
                key = f"{path}.{name}" if path else name
                found[key] = state if keep_vars else state.detach()
        return found

    def _state(self) -> Iterator[tuple[str, State]]:
        """This Module's own Parameters and persistent Buffers."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield name, parameter
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._transient:
                yield name, buffer

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Assign values by path to the Parameters and Buffers, converted to their dtypes.

        Values are Tensors or NumPy arrays. Everything is checked before anything changes: shapes
        that differ raise ShapeError, and with `strict`, keys that are missing or have no place
        raise UsageError; the message lists all of them. With `assign`, dtypes are taken from the
        values instead.
        """
        wanted: dict[str, State] = {}
        optional = set[str]()
        for path, module in self.named_modules(remove_duplicate=False):
            for name, state in module._state():
                key = f"{path}.{name}" if path else name
                wanted[key] = state
                if name in module.optional_keys:
                    optional.add(key)
        return load(type(self).__name__, wanted, optional, state_dict, strict, assign)

    # --- looking

    def extra_repr(self) -> str:
        """What repr shows between the parentheses; layers override it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        below = [f"({name}): {_indented(repr(child))}" for name, child in self._modules.items()]
        if not below:
            if len(lines) <= 1:
                return f"{type(self).__name__}({extra})"
            below = []
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines + below) + "\n)"


_TABLES = ("_parameters", "_buffers", "_modules")
_PLAIN = (bool, int, float, str, type(None))


def _indented(text: str) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *("  " + line for line in rest)])


def as_args(given: Any) -> tuple[Any, ...]:
    """A tuple of arguments as it is; anything else as the only argument."""
    return cast("tuple[Any, ...]", given) if isinstance(given, tuple) else (given,)
