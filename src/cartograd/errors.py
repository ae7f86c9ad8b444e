"""The errors that Cartograd raises: typed, and each also the built-in error a caller would expect.

Every message names the operation, the shapes or values at fault, and what to do. Where the error
is raised while an operation is applied, the user's own file and line are added.

>>> from cartograd.errors import ShapeError
>>> issubclass(ShapeError, ValueError)
True
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "AxisError",
    "CartogradError",
    "CompileError",
    "CopyError",
    "DTypeError",
    "DataError",
    "DivideByZeroError",
    "DonatedError",
    "FileFormatError",
    "GradientError",
    "IndexOutOfRangeError",
    "LinAlgError",
    "NoAxisError",
    "NonFiniteError",
    "RecompileWarning",
    "ShapeError",
    "TraceError",
    "UnsupportedError",
    "UnsupportedNameError",
    "UsageError",
]


class CartogradError(Exception):
    """The base of every error that Cartograd raises on purpose.

    >>> import cartograd as cg
    >>> try:
    ...     cg.ones((2, 3)) + cg.ones((4,))
    ... except cg.errors.CartogradError as error:
    ...     print(type(error).__name__)
    ShapeError
    """


class ShapeError(CartogradError, ValueError):
    """Shapes that do not fit the operation.

    >>> issubclass(ShapeError, ValueError)
    True
    """


class NoAxisError(ShapeError, TypeError):
    """A Tensor without axes, used where Python wants a sequence: it has no length and no items.

    >>> issubclass(NoAxisError, TypeError)
    True
    """


class DTypeError(CartogradError, TypeError):
    """A dtype that the operation does not take.

    >>> issubclass(DTypeError, TypeError)
    True
    """


class AxisError(CartogradError, ValueError, IndexError):
    """An axis that is out of range or given twice.

    >>> issubclass(AxisError, IndexError)
    True
    """


class IndexOutOfRangeError(CartogradError, IndexError):
    """An index outside its axis: Cartograd never clamps or wraps silently.

    >>> issubclass(IndexOutOfRangeError, IndexError)
    True
    """


class DivideByZeroError(CartogradError, ZeroDivisionError):
    """An integer division or remainder by zero.

    >>> issubclass(DivideByZeroError, ZeroDivisionError)
    True
    """


class GradientError(CartogradError, RuntimeError):
    """A derivative that does not exist or cannot be had, with the reason.

    >>> issubclass(GradientError, RuntimeError)
    True
    """


class TraceError(CartogradError, RuntimeError):
    """A value was asked of a Tensor that has none yet, because its function is being traced.

    >>> issubclass(TraceError, RuntimeError)
    True
    """


class NonFiniteError(CartogradError, FloatingPointError):
    """A NaN or infinity where a finite number is required, such as a training loss.

    >>> issubclass(NonFiniteError, FloatingPointError)
    True
    """


class UnsupportedError(CartogradError, NotImplementedError):
    """Something of the array API or of a neighbour that Cartograd does not have, by name.

    >>> issubclass(UnsupportedError, NotImplementedError)
    True
    """


class UnsupportedNameError(UnsupportedError, AttributeError):
    """A name of the array API that Cartograd does not have yet; `hasattr` says so too.

    >>> import cartograd as cg
    >>> hasattr(cg, "fft")
    False
    """


class FileFormatError(CartogradError, ValueError):
    """A file that is damaged, half written, or not of the kind it claims to be.

    >>> issubclass(FileFormatError, ValueError)
    True
    """


class DataError(CartogradError, ValueError):
    """Data that cannot be learned from as given: no such column, no images, one class only.

    >>> issubclass(DataError, ValueError)
    True
    """


class UsageError(CartogradError, ValueError):
    """An argument or a combination of arguments that makes no sense, with what to write instead.

    >>> issubclass(UsageError, ValueError)
    True
    """


class LinAlgError(CartogradError, np.linalg.LinAlgError):
    """A factorisation that failed, such as a singular matrix or one not positive definite.

    >>> import numpy as np
    >>> issubclass(LinAlgError, np.linalg.LinAlgError)
    True
    """


class CopyError(UsageError, BufferError):
    """Memory would have to be shared where Cartograd copies: a Tensor never changes.

    >>> issubclass(CopyError, ValueError) and issubclass(CopyError, BufferError)
    True
    """


class CompileError(CartogradError, RuntimeError):
    """Native code that could not be made: what LLVM said of it.

    >>> issubclass(CompileError, RuntimeError)
    True
    """


class DonatedError(UsageError):
    """A Tensor used after its memory was given to a compiled function, by `donate`.

    >>> issubclass(DonatedError, UsageError)
    True
    """


class RecompileWarning(UserWarning):
    """A function that is compiled again and again, with what changed each time.

    >>> issubclass(RecompileWarning, UserWarning)
    True
    """
