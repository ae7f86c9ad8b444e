"""Convolution kernels: which generator makes the code of a convolution."""

from __future__ import annotations

from ..ir import Module
from .conv_plain import emit_plain
from .conv_spec import ConvSpec, Epilogue, Stores
from .gemm_plan import Core
from .strided import KernelCode

__all__ = ["ConvSpec", "Epilogue", "KernelCode", "emit_conv"]


def emit_conv(
    module: Module,
    name: str,
    spec: ConvSpec,
    core: Core | None = None,
    epilogue: Epilogue | None = None,
) -> KernelCode:
    """Write the functions of a convolution and say how to call them.

    They take the pointers x, w, then y (or those of the epilogue, which is then given the results
    in place of y), then scratch, if the code needs any.
    """
    return emit_plain(module, name, spec, epilogue or Stores(spec.y))
