"""`cg.compile`: a function of trees, traced once for each signature and then run as one call."""

from __future__ import annotations

import functools
import inspect
import time
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any, overload

from .. import tree
from ..errors import RecompileWarning, UsageError
from ..graph import MODE, Mode, where_called
from ..record import EVENTS
from ..runtime import LOCK
from .comparing import checked
from .copies import Copies
from .donation import donation_of
from .llvm import prepare
from .lowered import Lowered
from .options import Options
from .signature import Argument, Signature, signature_of
from .step import Step, trace_step
from .variant import MISS, Variant

__all__ = ["CompiledFunction", "compile"]

_KEPT = 64  # programs for one function; the one used longest ago goes first
_MANY = 8  # programs for one function after which a warning says so


class CompiledFunction:
    """A function that is compiled when it is called: what `cg.compile` returns.

    `lowerings` counts the programs that were made for it.
    """

    def __init__(self, f: Callable[..., Any], donate: Sequence[int], options: Options) -> None:
        functools.update_wrapper(self, f, updated=())
        self._f = f
        self._donate, self._options = tuple(donate), options
        self._variants: dict[Signature, list[Variant]] = {}
        self._last: Signature | None = None
        self._newest: Variant | None = None
        self.lowerings = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        mode = MODE.get()
        if mode.staging or mode.active != 1 or mode.trace is not None or mode.batches:
            return self._f(*args, **options)  # part of something larger, which is what to compile
        with LOCK:
            newest = self._newest
            if newest is not None and mode.recording == newest.recording:
                result = newest.attempt(args, options)
                if result is not MISS:
                    return result
            return self._call(args, options, mode)

    def lowered(self, *args: Any, **options: Any) -> Lowered:
        """Every stage of compiling a call with these arguments, to be looked into: it is not run.

        No State changes. See `Lowered`. Of a method: `Owner.method.lowered(owner, *args)`.
        """
        with LOCK:
            signature, leaves = signature_of((args, options), MODE.get().recording)
            step = trace_step(self._f, signature, leaves, self._names(signature))
            copies, inputs = self._looked_at(step, signature, leaves)
            return Lowered(_name(self._f), step, copies, inputs, self._options)

    def _looked_at(
        self, step: Step, signature: Signature, leaves: Sequence[Any]
    ) -> tuple[Copies, Sequence[int]]:
        """Copies to run a step on, and the inputs that are donated to it."""
        inputs = donation_of(self._donate, signature, step).inputs
        return Copies(step, signature, leaves), inputs

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<compiled {_name(self._f)}, {self.lowerings} programs>"

    def _call(self, args: tuple[Any, ...], options: dict[str, Any], mode: Mode) -> Any:
        signature, leaves = signature_of((args, options), mode.recording)
        variant, cause = self._find(signature)
        if variant is None:
            variant = self._make(signature, leaves, cause)
        self._last, self._newest = signature, variant
        if not variant.accepts(leaves):
            return self._f(*args, **options)
        return variant.run(leaves)

    def _find(self, signature: Signature) -> tuple[Variant | None, str]:
        """The program for a signature whose guards hold; or None, and why there is none."""
        known = self._variants.pop(signature, None)
        if known is None:
            return None, self._difference(signature)
        self._variants[signature] = known  # now the last one used
        cause = ""
        for k, variant in enumerate(known):
            cause = variant.guards.change()
            if not cause:
                if k:
                    known.insert(0, known.pop(k))
                return variant, ""
        return None, cause

    def _make(self, signature: Signature, leaves: Sequence[Any], cause: str) -> Variant:
        """Trace and compile."""
        started = time.perf_counter()
        step = trace_step(self._f, signature, leaves, self._names(signature))
        options = self._options
        if options.compare or options.check is True:
            options = checked(options, step, *self._looked_at(step, signature, leaves))
        variant = Variant(step, signature, self._donate, self._f, options)
        self._variants.setdefault(signature, []).insert(0, variant)
        self._drop_oldest()
        self.lowerings += 1
        EVENTS.emit(
            "compile",
            function=_name(self._f),
            cause=cause,
            number=self.lowerings,
            seconds=time.perf_counter() - started,
            cached=variant.cached,
        )
        if self.lowerings == _MANY + 1:
            warnings.warn(
                f"{_name(self._f)} has been compiled {self.lowerings} times, the last time "
                f"because {cause}{where_called()}; pass what changes from call to call as arrays "
                "of one shape",
                RecompileWarning,
                stacklevel=4,
            )
        return variant

    def _names(self, signature: Signature) -> list[str]:
        """The names of the arrays among the arguments."""
        names = _leaf_names(self._f, signature.structure)
        return [n for n, a in zip(names, signature.arguments, strict=True) if a.shape is not None]

    def _drop_oldest(self) -> None:
        while sum(map(len, self._variants.values())) > _KEPT:
            oldest = next(iter(self._variants))
            self._variants[oldest].pop()
            if not self._variants[oldest]:
                del self._variants[oldest]

    def _difference(self, signature: Signature) -> str:
        """How a signature differs from that of the last call."""
        last = self._last
        if last is None:
            return "it is called for the first time"
        if last.structure != signature.structure:
            return f"the arguments are {signature.structure} and were {last.structure}"
        names = _leaf_names(self._f, signature.structure)
        for name, now, was in zip(names, signature.arguments, last.arguments, strict=True):
            if now != was:
                hint = "; a number is static, an array is not" if _is_number(now, was) else ""
                return f"{name} is {now} and was {was}{hint}"
        if last.recording != signature.recording:
            return f"gradients are {'on' if signature.recording else 'off'} now"
        return "a Module among the arguments has changed"


def _is_number(now: Argument, was: Argument) -> bool:
    """Whether two leaves are Python numbers."""
    pair = (getattr(now.static, "value", None), getattr(was.static, "value", None))
    return all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in pair)


def _name(f: Callable[..., Any]) -> str:
    return getattr(f, "__qualname__", type(f).__name__)


def _leaf_names(f: Callable[..., Any], structure: tree.Structure) -> list[str]:
    """A name for each leaf of (args, kwargs): the parameter's, with its place in the tree."""
    positional, keyword = structure.children
    try:
        known = [
            p.name
            for p in inspect.signature(f).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        known = []
    names: list[str] = []
    for k, child in enumerate(positional.children):
        names += _numbered(known[k] if k < len(known) else f"arg{k}", child.count)
    for key, child in zip(keyword.data, keyword.children, strict=True):
        names += _numbered(key, child.count)
    return names


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}.{k}" for k in range(count)]


@overload
def compile(
    f: Callable[..., Any], donate: int | Sequence[int] = (), *, options: Options | None = None
) -> CompiledFunction: ...
@overload
def compile(
    f: None = None, *, donate: int | Sequence[int] = (), options: Options | None = None
) -> Callable[[Callable[..., Any]], CompiledFunction]: ...
def compile(
    f: Callable[..., Any] | None = None,
    donate: int | Sequence[int] = (),
    *,
    options: Options | None = None,
) -> Any:
    """Compile a function of trees: it is traced once for each signature, and then one native call.

    The signature is the structure of the arguments, the shapes and dtypes of the arrays in them,
    and every other value (numbers, strings) itself: pass what changes from call to call as an
    array. A State or Module is the thing itself, whether passed or closed over: what f assigns
    (by an optimiser's step, a draw of random numbers) is written in place, and gradients that it
    leaves behind are there afterwards. A Module's attributes, its training mode, the variables that
    f reads around it and whether gradients were there are checked before each call.

    f may not ask for a value (`.item()`, a Python `if` on a Tensor): that raises TraceError.
    Python side effects (printing, appending to a list) happen only while it is traced, and what
    else it reads (a NumPy array, a list, an attribute of a plain object) is taken as it was then.

    `lowered(*args)` of the result shows every stage; `options` (`compiler.Options`) are switches
    for debugging.

    `donate` names positional arguments whose Tensors are given up: their memory is used for
    results, and using one afterwards raises DonatedError.

    >>> import cartograd as cg
    >>> @cg.compile
    ... def square(x):
    ...     return x * x
    >>> square(cg.asarray([1.0, 2.0])).tolist()
    [1.0, 4.0]
    """
    places = (donate,) if isinstance(donate, int) else tuple(donate)
    chosen = options or Options()
    if f is None:
        return functools.partial(compile, donate=places, options=chosen)
    if not callable(f):
        raise UsageError(f"compile takes a function, not a {type(f).__name__}{where_called()}")
    prepare()
    return CompiledFunction(f, places, chosen)
