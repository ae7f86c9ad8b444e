"""Cartograd: an automatic-differentiation and training engine that makes the graph the product.

>>> import cartograd as cg
>>> x, y, z = (cg.asarray(v, requires_grad=True) for v in (-2.0, 5.0, -4.0))
>>> f = (x + y) * z
>>> f.backward()
>>> x.grad.item(), y.grad.item(), z.grad.item()
(-4.0, -4.0, 3.0)
"""

from __future__ import annotations

import math as _math
import sys as _sys
from importlib import import_module as _import_module
from typing import Any as _Any

from . import errors as errors
from . import functional as functional
from . import linalg as linalg
from . import nn as nn
from . import ops as ops
from . import optim as optim
from . import random as random
from . import serialize as serialize
from . import tree as tree
from .control import (
    checkpoint,
    cond,
    custom_jvp,
    custom_vjp,
    scan,
    stop_gradient,
    while_loop,
)
from .dtype import (
    bfloat16,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    isdtype,
    uint8,
    uint16,
    uint32,
    uint64,
)
from .dtype import bool_ as bool
from .functional import log_softmax, logsumexp, one_hot, softmax
from .graph import Graph, Node, Origin
from .namespace import FUNCTIONS as _FUNCTIONS
from .namespace.einsum import einsum
from .namespace.info import ArrayNamespaceInfo as _ArrayNamespaceInfo
from .namespace.methods import attach as _attach
from .random import manual_seed
from .tensor import (
    Buffer,
    Parameter,
    State,
    Tensor,
    enable_grad,
    is_grad_enabled,
    no_grad,
)
from .trace import trace
from .transforms import (
    grad,
    hessian,
    hvp,
    jacfwd,
    jacobian,
    jacrev,
    jvp,
    linearize,
    value_and_grad,
    vjp,
    vmap,
)

__version__ = "0.1.0"
__array_api_version__ = "2025.12"

e, pi, inf, nan = _math.e, _math.pi, _math.inf, _math.nan
newaxis = None

globals().update(_FUNCTIONS)
_attach(_sys.modules[__name__])

# Loaded when first used: what a program that only computes does not need.
_LAZY = {
    "data": ("data", None),
    "train": ("train", None),
    "testing": ("testing", None),
    "inspector": ("inspector", None),
    "explain": ("inspector", "explain"),
}

__all__ = sorted(
    {name for name in globals() if not name.startswith("_") and name not in ("annotations",)}
    | set(_LAZY)
)


def __array_namespace_info__() -> _ArrayNamespaceInfo:
    """What this array namespace can do, as the array API standard asks.

    >>> import cartograd as cg
    >>> cg.__array_namespace_info__().default_device()
    'cpu'
    """
    return _ArrayNamespaceInfo()


def __getattr__(name: str) -> _Any:
    if name == "fft":
        raise errors.UnsupportedNameError(
            "fft is not supported yet: it needs complex dtypes, which come later"
        )
    if name in ("complex64", "complex128"):
        raise errors.UnsupportedNameError(f"{name}: complex dtypes are not supported yet")
    if name not in _LAZY:
        raise AttributeError(f"module 'cartograd' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    found = _import_module(f".{module}", __name__)
    value = found if attribute is None else getattr(found, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
