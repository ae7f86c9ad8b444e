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

from . import errors, random, tree
from . import serialize as serialize  # registers how graphs print and are saved
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
from .namespace.einsum import einsum
from .namespace.info import ArrayNamespaceInfo as _ArrayNamespaceInfo
from .namespace.methods import attach as _attach
from .random import manual_seed
from .tensor import Buffer, Parameter, State, Tensor, enable_grad, is_grad_enabled, no_grad
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

__all__ = [
    "Buffer", "Graph", "Node", "Origin", "Parameter", "State", "Tensor", "abs", "acos", "acosh",
    "add", "all", "any", "arange", "argmax", "argmin", "argsort", "asarray", "asin", "asinh",
    "astype", "atan", "atan2", "atanh", "bfloat16", "bitwise_and", "bitwise_invert",
    "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "bool",
    "broadcast_arrays", "broadcast_shapes", "broadcast_to", "can_cast", "ceil", "checkpoint",
    "clip", "concat", "cond", "conj", "copysign", "cos", "cosh", "count_nonzero",
    "cumulative_logsumexp", "cumulative_prod", "cumulative_sum", "custom_jvp", "custom_vjp", "data",
    "diff", "digamma", "divide", "dot", "e", "einsum", "empty", "empty_like", "enable_grad",
    "equal", "erf", "erfc", "erfinv", "errors", "exp", "exp2", "expand_dims", "explain", "expm1",
    "eye", "finfo", "flatten", "flip", "float16", "float32", "float64", "floor", "floor_divide",
    "from_dlpack", "full", "full_like", "functional", "grad", "greater", "greater_equal", "hessian",
    "hvp", "hypot", "iinfo", "imag", "inf", "inspector", "int16", "int32", "int64", "int8",
    "is_grad_enabled", "isdtype", "isfinite", "isin", "isinf", "isnan", "jacfwd", "jacobian",
    "jacrev", "jvp", "less", "less_equal", "lgamma", "linalg", "linearize", "linspace", "log",
    "log10", "log1p", "log2", "log_softmax", "logaddexp", "logical_and", "logical_not",
    "logical_or", "logical_xor", "logsumexp", "manual_seed", "matmul", "matrix_transpose", "max",
    "maximum", "mean", "meshgrid", "min", "minimum", "moveaxis", "multiply", "nan", "negative",
    "newaxis", "nextafter", "nn", "no_grad", "nonzero", "normal_cdf", "not_equal", "one_hot",
    "ones", "ones_like", "optim", "outer", "pad", "permute_dims", "pi", "positive", "pow", "prod",
    "random", "real", "reciprocal", "relu", "remainder", "repeat", "reshape", "result_type", "roll",
    "round", "rsqrt", "scan", "searchsorted", "sigmoid", "sign", "signbit", "sin", "sinc", "sinh",
    "softmax", "softplus", "sort", "split", "sqrt", "square", "squeeze", "stack", "std",
    "stop_gradient", "subtract", "sum", "swapaxes", "take", "take_along_axis", "tan", "tanh",
    "tensordot", "testing", "tile", "topk", "trace", "train", "tree", "tril", "triu", "trunc",
    "uint16", "uint32", "uint64", "uint8", "unique_all", "unique_counts", "unique_inverse",
    "unique_values", "unstack", "value_and_grad", "var", "vecdot", "vjp", "vmap", "where",
    "while_loop", "zeros", "zeros_like",
]  # fmt: skip

e, pi, inf, nan = _math.e, _math.pi, _math.inf, _math.nan
newaxis = None

globals().update(_FUNCTIONS)
_attach(_sys.modules[__name__])

# Loaded when first used, so that `import cartograd` is quick: name -> (module, name in it or None).
_LAZY: dict[str, tuple[str, str | None]] = {
    "data": ("data", None),
    "explain": ("inspector", "explain"),
    "functional": ("functional", None),
    "inspector": ("inspector", None),
    "linalg": ("linalg", None),
    "log_softmax": ("functional", "log_softmax"),
    "logsumexp": ("functional", "logsumexp"),
    "nn": ("nn", None),
    "one_hot": ("functional", "one_hot"),
    "optim": ("optim", None),
    "softmax": ("functional", "softmax"),
    "testing": ("testing", None),
    "train": ("train", None),
}

if _typing.TYPE_CHECKING:  # what the lines above put here at run time, for type checkers to see
    from . import data, functional, inspector, linalg, nn, optim, testing, train
    from .functional import log_softmax, logsumexp, one_hot, softmax
    from .inspector import explain
    from .namespace.creation import (
        arange,
        asarray,
        empty,
        empty_like,
        eye,
        from_dlpack,
        full,
        full_like,
        linspace,
        meshgrid,
        ones,
        ones_like,
        tril,
        triu,
        zeros,
        zeros_like,
    )
    from .namespace.indexing import take, take_along_axis
    from .namespace.info import can_cast, finfo, iinfo, result_type
    from .namespace.products import dot, matmul, outer, tensordot, vecdot
    from .namespace.reductions import (
        all,
        any,
        argmax,
        argmin,
        count_nonzero,
        cumulative_logsumexp,
        cumulative_prod,
        cumulative_sum,
        diff,
        max,
        mean,
        min,
        prod,
        std,
        sum,
        var,
    )
    from .namespace.searching import (
        argsort,
        clip,
        isin,
        nonzero,
        searchsorted,
        sort,
        topk,
        unique_all,
        unique_counts,
        unique_inverse,
        unique_values,
        where,
    )
    from .namespace.shaping import (
        astype,
        broadcast_arrays,
        broadcast_shapes,
        broadcast_to,
        concat,
        expand_dims,
        flatten,
        flip,
        matrix_transpose,
        moveaxis,
        pad,
        permute_dims,
        repeat,
        reshape,
        roll,
        split,
        squeeze,
        stack,
        swapaxes,
        tile,
        unstack,
    )

    def _unary(x: _typing.Any, /) -> Tensor: ...
    def _binary(x1: _typing.Any, x2: _typing.Any, /) -> Tensor: ...

    abs = acos = acosh = asin = asinh = atan = atanh = bitwise_invert = ceil = conj = cos = _unary
    cosh = digamma = erf = erfc = erfinv = exp = exp2 = expm1 = floor = imag = isfinite = _unary
    isinf = isnan = lgamma = log = log10 = log1p = log2 = logical_not = negative = _unary
    normal_cdf = positive = real = reciprocal = relu = round = rsqrt = sigmoid = sign = _unary
    signbit = sin = sinc = sinh = softplus = sqrt = square = tan = tanh = trunc = _unary
    add = atan2 = bitwise_and = bitwise_left_shift = bitwise_or = bitwise_right_shift = _binary
    bitwise_xor = copysign = divide = equal = floor_divide = greater = greater_equal = _binary
    hypot = less = less_equal = logaddexp = logical_and = logical_or = logical_xor = _binary
    maximum = minimum = multiply = nextafter = not_equal = pow = remainder = subtract = _binary


def __array_namespace_info__() -> _ArrayNamespaceInfo:
    """What this array namespace can do, as the array API standard asks.

    >>> import cartograd as cg
    >>> cg.__array_namespace_info__().default_device()
    'cpu'
    """
    return _ArrayNamespaceInfo()


if not _typing.TYPE_CHECKING:  # every public name is declared above

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
