"""Tensor's operators and methods: the functions of `cg`, attached to the class.

Nothing is said twice: a method is the function of the same name with `self` as its first argument.
PyTorch's names for some of them are aliases in the table below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dtype import bfloat16, bool_, float16, float32, float64, int32, int64
from ..errors import ShapeError, UnsupportedError
from ..graph import where_called
from ..ops.op import REGISTRY
from ..tensor import Tensor
from . import indexing, products, reductions, searching, shaping
from .elementwise import FUNCTIONS, binary_method, is_operand, reflected_method, unary_method

__all__ = ["attach"]

OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "pow", "and": "bitwise_and",
    "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift", "lt": "less", "le": "less_equal", "gt": "greater",
    "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}  # fmt: skip
COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}
UNARY = {"neg": "negative", "abs": "abs", "invert": "bitwise_invert", "pos": "positive"}

# Functions that would hide something else as a method, or take no array first.
NOT_METHODS = {"where", "concat", "stack", "broadcast_arrays", "broadcast_shapes", "take_along"}
ALIASES = {
    "permute": shaping.permute_dims, "view": shaping.reshape, "unsqueeze": shaping.expand_dims,
    "expand": shaping.broadcast_to, "cumsum": reductions.cumulative_sum,
    "cumprod": reductions.cumulative_prod, "amax": reductions.max, "amin": reductions.min,
    "mm": products.matmul, "bmm": products.matmul, "unbind": shaping.unstack,
}  # fmt: skip
CASTS = {
    "float": float32, "double": float64, "half": float16, "bfloat16": bfloat16, "long": int64,
    "int": int32, "bool": bool_,
}  # fmt: skip


def _cast_method(dtype: Any) -> Callable[[Tensor], Tensor]:
    def method(self: Tensor) -> Tensor:
        return shaping.astype(self, dtype, copy=False)

    return method


def _to(self: Tensor, *args: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """This Tensor in another dtype; a device may be named, and is "cpu"."""
    for arg in args:
        if isinstance(arg, Tensor):
            dtype = arg.dtype
        elif isinstance(arg, str) and arg.split(":")[0] in ("cpu", "cuda", "mps"):
            device = arg
        else:
            dtype = arg
    if device not in (None, "cpu"):
        raise UnsupportedError(
            f"there is no device {device!r}: everything is on 'cpu'{where_called()}"
        )
    return self if dtype is None else shaping.astype(self, dtype, copy=False)


def _transpose(self: Tensor, *axes: Any) -> Tensor:
    """Two axes exchanged (as PyTorch), or all axes reversed or permuted (as NumPy)."""
    if len(axes) == 2 and self.ndim >= 2:
        return shaping.swapaxes(self, *axes)
    if not axes:
        return shaping.permute_dims(self, tuple(range(self.ndim))[::-1])
    return shaping.permute_dims(self, *axes)


def _t(self: Tensor) -> Tensor:
    """The transpose of a matrix."""
    if self.ndim != 2:
        raise ShapeError(f"T takes a matrix, not shape {self.shape}{where_called()}; use .mT")
    return shaping.swapaxes(self, 0, 1)


def _masked_fill(self: Tensor, mask: Any, value: Any) -> Tensor:
    """`value` where the mask is true."""
    return searching.where(mask, value, self)


def _same(self: Tensor, *_: Any, **__: Any) -> Tensor:
    """This Tensor: there is nothing to copy or move."""
    return self


def _type_as(self: Tensor, other: Tensor) -> Tensor:
    """This Tensor in another's dtype."""
    return shaping.astype(self, other.dtype, copy=False)


def _expand(self: Tensor, *shape: Any) -> Tensor:
    """Broadcast to a shape, with -1 for lengths that stay."""
    return shaping.broadcast_to(self, shape[0] if len(shape) == 1 else shape)


def _dim(self: Tensor) -> int:
    """The number of axes."""
    return self.ndim


def _numel(self: Tensor) -> int:
    """The number of elements."""
    return self.size


def _matmul(self: Tensor, other: Any) -> Any:
    return products.matmul(self, other) if is_operand(other) else NotImplemented


def _rmatmul(self: Tensor, other: Any) -> Any:
    return products.matmul(other, self) if is_operand(other) else NotImplemented


VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")


def _namespace(self: Tensor, *, api_version: str | None = None) -> Any:
    """The module `cartograd`, which serves every version of the array API up to 2025.12."""
    if api_version is not None and api_version not in VERSIONS:
        raise UnsupportedError(
            f"__array_namespace__: there is no version {api_version!r} of the array API here, only "
            f"{', '.join(VERSIONS)}{where_called()}"
        )
    return _space[0]


_space: list[Any] = []


# Ufuncs of SciPy and NumPy whose names differ from ours.
NAMES = {"expit": "sigmoid", "gammaln": "lgamma", "psi": "digamma", "rint": "round"}
_UFUNCS: dict[Any, Any] = {}


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """NumPy's ufuncs (and SciPy's) on Tensors are Cartograd's functions; no `out=` or `where=`."""
    if method != "__call__" or options:
        return NotImplemented
    f = _UFUNCS.get(ufunc)
    if f is None:
        name: str = ufunc.__name__
        f = FUNCTIONS.get(NAMES.get(name, name))
        if f is None:
            return NotImplemented
    return f(*inputs)


def attach(namespace: Any) -> None:
    """Give Tensor its operators and methods; `namespace` is what `__array_namespace__` returns."""
    _space.append(namespace)
    cls: Any = Tensor
    for name, op in OPERATORS.items():
        setattr(cls, f"__{name}__", binary_method(REGISTRY[op]))
        if name not in COMPARISONS:
            setattr(cls, f"__r{name}__", reflected_method(REGISTRY[op]))
    for name, op in UNARY.items():
        setattr(cls, f"__{name}__", unary_method(REGISTRY[op]))
    for name, f in FUNCTIONS.items():
        if name not in NOT_METHODS and not hasattr(cls, name):
            setattr(cls, name, f)
        ufunc = getattr(np, name, None)  # by name: np.arctan2 is np.atan2
        if isinstance(ufunc, np.ufunc):
            _UFUNCS[ufunc] = f
    for module in (shaping, reductions, searching, products):
        for name in module.__all__:
            if name not in NOT_METHODS and not hasattr(cls, name):
                setattr(cls, name, getattr(module, name))
    for name, f in ALIASES.items():
        setattr(cls, name, f)
    for name, dtype in CASTS.items():
        setattr(cls, name, _cast_method(dtype))
    _UFUNCS[np.matmul] = products.matmul
    cls.__matmul__, cls.__rmatmul__ = _matmul, _rmatmul
    cls.__getitem__, cls.__setitem__ = indexing.getitem, indexing.setitem
    cls.at = property(indexing.At, doc="Functional updates: `x.at[i].set(v)`, `.add(v)`.")
    cls.take = indexing.take
    cls.T = property(_t, doc="The transpose of a matrix.")
    cls.mT = property(shaping.matrix_transpose, doc="The last two axes exchanged.")
    cls.to, cls.transpose, cls.t, cls.expand = _to, _transpose, _t, _expand
    cls.masked_fill, cls.type_as = _masked_fill, _type_as
    cls.clone = cls.contiguous = cls.cpu = _same
    cls.dim, cls.numel = _dim, _numel
    cls.__array_namespace__ = _namespace
    cls.__array_ufunc__ = _array_ufunc
    cls.__hash__ = object.__hash__
