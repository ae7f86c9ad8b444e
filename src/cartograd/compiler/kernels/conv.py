"""Convolution kernels: which generator makes the code of a convolution."""

from __future__ import annotations

from math import prod

from ...dtype import is_floating
from ..ir import Module
from .conv_forward import emit_forward
from .conv_plain import emit_plain
from .conv_reduce import emit_reduce
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

    >>> import numpy as np
    >>> from cartograd.compiler.kernels.strided import Strided
    >>> x, w, y = (
    ...     Strided.packed(shape, np.dtype("float32"))
    ...     for shape in [(8, 3, 16, 16), (4, 3, 3, 3), (8, 4, 16, 16)]
    ... )
    >>> spec = ConvSpec(x, w, y, (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1))
    >>> emit_conv(Module(), "stem", spec).phases
    (('stem_pack', 1), ('stem', 8))
    """
    store = epilogue or Stores(spec.y)
    if _has_tiles(spec) and prod(spec.size) > prod(spec.places):
        return emit_reduce(module, name, spec, core or Core(), store)
    if _has_tiles(spec):
        return emit_forward(module, name, spec, core or Core(), store)
    return emit_plain(module, name, spec, store)


def _has_tiles(spec: ConvSpec) -> bool:
    """Whether the kernels made of tiles do this one."""
    axes = len(spec.strides)
    deep_zeros = axes == 3 and spec.x_dilation[0] != 1
    elements = spec.x.size and spec.w.size and spec.y.size
    return bool(is_floating(spec.dtype) and elements and axes <= 3 and not deep_zeros)
