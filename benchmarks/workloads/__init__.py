"""Training steps to be timed: the same models in Cartograd, PyTorch and JAX, side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import images, in_jax, in_modules, mlps, science, sequences
from .spec import Workload

__all__ = ["LIBRARIES", "MORE", "NAMED", "Workload", "build", "find"]

LIBRARIES = ("cartograd", "torch", "torch.compile", "jax")

# The eight that PERFORMANCE names, in its order, and the others.
NAMED = (*mlps.NAMED, *images.NAMED, *sequences.NAMED, *science.NAMED)
MORE = (*mlps.MORE, *images.MORE, *sequences.MORE, *science.MORE)


def find(name: str) -> Workload:
    """The workload of this name; sweep-LAYERS-WIDTH-BATCH is an MLP of those sizes."""
    if name.startswith("sweep-"):
        return mlps.swept(*(int(part) for part in name.split("-")[1:]))
    for workload in (*NAMED, *MORE):
        if workload.name == name:
            return workload
    raise KeyError(name)


def build(workload: Workload, options: Any) -> Callable[[], Any]:
    """A step without arguments in the library that the options name; it returns the loss."""
    weights, batch = workload.numbers()
    library = options.library
    if workload.steps is not None:
        return workload.steps[library](workload, weights, batch, options)
    if library == "cartograd":
        return in_modules.cartograd_step(workload, weights, batch, options)
    if library == "jax":
        return in_jax.jax_step(workload, weights, batch, options)
    return in_modules.torch_step(workload, weights, batch, options)
