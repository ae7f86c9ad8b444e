"""Random numbers: counter-based, the same in eager and compiled code.

A Generator holds a key (the seed) and the number of draws so far, as a State; each draw advances
it. Numbers depend on nothing else: not on threads, nor on what else was drawn from other
generators. Source of the bits: Philox4x32-10 (see `ops.random`).

>>> import cartograd as cg
>>> _ = cg.manual_seed(0)
>>> a = cg.random.normal((2,))
>>> _ = cg.manual_seed(0)
>>> bool((a == cg.random.normal((2,))).all())
True
"""

from __future__ import annotations

import math
import secrets
from typing import Any

import numpy as np

from .dtype import DEFAULT_FLOAT, DEFAULT_INT, DType, as_dtype, bfloat16, float16, float32, float64
from .errors import DTypeError, ShapeError, TraceError, UsageError
from .graph import MODE, Node, where_called
from .namespace import indexing, searching
from .namespace.coerce import array_node, broadcast_node, cast_node
from .namespace.creation import checked_shape
from .ops import elementwise as ops
from .ops.op import constant, input_node
from .ops.random import random_bits
from .tensor import State, Tensor, wrap

__all__ = [
    "Generator",
    "bernoulli",
    "bits",
    "categorical",
    "choice",
    "default_generator",
    "exponential",
    "gumbel",
    "manual_seed",
    "normal",
    "permutation",
    "rand",
    "randint",
    "randn",
    "randperm",
    "shuffle",
    "truncated_normal",
    "uniform",
]


class Generator:
    """A stream of random numbers, named by a seed (any integer; taken modulo 2**64).

    >>> import cartograd as cg
    >>> g = cg.random.Generator(1)
    >>> saved = g.get_state()
    >>> a = cg.random.uniform((3,), generator=g)
    >>> g.set_state(saved)
    >>> bool((a == cg.random.uniform((3,), generator=g)).all())
    True
    """

    __slots__ = ("state",)

    def __init__(self, seed: int | None = None) -> None:
        self.state = State(_start(secrets.randbits(64) if seed is None else seed))

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of a seed from its beginning; returns the generator."""
        self.state.assign(Tensor(constant(_start(seed))))
        return self

    def get_state(self) -> np.ndarray[Any, Any]:
        """Key and number of draws, a uint64 array of length 2."""
        return np.array(self.state.numpy())

    def set_state(self, state: Any) -> None:
        """Continue from what `get_state` gave."""
        array = np.array(state, dtype=np.uint64)
        if array.shape != (2,):
            raise ShapeError(f"a generator's state is uint64[2], not shape {array.shape}")
        self.state.assign(Tensor(constant(array)))

    def __repr__(self) -> str:
        return f"Generator(state={self.get_state().tolist()})"

    def _draw(self, shape: tuple[int, ...]) -> Node:
        """uint32 bits of a shape, advancing the state."""
        found = _draw_batched(self.state.node, shape, MODE.get().batches)
        step = constant(np.array([0, 1], np.uint64))
        self.state.assign(wrap(ops.add(self.state.node, step)))
        return found


def _draw_batched(state: Node, shape: tuple[int, ...], batches: tuple[Any, ...]) -> Node:
    """Bits for one element of each vmap around the draw: alike or not, as each vmap says."""
    if not batches:
        return random_bits(state, shape=shape)
    inner = batches[-1]
    if inner.randomness == "error":
        raise TraceError(
            f"a random draw inside vmap{where_called()}: say vmap(f, randomness='different') for "
            "other numbers in each element, or 'same'"
        )
    if inner.randomness == "same":
        return _draw_batched(state, shape, batches[:-1])
    whole = _draw_batched(state, (inner.size, *shape), batches[:-1])
    one = input_node(shape, whole.dtype)
    inner.fronts[one] = whole
    return one


def _start(seed: int) -> np.ndarray[Any, Any]:
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DTypeError(f"a seed is an integer, not {seed!r}")
    return np.array([int(seed) % 2**64, 0], np.uint64)


default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Start the default generator's stream of a seed from its beginning, and return it.

    >>> import cartograd as cg
    >>> cg.manual_seed(1)
    Generator(state=[1, 0])
    """
    return default_generator.manual_seed(seed)


def _shape(shape: Any, name: str) -> tuple[int, ...]:
    if len(shape) == 1 and not isinstance(shape[0], int):
        return checked_shape(shape[0], name)
    return checked_shape(shape, name)


def bits(*shape: Any, generator: Generator | None = None) -> Tensor:
    """Uniform uint32 integers.

    >>> import cartograd as cg
    >>> cg.random.bits((2,)).dtype
    dtype('uint32')
    """
    g = generator or default_generator
    return wrap(g._draw(_shape(shape, "bits")))  # pyright: ignore[reportPrivateUsage]


def _dtype(dtype: Any, name: str) -> DType:
    found = DEFAULT_FLOAT if dtype is None else as_dtype(dtype)
    if found not in (float16, bfloat16, float32, float64):
        raise DTypeError(f"{name} gives floating-point numbers, not {found.name}{where_called()}")
    return found


# How many random bits a dtype's [0, 1) takes: its precision, so that 1 is never reached.
_DIGITS = {float16: 11, bfloat16: 8, float32: 24}


def _unit(shape: tuple[int, ...], dtype: DType, generator: Generator | None) -> Node:
    """Uniform numbers in [0, 1): multiples of 2**-precision, all equally likely."""
    g = generator or default_generator
    if dtype == float64:
        pair = wrap(g._draw((2, *shape)))  # pyright: ignore[reportPrivateUsage]
        high = cast_node(indexing.getitem(pair, 0).node, float64)
        low = cast_node(indexing.getitem(pair, 1).node, float64)
        high, low = ops.floor(high * 2.0**-5), ops.floor(low * 2.0**-6)
        return (high * 2.0**26 + low) * 2.0**-53
    digits = _DIGITS[dtype]
    word = g._draw(shape)  # pyright: ignore[reportPrivateUsage]
    top = wrap(word) >> (32 - digits)
    return cast_node(cast_node(top.node, float32) * 2.0**-digits, dtype)


def uniform(
    *shape: Any,
    low: Any = 0.0,
    high: Any = 1.0,
    dtype: Any = None,
    generator: Generator | None = None,
) -> Tensor:
    """Uniform numbers in [low, high), float32 by default.

    >>> import cartograd as cg
    >>> x = cg.random.uniform((1000,))
    >>> 0.4 < x.mean().item() < 0.6
    True
    """
    found = _dtype(dtype, "uniform")
    unit = wrap(_unit(_shape(shape, "uniform"), found, generator))
    if isinstance(low, float) and isinstance(high, float) and (low, high) == (0.0, 1.0):
        return unit
    return unit * (high - low) + low


def normal(
    *shape: Any,
    mean: Any = 0.0,
    std: Any = 1.0,
    dtype: Any = None,
    generator: Generator | None = None,
) -> Tensor:
    """Normal numbers, float32 by default: sqrt(2) erfinv(2 u - 1) of a uniform u in (0, 1).

    >>> import cartograd as cg
    >>> cg.random.normal((2, 3)).shape
    (2, 3)
    """
    found = _dtype(dtype, "normal")
    wide = float64 if found == float64 else float32
    unit = _unit(_shape(shape, "normal"), wide, generator)
    half = 2.0**-54 if wide == float64 else 2.0**-25  # the middle of each interval: never 0 or 1
    z = ops.erfinv((unit + half) * 2.0 - 1.0) * math.sqrt(2.0)
    x = wrap(cast_node(z, found))
    if isinstance(std, float) and isinstance(mean, float) and (mean, std) == (0.0, 1.0):
        return x
    return x * std + mean


def rand(*shape: Any, dtype: Any = None, generator: Generator | None = None) -> Tensor:
    """`uniform` by its PyTorch name: `rand(2, 3)`.

    >>> import cartograd as cg
    >>> cg.random.rand(2, 3).shape
    (2, 3)
    """
    return uniform(*shape, dtype=dtype, generator=generator)


def randn(*shape: Any, dtype: Any = None, generator: Generator | None = None) -> Tensor:
    """`normal` by its PyTorch name: `randn(2, 3)`.

    >>> import cartograd as cg
    >>> cg.random.randn(2, 3).shape
    (2, 3)
    """
    return normal(*shape, dtype=dtype, generator=generator)


def truncated_normal(
    *shape: Any,
    low: float = -2.0,
    high: float = 2.0,
    dtype: Any = None,
    generator: Generator | None = None,
) -> Tensor:
    """Standard normal numbers conditioned to lie in [low, high].

    >>> import cartograd as cg
    >>> bool((abs(cg.random.truncated_normal((100,))) <= 2).all())
    True
    """
    found = _dtype(dtype, "truncated_normal")
    if not low < high:
        raise UsageError(f"truncated_normal: low {low} is not below high {high}{where_called()}")
    a, b = (math.erf(x / math.sqrt(2.0)) for x in (low, high))
    unit = wrap(_unit(_shape(shape, "truncated_normal"), found, generator))
    z = wrap(ops.erfinv((unit * (b - a) + a).node)) * math.sqrt(2.0)
    return searching.clip(z, low, high)


def exponential(
    *shape: Any, scale: Any = 1.0, dtype: Any = None, generator: Generator | None = None
) -> Tensor:
    """Exponential numbers of a mean `scale`: -scale log(1 - u).

    >>> import cartograd as cg
    >>> bool((cg.random.exponential((10,)) >= 0).all())
    True
    """
    found = _dtype(dtype, "exponential")
    unit = _unit(_shape(shape, "exponential"), found, generator)
    return wrap(-ops.log1p(-unit)) * scale


def gumbel(*shape: Any, dtype: Any = None, generator: Generator | None = None) -> Tensor:
    """Standard Gumbel numbers: -log(-log(u)).

    >>> import cartograd as cg
    >>> cg.random.gumbel((2,)).shape
    (2,)
    """
    e = exponential(*shape, dtype=dtype, generator=generator)
    tiny = float(np.finfo(np.float32).tiny)
    return -searching.where(e > 0, e, tiny).log()


def bernoulli(p: Any, *shape: Any, generator: Generator | None = None) -> Tensor:
    """True with probability `p` (a number or a Tensor, whose shape is the default).

    >>> import cartograd as cg
    >>> bool(cg.random.bernoulli(1.0, (3,)).all())
    True
    """
    chance = p if isinstance(p, (int, float)) else wrap(array_node(p, "bernoulli"))
    dims = _shape(shape, "bernoulli") if shape else getattr(chance, "shape", ())
    return wrap(_unit(dims, DEFAULT_FLOAT, generator)) < chance


def randint(
    low: int,
    high: int | None = None,
    shape: Any = (),
    *,
    dtype: Any = None,
    generator: Generator | None = None,
) -> Tensor:
    """Integers in [low, high), or [0, low) when `high` is left out; int64 by default.

    63 random bits modulo the width: a bias below width / 2**63.

    >>> import cartograd as cg
    >>> bool((cg.random.randint(5, shape=(100,)) < 5).all())
    True
    """
    if high is None:
        low, high = 0, low
    if low >= high:
        raise UsageError(f"randint: low {low} is not below high {high}{where_called()}")
    found = DEFAULT_INT if dtype is None else as_dtype(dtype)
    dims = checked_shape(shape, "randint")
    g = generator or default_generator
    pair = wrap(g._draw((2, *dims))).astype(DEFAULT_INT)  # pyright: ignore[reportPrivateUsage]
    word = ((pair[0] & 0x7FFFFFFF) << 32) | pair[1]
    return (word % (high - low) + low).astype(found)


def permutation(x: Any, /, *, generator: Generator | None = None) -> Tensor:
    """The integers below `x`, or the rows of an array `x`, in random order.

    >>> import cartograd as cg
    >>> cg.sort(cg.random.permutation(4)).tolist()
    [0, 1, 2, 3]
    """
    n = x if isinstance(x, int) else array_node(x, "permutation").shape[0]
    g = generator or default_generator
    pair = wrap(g._draw((2, n))).astype(DEFAULT_INT)  # pyright: ignore[reportPrivateUsage]
    order = searching.argsort(((pair[0] & 0x7FFFFFFF) << 32) | pair[1])
    return order if isinstance(x, int) else indexing.take(x, order, axis=0)


shuffle = permutation


def randperm(n: int, *, generator: Generator | None = None) -> Tensor:
    """The integers below n in random order.

    >>> import cartograd as cg
    >>> cg.random.randperm(3).shape
    (3,)
    """
    return permutation(n, generator=generator)


def categorical(
    logits: Any, *shape: Any, axis: int = -1, generator: Generator | None = None
) -> Tensor:
    """Class indices with probabilities softmax(logits) along an axis, by the Gumbel trick.

    >>> import cartograd as cg
    >>> cg.random.categorical(cg.asarray([-100.0, 100.0])).item()
    1
    """
    node = array_node(logits, "categorical")
    lead = _shape(shape, "categorical") if shape else ()
    noise = gumbel((*lead, *node.shape), generator=generator)
    wide = wrap(broadcast_node(node, (*lead, *node.shape)))
    return (wide + noise).argmax(axis=axis if axis < 0 else axis + len(lead))


def choice(
    a: Any, shape: Any = (), *, replace: bool = True, p: Any = None,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Random elements of a 1-d array, or of the integers below `a`.

    >>> import cartograd as cg
    >>> cg.random.choice(3, (2,)).shape
    (2,)
    """
    n = a if isinstance(a, int) else array_node(a, "choice").shape[0]
    dims = checked_shape(shape, "choice")
    count = math.prod(dims)
    if p is not None:
        logits = wrap(array_node(p, "choice")).log()
        if not replace:
            picked = (logits + gumbel((n,), generator=generator)).argsort(descending=True)[:count]
        else:
            picked = categorical(logits, (count,), generator=generator)
    elif replace:
        picked = randint(n, shape=(count,), generator=generator)
    else:
        if count > n:
            raise UsageError(f"choice: {count} of {n} without replacement{where_called()}")
        picked = permutation(n, generator=generator)[:count]
    index = picked.reshape(dims)
    return index if isinstance(a, int) else indexing.take(a, index, axis=0)
