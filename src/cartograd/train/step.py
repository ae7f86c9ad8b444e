"""The training step: forward, loss, backward, clipping, the optimiser's step, the average.

It is written once, here, and asks no Tensor for its value, so that it can be traced and compiled
as a whole (see `compiled`). `gradients` and `update` are its two halves: accumulation runs the
first several times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ShapeError, UsageError
from ..namespace.creation import asarray, ones_like
from ..namespace.searching import clip, where
from ..namespace.shaping import stack
from ..nn import Module
from ..optim import Optimizer
from ..optim.scalar import fit
from ..tensor import Parameter, Tensor, no_grad
from .batches import Batch
from .ema import EMA

__all__ = ["TrainStep", "gradient_norm"]

Loss = Callable[..., Tensor]
Factor = float | Tensor
"""A number, or in a compiled step a 0-d Tensor, so that another one needs no other program."""
_double = np.dtype(np.float64)


def gradient_norm(parameters: list[Parameter]) -> Tensor:
    """Return the 2-norm of all gradients together, 0-d float64, whatever their scale.

    Squares are added up in float64, where those of float32 and narrower can neither overflow nor
    vanish. Gradients that are float64 themselves are first divided by their largest |g| (by 1
    where that is 0). A NaN or infinity anywhere shows in the norm.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray([3e30, 4e30]))
    >>> (p * p).sum().backward()
    >>> float(gradient_norm([p])) > 9.9e30
    True
    """
    gradients = [p.grad for p in parameters if p.grad is not None and p.grad.size]
    if not gradients:
        return asarray(np.zeros((), _double))
    with no_grad():
        wide = [g.astype(_double) for g in gradients if g.dtype != _double]
        double = [g for g in gradients if g.dtype == _double]
        if not double:
            return stack([(g * g).sum() for g in wide]).sum().sqrt()
        peak = stack([g.abs().max() for g in wide + double]).max()
        scale = where(peak == 0, ones_like(peak), peak)
        parts = [g / scale for g in wide + double]
        return scale * stack([(p * p).sum() for p in parts]).sum().sqrt()


@dataclass(slots=True)
class TrainStep:
    """One step of training, as a function of a batch and of the States it changes.

    `loss(output, target)` must give a scalar. `forward(model, batch)`, where given, stands for
    calling the model. Gradients are clipped to a norm (together) or a value (each), if asked.

    >>> import cartograd as cg
    >>> from cartograd.train.batches import split_batch
    >>> model = cg.nn.Linear(2, 1)
    >>> step = TrainStep(model, cg.optim.SGD(model.parameters(), lr=0.1), cg.nn.MSELoss())
    >>> loss, output, norm = step(split_batch((cg.ones((4, 2)), cg.ones((4, 1)))))
    >>> loss.shape, output.shape, norm.shape
    ((), (4, 1), ())
    """

    model: Module
    optimizer: Optimizer | None = None
    loss: Loss | None = None
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    ema: EMA | None = None
    forward: Callable[[Module, Batch], Any] | None = None

    def __call__(self, batch: Batch) -> tuple[Tensor, Any, Tensor]:
        """Do the whole step on one batch; return the loss, the output and the gradients' norm."""
        loss, output = self.gradients(batch)
        norm = self.norm()
        self.update(norm)
        return loss, output, norm

    def evaluate(self, batch: Batch) -> tuple[Tensor, Any]:
        """Return the loss and the output of one batch."""
        if self.loss is None:
            raise UsageError("there is no loss: give one, as in Trainer(model, optimizer, loss)")
        output = self.predict(batch)
        loss = self.loss(output, batch.target)
        if not isinstance(loss, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"the loss must be a Tensor, but it is a {type(loss).__name__}")
        if loss.size != 1:
            raise ShapeError(
                f"the loss must be a scalar, but it has shape {loss.shape}; "
                "use a loss with reduction='mean', or take its mean"
            )
        return loss, output

    def predict(self, batch: Batch) -> Any:
        """Return the model's output on one batch."""
        if self.forward is not None:
            return self.forward(self.model, batch)
        return self.model(*batch.args, **batch.kwargs)

    def gradients(self, batch: Batch, share: Factor = 1.0) -> tuple[Tensor, Any]:
        """Add `share` times the loss's gradients to the parameters' `.grad`."""
        loss, output = self.evaluate(batch)
        (loss if _is_one(share) else loss * fit(share, loss)).backward()
        return loss.detach(), output

    def norm(self, scale: Factor = 1.0) -> Tensor:
        """Scale the gradients, if asked, and return their norm before clipping."""
        if not _is_one(scale):
            with no_grad():
                for parameter in self._with_gradient():
                    gradient: Any = parameter.grad
                    parameter.grad = gradient * fit(scale, gradient)
        return gradient_norm(self._with_gradient())

    def update(self, norm: Tensor) -> None:
        """Clip, let the optimiser step, clear the gradients, and take in the average."""
        if self.optimizer is None:
            raise UsageError("there is no optimizer: give one, as in Trainer(model, optimizer)")
        with no_grad():
            if self.clip_grad_norm is not None:
                self._clip_norm(norm, self.clip_grad_norm)
            if self.clip_grad_value is not None:
                limit = self.clip_grad_value
                for parameter in self._with_gradient():
                    parameter.grad = clip(parameter.grad, -limit, limit)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update()

    def _clip_norm(self, norm: Tensor, limit: float) -> None:
        """Multiply every gradient by min(1, limit / norm)."""
        factor = where(norm > limit, limit / norm, ones_like(norm))
        for parameter in self._with_gradient():
            gradient: Any = parameter.grad
            parameter.grad = gradient * factor.astype(gradient.dtype)

    def _with_gradient(self) -> list[Parameter]:
        return [p for p in self.model.parameters() if p.grad is not None]


def _is_one(factor: Factor) -> bool:
    """Whether a factor is the plain number 1, which is left out of the graph altogether."""
    return not isinstance(factor, Tensor) and factor == 1.0
