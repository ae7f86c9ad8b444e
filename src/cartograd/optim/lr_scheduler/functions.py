"""Schedules given by the user's own functions of the step."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import UsageError
from ..optimizer import Optimizer
from .base import LRScheduler, check_optimizer

__all__ = ["LambdaLR", "MultiplicativeLR", "load_function", "saved_function"]

Function = Callable[[int], float]


def saved_function(function: object) -> dict[str, Any] | None:
    """The attributes of a callable object; None for a function, which cannot be saved.

    >>> saved_function(len) is None
    True
    """
    if isinstance(function, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return None
    return dict(vars(function)) if hasattr(function, "__dict__") else None


def load_function(function: object, saved: Mapping[str, Any] | None) -> None:
    """Give a callable object its saved attributes back.

    >>> load_function(len, None)
    """
    if saved is not None:
        vars(function).update(saved)


class _FunctionLR(LRScheduler):
    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Function | Sequence[Function],
        last_epoch: int = -1,
    ) -> None:
        groups = len(check_optimizer(optimizer).param_groups)
        many: list[Function] = (
            list(lr_lambda) if isinstance(lr_lambda, (list, tuple)) else [lr_lambda] * groups  # pyright: ignore[reportUnknownArgumentType, reportAssignmentType]
        )
        self.lr_lambdas = many
        if len(self.lr_lambdas) != groups:
            raise UsageError(
                f"lr_lambda has {len(self.lr_lambdas)} functions, but there are {groups} groups"
            )
        for function in self.lr_lambdas:
            if not callable(function):
                raise UsageError(f"lr_lambda must be a function, but is {function!r}")
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """As for every schedule; of the functions, only callable objects' attributes are kept."""
        saved = super().state_dict()
        saved["lr_lambdas"] = [saved_function(function) for function in self.lr_lambdas]
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As for every schedule; the functions stay, and callable objects get their attributes."""
        functions = self.lr_lambdas
        saved: Sequence[Mapping[str, Any] | None] = state_dict.get("lr_lambdas", [])
        super().load_state_dict(state_dict)
        self.lr_lambdas = functions
        for function, attributes in zip(functions, saved, strict=True):
            load_function(function, attributes)


class LambdaLR(_FunctionLR):
    """base_lr * lr_lambda(step); one function for all groups, or a list of them.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> schedule = LambdaLR(opt, lambda step: 1.0 / (1 + step))
    >>> schedule.step(epoch=3)
    >>> schedule.get_last_lr()
    [0.25]
    """

    def get_lr(self) -> list[float]:
        """base_lr times the function's value at this step."""
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [lr * function(self.last_epoch) for lr, function in pairs]


class MultiplicativeLR(_FunctionLR):
    """The present rate * lr_lambda(step), at every step after the first.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> MultiplicativeLR(opt, lambda step: 0.5).get_last_lr()
    [1.0]
    """

    def get_lr(self) -> list[float]:
        """The present rate times the function's value at this step."""
        if self._is_initial:
            return self._present()
        pairs = zip(self._present(), self.lr_lambdas, strict=True)
        return [lr * function(self.last_epoch) for lr, function in pairs]
