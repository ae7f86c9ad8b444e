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
import typing as _typing
from importlib import import_module as _import_module

from . import dtype as _dtype
from . import errors as errors
from . import random as random
from . import serialize as serialize  # registers how graphs print and are saved
from . import tree as tree
from .control import checkpoint as checkpoint
from .control import cond as cond
from .control import custom_jvp as custom_jvp
from .control import custom_vjp as custom_vjp
from .control import scan as scan
from .control import stop_gradient as stop_gradient
from .control import while_loop as while_loop
from .dtype import bfloat16 as bfloat16
from .dtype import float16 as float16
from .dtype import float32 as float32
from .dtype import float64 as float64
from .dtype import int8 as int8
from .dtype import int16 as int16
from .dtype import int32 as int32
from .dtype import int64 as int64
from .dtype import isdtype as isdtype
from .dtype import uint8 as uint8
from .dtype import uint16 as uint16
from .dtype import uint32 as uint32
from .dtype import uint64 as uint64
from .graph import Graph as Graph
from .graph import Node as Node
from .graph import Origin as Origin
from .namespace import FUNCTIONS as _FUNCTIONS
from .namespace.einsum import einsum as einsum
from .namespace.info import ArrayNamespaceInfo as _ArrayNamespaceInfo
from .namespace.methods import attach as _attach
from .random import manual_seed as manual_seed
from .tensor import Buffer as Buffer
from .tensor import Parameter as Parameter
from .tensor import State as State
from .tensor import Tensor as Tensor
from .tensor import enable_grad as enable_grad
from .tensor import is_grad_enabled as is_grad_enabled
from .tensor import no_grad as no_grad
from .trace import trace as trace
from .transforms import grad as grad
from .transforms import hessian as hessian
from .transforms import hvp as hvp
from .transforms import jacfwd as jacfwd
from .transforms import jacobian as jacobian
from .transforms import jacrev as jacrev
from .transforms import jvp as jvp
from .transforms import linearize as linearize
from .transforms import value_and_grad as value_and_grad
from .transforms import vjp as vjp
from .transforms import vmap as vmap

__version__ = "0.1.0"
__array_api_version__ = "2025.12"

e, pi, inf, nan = _math.e, _math.pi, _math.inf, _math.nan
newaxis = None
bool = _dtype.bool_

globals().update(_FUNCTIONS)
_attach(_sys.modules[__name__])

# Loaded when first used, so that `import cartograd` is quick: name -> (module, name in it or None).
_LAZY: dict[str, tuple[str, str | None]] = {
    "compile": ("compiler", "compile"),
    "data": ("data", None),
    "explain": ("inspector", "explain"),
    "functional": ("functional", None),
    "get_num_threads": ("compiler", "get_num_threads"),
    "inspector": ("inspector", None),
    "linalg": ("linalg", None),
    "log_softmax": ("functional", "log_softmax"),
    "logsumexp": ("functional", "logsumexp"),
    "nn": ("nn", None),
    "one_hot": ("functional", "one_hot"),
    "optim": ("optim", None),
    "set_num_threads": ("compiler", "set_num_threads"),
    "softmax": ("functional", "softmax"),
    "testing": ("testing", None),
    "train": ("train", None),
}

_INSIDE = {  # modules that the imports above leave here, and that are no part of the public face
    "annotations", "autodiff", "batching", "blas", "control", "dtype", "evaluate",
    "graph", "namespace", "ops", "record", "runtime", "serialize", "tensor", "transforms",
}  # fmt: skip

# Read from what is there: the elementwise functions are the records', and named nowhere else.
__all__ = sorted(  # pyright: ignore[reportUnsupportedDunderAll]
    {name for name in globals() if not name.startswith("_") and name not in _INSIDE} | set(_LAZY)
)

if _typing.TYPE_CHECKING:
    from . import data as data
    from . import functional as functional
    from . import inspector as inspector
    from . import linalg as linalg
    from . import nn as nn
    from . import optim as optim
    from . import testing as testing
    from . import train as train
    from .compiler import compile as compile
    from .compiler import get_num_threads as get_num_threads
    from .compiler import set_num_threads as set_num_threads
    from .functional import log_softmax as log_softmax
    from .functional import logsumexp as logsumexp
    from .functional import one_hot as one_hot
    from .functional import softmax as softmax
    from .inspector import explain as explain


def __array_namespace_info__() -> _ArrayNamespaceInfo:
    """What this array namespace can do, as the array API standard asks.

    >>> import cartograd as cg
    >>> cg.__array_namespace_info__().default_device()
    'cpu'
    """
    return _ArrayNamespaceInfo()


def __getattr__(name: str) -> _typing.Any:
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
