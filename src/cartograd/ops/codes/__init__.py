"""The codes of the elementwise ops: what the compiler writes for each, one module an idea.

A code is `emit(b, *xs, **params) -> value`: `b` is the compiler's builder of LLVM IR, `xs` are
values in registers (scalars or vectors, half-precision numbers as float32), and the result has the
register dtype of the op's. A code returns None to decline (by dtypes, params and literal operands,
never by the number of lanes): the compiler then calls the op's `eval` instead.
"""

from . import angle as angle
from . import arithmetic as arithmetic
from . import bell as bell
from . import exponential as exponential
from . import gamma as gamma
from . import logarithm as logarithm
from . import plane as plane
from . import quantile as quantile
