"""L-BFGS with the strong Wolfe line search of `line_search.py` (Liu and Nocedal 1989).

It looks at the loss and at inner products to decide how far to go, so it needs values: it runs in
eager mode only, and says so when traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import namespace as xp
from ..errors import TraceError, UsageError
from ..graph import current_mode
from ..tensor import State, Tensor, enable_grad, no_grad
from .line_search import Array, strong_wolfe
from .optimizer import Optimizer, Params
from .rule import Fixed, Live, Rule, Slot, Values

__all__ = ["LBFGS"]

Closure = Callable[[], Tensor]


@dataclass(slots=True)
class _Memory:
    """What L-BFGS remembers between iterations; the flat vectors have one entry a number."""

    func_evals: int = 0
    n_iter: int = 0
    d: Array | None = None  # the last direction
    t: float = 0.0  # the last step length
    prev_flat_grad: Array | None = None
    prev_loss: float = 0.0
    H_diag: float = 1.0  # the scale of the first guess of the inverse Hessian
    old_dirs: list[Array] = field(default_factory=list[Array])  # differences of gradients
    old_stps: list[Array] = field(default_factory=list[Array])  # steps taken
    ro: list[float] = field(default_factory=list[float])  # 1 / (difference . step)

    def remember(self, grad: Array, history: int) -> None:
        """Take in how the gradient changed over the last step, if the curvature is positive."""
        if self.d is None or self.prev_flat_grad is None:
            return
        y, s = grad - self.prev_flat_grad, self.d * grad.dtype.type(self.t)
        ys = float(y @ s)
        if ys > 1e-10:
            if len(self.old_dirs) == history:
                del self.old_dirs[0], self.old_stps[0], self.ro[0]
            self.old_dirs.append(y)
            self.old_stps.append(s)
            self.ro.append(1.0 / ys)
            self.H_diag = ys / float(y @ y)

    def direction(self, grad: Array) -> Array:
        """Minus the inverse Hessian's estimate times the gradient: the two-loop recursion."""
        number = grad.dtype.type
        q, alphas = -grad, list[float]()
        pairs = list(zip(self.old_dirs, self.old_stps, self.ro, strict=True))
        for y, s, ro in reversed(pairs):
            alphas.append(float(s @ q) * ro)
            q = q - number(alphas[-1]) * y
        r = q * number(self.H_diag)
        for (y, s, ro), alpha in zip(pairs, reversed(alphas), strict=True):
            r = r + number(alpha - float(y @ r) * ro) * s
        return r


def _no_slots(options: Values) -> dict[str, Slot]:
    return {}


def _not_separable(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    raise UsageError("L-BFGS updates all parameters together: call LBFGS.step(closure)")


class LBFGS(Optimizer):
    """A quasi-Newton method: each step makes up to `max_iter` iterations, calling the closure.

    `step(closure)` needs a closure that clears the gradients, computes the loss, calls `backward`
    and returns the loss; it returns the loss at the start of the step. One parameter group only.
    `line_search_fn` is None (steps of lr) or "strong_wolfe". PyTorch's arguments, defaults,
    stopping rules and state. Raises TraceError when traced: it branches on values.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray([3.0, -2.0]))
    >>> opt = cg.optim.LBFGS([p], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = (p * p * cg.asarray([1.0, 10.0])).sum()
    ...     loss.backward()
    ...     return loss
    >>> first = opt.step(closure)
    >>> closure().item() < 1e-8
    True
    """

    rule = Rule(
        "LBFGS",
        {
            "lr": Live(),
            "max_iter": Fixed((int,), low=1),
            "max_eval": Fixed((int,), low=1),
            "tolerance_grad": Live(),
            "tolerance_change": Live(),
            "history_size": Fixed((int,), low=1),
            "line_search_fn": Fixed((str, type(None)), (None, "strong_wolfe")),
        },
        _no_slots,
        _not_separable,
    )

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        defaults: Values = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        self._memory = _Memory()

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Only the constructor may add a group, and one only."""
        if self.param_groups:
            raise UsageError("LBFGS has one parameter group: its step couples all parameters")
        super().add_param_group(param_group)

    def step(self, closure: Closure | None = None) -> Tensor:
        """Up to `max_iter` iterations; returns the loss before the first of them."""
        if closure is None:
            raise UsageError("LBFGS.step needs a closure that returns the loss: it calls it often")
        if current_mode().staging:
            raise TraceError(
                "LBFGS.step branches on the loss's value, so it cannot be traced or compiled: run "
                "it eagerly (the closure may call a compiled function)"
            )
        for hook in self._step_hooks[0]:
            hook(self, (closure,), {})
        with no_grad():
            loss = self._minimise(closure)
        self.step_calls += 1
        for hook in self._step_hooks[1]:
            hook(self, (closure,), {})
        return loss

    def _minimise(self, closure: Closure) -> Tensor:
        group, memory = self.param_groups[0], self._memory
        lr, tiny = group["lr"], group["tolerance_change"]

        first_loss = _call(closure)
        loss, grad = float(first_loss), self._flat_grad()
        evals = 1
        memory.func_evals += 1
        if _largest(grad) <= group["tolerance_grad"]:
            return first_loss

        for iteration in range(1, group["max_iter"] + 1):
            memory.n_iter += 1
            if memory.n_iter > 1:
                memory.remember(grad, group["history_size"])
            d = memory.d = memory.direction(grad)
            prev_loss = memory.prev_loss = loss
            memory.prev_flat_grad = grad
            start = min(1.0, 1.0 / float(np.abs(grad).sum())) if memory.n_iter == 1 else 1.0
            memory.t = start * lr

            slope = float(grad @ d)
            if slope > -tiny:
                break
            calls = 0
            if group["line_search_fn"] is not None:
                x = self._flat_params()
                loss, grad, memory.t, calls = strong_wolfe(
                    lambda t, x=x, d=d: self._evaluate(closure, x, t, d),
                    (memory.t, loss, grad, slope),
                    d_norm=_largest(d),
                    direction=d,
                    max_calls=group["max_eval"] - evals,
                )
                self._move_to(x, memory.t, d)
            else:
                self._move_to(self._flat_params(), memory.t, d)
                if iteration != group["max_iter"]:
                    loss, grad, calls = float(_call(closure)), self._flat_grad(), 1
            evals += calls
            memory.func_evals += calls
            if (
                evals >= group["max_eval"]
                or _largest(grad) <= group["tolerance_grad"]
                or _largest(d * d.dtype.type(memory.t)) <= tiny
                or abs(loss - prev_loss) < tiny
                or not math.isfinite(loss)
            ):
                break
        return first_loss

    # ---- parameters and gradients as one flat vector --------------------------------------------

    def _flat(self, arrays: list[Array]) -> Array:
        wide = any(p.dtype == np.float64 for p in self.param_groups[0].params)
        dtype = np.float64 if wide else np.float32
        return np.concatenate([array.ravel().astype(dtype) for array in arrays])

    def _flat_grad(self) -> Array:
        params = self.param_groups[0].params
        if all(p.grad is None for p in params):
            raise self._no_gradient()
        return self._flat([np.zeros(p.size) if p.grad is None else p.grad.numpy() for p in params])

    def _flat_params(self) -> Array:
        return self._flat([p.numpy() for p in self.param_groups[0].params])

    def _move_to(self, x: Array, t: float, d: Array) -> None:
        """Set the parameters to x + t * d."""
        flat, offset = x + x.dtype.type(t) * d, 0
        for p in self.param_groups[0].params:
            p.assign(flat[offset : offset + p.size].reshape(p.shape).astype(p.dtype, copy=False))
            offset += p.size

    def _evaluate(self, closure: Closure, x: Array, t: float, d: Array) -> tuple[float, Array]:
        self._move_to(x, t, d)
        return float(_call(closure)), self._flat_grad()

    # ---- saving ---------------------------------------------------------------------------------

    def _save_param(self, p: State) -> Values | None:
        if p is not self.param_groups[0].params[0] or self._memory.func_evals == 0:
            return None
        m = self._memory
        vectors = {"d": m.d, "prev_flat_grad": m.prev_flat_grad}
        saved: Values = {
            "func_evals": m.func_evals,
            "n_iter": m.n_iter,
            "t": m.t,
            "prev_loss": m.prev_loss,
            "H_diag": m.H_diag,
            "ro": list(m.ro),
            "old_dirs": [xp.asarray(y.copy()) for y in m.old_dirs],
            "old_stps": [xp.asarray(s.copy()) for s in m.old_stps],
        }
        saved |= {k: None if v is None else xp.asarray(v.copy()) for k, v in vectors.items()}
        return saved

    def _plan_load(
        self, p: State, position: int, entry: Mapping[str, Any] | None, options: Values
    ) -> Callable[[], None]:
        if position > 0:
            return lambda: None
        total = sum(q.size for q in self.param_groups[0].params)
        memory = _memory_of(entry or {}, total)

        def load() -> None:
            self._memory = memory

        return load


def _memory_of(entry: Mapping[str, Any], total: int) -> _Memory:
    """The memory that a saved entry describes; raises UsageError for vectors of a wrong length."""

    def vector(value: Any) -> Array:
        array = np.array(value.numpy() if isinstance(value, Tensor) else value)
        if array.shape != (total,):
            raise UsageError(
                f"the saved L-BFGS state has a vector of shape {array.shape}, but the parameters "
                f"have {total} numbers"
            )
        return array

    def vectors(key: str) -> list[Array]:
        values: list[Any] = entry.get(key) or []
        return [vector(value) for value in values]

    def optional(key: str) -> Array | None:
        return None if entry.get(key) is None else vector(entry[key])

    curvatures: list[Any] = entry.get("ro") or []
    return _Memory(
        func_evals=int(entry.get("func_evals", 0)),
        n_iter=int(entry.get("n_iter", 0)),
        d=optional("d"),
        t=float(entry.get("t") or 0.0),
        prev_flat_grad=optional("prev_flat_grad"),
        prev_loss=float(entry.get("prev_loss") or 0.0),
        H_diag=float(entry.get("H_diag", 1.0)),
        old_dirs=vectors("old_dirs"),
        old_stps=vectors("old_stps"),
        ro=[float(r) for r in curvatures],
    )


def _call(closure: Closure) -> Tensor:
    with enable_grad():
        loss = closure()
    if not isinstance(loss, Tensor) or loss.size != 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError("the closure given to LBFGS.step must return the loss, a 0-d Tensor")
    return loss


def _largest(x: Array) -> float:
    return float(np.abs(x).max()) if x.size else 0.0
