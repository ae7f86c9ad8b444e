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
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import errors as errors
from . import ops as ops
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
from .graph import Graph, Node, Origin
from .namespace import FUNCTIONS as _FUNCTIONS
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


def __array_namespace_info__() -> _ArrayNamespaceInfo:
    """What this array namespace can do, as the array API standard asks.

    >>> import cartograd as cg
    >>> cg.__array_namespace_info__().default_device()
    'cpu'
    """
    return _ArrayNamespaceInfo()


if _TYPE_CHECKING:

    def __getattr__(name: str) -> _Any: ...
