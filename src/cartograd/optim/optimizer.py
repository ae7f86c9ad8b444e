"""The optimiser that users hold: parameters in groups, a step, hooks, and a saved state.

    optimizer = cg.optim.AdamW(model.parameters(), lr=1e-3)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

The whole step can be traced: every number it changes is a State that changes only by `assign`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, ClassVar, cast

from .. import namespace as xp
from ..dtype import is_floating
from ..errors import GradientError, UsageError
from ..graph import current_mode, scope
from ..tensor import State, Tensor, enable_grad, no_grad
from .hooks import HookHandle, Hooks
from .param_group import NOTES, ParamGroup, option_error
from .rule import PASSIVE, Rule, Values
from .states import States

__all__ = ["Optimizer", "Params"]

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Mapping[str, Any]]
"""Parameters; or (name, parameter) pairs; or groups: mappings with "params" and options."""


class Optimizer:
    """The base of every optimiser: subclasses give a `rule` and their default options.

    `params` is an iterable of Parameters, of (name, Parameter) pairs, or of mappings with a
    "params" key and options for that group. Raises UsageError for an empty list, a parameter
    given twice, a Tensor that is not a leaf or cannot be assigned to, and options out of range.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray([1.0, 2.0]))
    >>> opt = cg.optim.SGD([p], lr=0.5)
    >>> (p * p).sum().backward()
    >>> opt.step()
    >>> p.numpy().tolist()
    [0.0, 0.0]
    """

    rule: ClassVar[Rule]

    def __init__(self, params: Params, defaults: Mapping[str, Any]) -> None:
        self.defaults: Values = dict(defaults)
        self.param_groups: list[ParamGroup] = []
        self.state = States()
        self.step_calls = 0
        self._step_hooks = (Hooks(), Hooks())
        self._save_hooks = (Hooks(), Hooks())
        self._load_hooks = (Hooks(), Hooks())
        for group in _as_groups(params, type(self).__name__):
            self.add_param_group(group)

    # ---- groups -------------------------------------------------------------------------------

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own; options not given take the defaults.

        Raises UsageError for unknown options and for parameters that another group has.

        >>> import cartograd as cg
        >>> a, b = cg.Parameter(cg.ones(2)), cg.Parameter(cg.ones(3))
        >>> opt = cg.optim.SGD([a], lr=0.1)
        >>> opt.add_param_group({"params": [b], "lr": 0.01})
        >>> [group["lr"] for group in opt.param_groups]
        [0.1, 0.01]
        """
        given = dict(param_group)
        if "params" not in given:
            raise UsageError(f"a parameter group needs a 'params' key; it has {sorted(given)}")
        params, names = _members(given.pop("params"))
        for key in given:
            if key not in self.defaults and key not in NOTES:
                raise option_error(key, self._options())
        values: Values = self.defaults | given
        if names:
            values["param_names"] = names
        self._check_params(params, names)
        group = ParamGroup(params, self._options(), values)
        self.rule.check(group.hyper(False))
        self.param_groups.append(group)
        for p in params:
            if p.requires_grad:
                self.state.prepare(p, self.rule.slots(group.hyper(False)))

    def _options(self) -> dict[str, Any]:
        known = dict(self.rule.options) | PASSIVE
        return {key: known[key] for key in self.defaults}

    def _check_params(self, params: list[State], names: list[str]) -> None:
        labels = names or [str(i) for i in range(len(params))]
        seen = {id(p) for group in self.param_groups for p in group.params}
        for p, label in zip(params, labels, strict=True):
            _check_param(p, label)
            self.rule.check_shape(p.shape)
            if id(p) in seen:
                raise UsageError(
                    f"the parameter {label} of shape {p.shape} is given twice: an optimiser "
                    "holds each parameter once, in one group"
                )
            seen.add(id(p))

    # ---- the step -----------------------------------------------------------------------------

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient; return what the closure returned, if given.

        `closure` clears the gradients, computes the loss, calls `backward` and returns the loss.
        Raises GradientError when no parameter at all has a gradient.
        """
        for hook in self._step_hooks[0]:
            hook(self, (closure,), {})
        loss: Tensor | None = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad(), scope(type(self).__name__):
            self._update()
        self.step_calls += 1
        for hook in self._step_hooks[1]:
            hook(self, (closure,), {})
        return loss

    def _update(self) -> None:
        ready = [[p for p in group.params if p.grad is not None] for group in self.param_groups]
        if not any(ready):
            raise self._no_gradient()
        traced = current_mode().staging
        for group, params in zip(self.param_groups, ready, strict=True):
            options = group.hyper(traced)
            slots = self.rule.slots(options)
            for p in params:
                cells = self.state.prepare(p, slots)
                old = self.state.read(cells, slots, traced)
                new_p, new = self.rule.apply(p, _gradient(p), old, options)
                p.assign(new_p)
                self.state.write(cells, new)

    def _no_gradient(self) -> GradientError:
        labels = [
            label
            for group in self.param_groups
            for label in group.get("param_names") or [str(p.shape) for p in group.params]
        ]
        shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
        return GradientError(
            f"{type(self).__name__}.step: none of the {len(labels)} parameters has a gradient "
            f"({shown}); call loss.backward() first, on a loss that depends on them"
        )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients: to None, or to zeros where there was one.

        >>> import cartograd as cg
        >>> p = cg.Parameter(cg.ones(2))
        >>> p.sum().backward()
        >>> cg.optim.SGD([p]).zero_grad()
        >>> p.grad is None
        True
        """
        for group in self.param_groups:
            for p in group.params:
                if p.grad is not None:
                    p.grad = None if set_to_none else xp.zeros_like(p.grad)

    # ---- saving -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state in PyTorch's layout: {"state": {index: {name: Tensor}}, "param_groups": [...]}.

        Parameters are numbered through the groups in order. The Tensors are snapshots: later
        steps do not change them.

        >>> import cartograd as cg
        >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=0.1, momentum=0.9)
        >>> saved = opt.state_dict()
        >>> list(saved["state"][0]), saved["param_groups"][0]["params"]
        (['momentum_buffer'], [0])
        """
        for hook in self._save_hooks[0]:
            hook(self)
        state: dict[int, Any] = {}
        groups: list[Values] = []
        index = 0
        for group in self.param_groups:
            packed: Values = {key: group[key] for key in group if key != "params"}
            packed["params"] = list(range(index, index + len(group.params)))
            groups.append(packed)
            for p in group.params:
                if (saved := self._save_param(p)) is not None:
                    state[index] = saved
                index += 1
        result: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in self._save_hooks[1]:
            changed = hook(self, result)
            result = result if changed is None else changed
        return result

    def _save_param(self, p: State) -> Values | None:
        return self.state.save(p)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state saved by `state_dict`, of Cartograd or of PyTorch.

        Nothing changes unless everything fits: raises UsageError when the groups, the numbers of
        parameters, the state's names or its shapes differ from this optimiser's.
        """
        for hook in self._load_hooks[0]:
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        groups = self._checked_groups(state_dict)
        entries: Mapping[int, Any] = state_dict["state"]
        loads: list[Callable[[], None]] = []
        for group, saved in zip(self.param_groups, groups, strict=True):
            options = group.checked(saved)
            for p, index in zip(group.params, saved["params"], strict=True):
                loads.append(self._plan_load(p, len(loads), entries.get(index), options))
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update({key: value for key, value in saved.items() if key in group.settable})
        for load in loads:
            load()
        for hook in self._load_hooks[1]:
            hook(self)

    def _plan_load(
        self, p: State, position: int, entry: Mapping[str, Any] | None, options: Values
    ) -> Callable[[], None]:
        return self.state.plan_load(p, position, entry, self.rule.slots(options))

    def _checked_groups(self, state_dict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        if not {"state", "param_groups"} <= set(state_dict):
            raise UsageError(
                "an optimiser's state_dict has the keys 'state' and 'param_groups', but this has "
                f"{sorted(map(str, state_dict))}"
            )
        groups: list[Mapping[str, Any]] = list(state_dict["param_groups"])
        have = [len(group.params) for group in self.param_groups]
        given = [len(saved["params"]) for saved in groups]
        if have != given:
            raise UsageError(
                f"the saved optimiser has parameter groups of {given} parameters, but this one "
                f"has {have}"
            )
        for saved in groups:
            unknown = [k for k in saved if k not in self.defaults and k not in NOTES | {"params"}]
            unknown = [key for key in unknown if key not in PASSIVE]
            if unknown:
                raise option_error(unknown[0], self._options())
        return groups

    # ---- hooks --------------------------------------------------------------------------------

    @property
    def has_step_hooks(self) -> bool:
        """Whether anything is called before or after each step.

        >>> import cartograd as cg
        >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))])
        >>> handle = opt.register_step_post_hook(print)
        >>> opt.has_step_hooks
        True
        """
        return any(True for hooks in self._step_hooks for _ in hooks)

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(optimizer, args, kwargs)` before each step; the handle's `remove` ends it."""
        return self._step_hooks[0].add(hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return self._step_hooks[1].add(hook)

    def register_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> HookHandle:
        """Call `hook(optimizer)` before the state is saved."""
        return self._save_hooks[0].add(hook, first=prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> HookHandle:
        """Call `hook(optimizer, saved)` after saving; what it returns, if not None, is used."""
        return self._save_hooks[1].add(hook, first=prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> HookHandle:
        """Call `hook(optimizer, saved)` first; what it returns, if not None, is loaded instead."""
        return self._load_hooks[0].add(hook, first=prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> HookHandle:
        """Call `hook(optimizer)` after a state has been loaded."""
        return self._load_hooks[1].add(hook, first=prepend)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _gradient(p: State) -> Tensor:
    g = cast(Tensor, p.grad)
    if g.shape != p.shape or g.dtype != p.dtype:
        raise GradientError(
            f"the gradient of a parameter of shape {p.shape} and dtype {p.dtype.name} has shape "
            f"{g.shape} and dtype {g.dtype.name}: what was assigned to .grad does not fit"
        )
    return g


def _ordered(params: Any) -> list[Any]:
    """The items of an iterable whose order is that of every run, so that a state fits again."""
    if isinstance(params, Set):
        raise UsageError("a set of parameters has no order: give a list, not a set")
    return list(params)


def _as_groups(params: Any, optimizer: str) -> list[Mapping[str, Any]]:
    if isinstance(params, (Tensor, Mapping, str)):
        raise UsageError(
            f"{optimizer} takes an iterable of parameters or of groups, such as "
            f"model.parameters(), but got one {type(cast(object, params)).__name__}"
        )
    items = _ordered(params)
    if not items:
        raise UsageError(f"{optimizer} got an empty list of parameters")
    if all(isinstance(item, Mapping) for item in items):
        return items
    return [{"params": items}]


def _members(params: Any) -> tuple[list[State], list[str]]:
    """A group's parameters, and their names if they came as (name, parameter) pairs."""
    items: list[Any] = [params] if isinstance(params, Tensor) else _ordered(params)
    if not items:
        raise UsageError("a parameter group got an empty list of parameters")
    named = [isinstance(item, tuple) for item in items]
    if not any(named):
        return items, []
    if not all(named):
        raise UsageError("a parameter group mixes parameters with (name, parameter) pairs")
    return [p for _, p in items], [str(name) for name, _ in items]


def _check_param(p: object, label: str) -> None:
    if not isinstance(p, Tensor):
        raise UsageError(
            f"an optimiser takes Parameters, but parameter {label} is a {type(p).__name__}"
        )
    if not p.is_leaf:
        raise UsageError(
            f"the parameter {label} of shape {p.shape} is the result of an operation (not a "
            "leaf), so assigning to it would change nothing: give the Parameter it came from"
        )
    if not isinstance(p, State):
        raise UsageError(
            f"the parameter {label} of shape {p.shape} is a plain Tensor, which never changes: "
            "make it with cg.Parameter(value)"
        )
    if not is_floating(p.dtype):
        raise UsageError(
            f"the parameter {label} has dtype {p.dtype}: only floating parameters can be trained"
        )
