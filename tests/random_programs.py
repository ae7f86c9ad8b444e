"""Random typed programs: a table of operations, each said twice, and a generator over it.

`TABLE[name]` is a pair of functions of (params, *values): the same operation in `cg` and, written
independently, in NumPy. A program is its inputs and a list of steps; `random_program(seed)` makes
one by running NumPy as it goes, so that every step is legal, finite and of moderate size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.special as special

import cartograd as cg

Array = np.ndarray[Any, Any]
P = dict[str, Any]


@dataclass
class Step:
    """One operation of a program: its name, which earlier values it takes, and its parameters."""

    name: str
    args: tuple[int, ...]
    params: P = field(default_factory=dict[str, Any])


@dataclass
class Program:
    """Inputs, steps (value k of a program is input k or step k - len(inputs)) and outputs."""

    seed: int
    inputs: list[Array]
    steps: list[Step] = field(default_factory=list[Step])
    outputs: list[int] = field(default_factory=list[int])

    def run(self, column: int, values: Sequence[Any]) -> list[Any]:
        """The outputs, by the cg column (0) or the NumPy column (1) of the table."""
        known = list(values)
        for step in self.steps:
            known.append(TABLE[step.name][column](step.params, *(known[k] for k in step.args)))
        return [known[k] for k in self.outputs]

    def fragile(self, values: Sequence[Array]) -> bool:
        """Whether for these inputs some step is at a jump, where rounding decides."""
        known = list(values)
        for step in self.steps:
            given = [known[k] for k in step.args]
            if step.name in FRAGILE and FRAGILE[step.name](step.params, *given):
                return True
            known.append(TABLE[step.name][1](step.params, *given))
        return False

    def jumps(self, values: Sequence[Array]) -> list[Array]:
        """What the steps with jumps give: two inputs between which it differs are no near ones."""
        known, found = list(values), list[Array]()
        for step in self.steps:
            given = [known[k] for k in step.args]
            if step.name in JUMPS:
                found.append(JUMPS[step.name](step.params, *given))
            known.append(TABLE[step.name][1](step.params, *given))
        return found

    def __str__(self) -> str:
        lines = [f"seed {self.seed}"]
        lines += [f"  v{k} = input {x.shape}" for k, x in enumerate(self.inputs)]
        for k, step in enumerate(self.steps, len(self.inputs)):
            args = ", ".join(f"v{a}" for a in step.args)
            lines.append(f"  v{k} = {step.name}({args}) {step.params or ''}")
        lines.append(f"  return {', '.join(f'v{k}' for k in self.outputs)}")
        return "\n".join(lines)


# --- the table ------------------------------------------------------------------------------------

Pair = tuple[Callable[..., Any], Callable[..., Any]]


def _plain(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda p, *xs: f(*xs)


def _with(f: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    return lambda p, *xs: f(*xs, **fixed, **p)


def _logsumexp(p: P, x: Array) -> Array:
    top = np.max(x, axis=p["axis"], keepdims=True)
    total = np.log(np.sum(np.exp(x - top), axis=p["axis"], keepdims=True)) + top
    return total if p["keepdims"] else np.squeeze(total, axis=p["axis"])


def _np_scan(p: P, c: Array, xs: Array, a: Array) -> Array:
    rows = range(len(xs))
    ys = np.zeros((len(xs), *c.shape))
    for k in reversed(rows) if p["reverse"] else rows:
        c = np.tanh(0.7 * c * a + xs[k])
        ys[k] = c * np.cos(xs[k]) + a
    return np.concatenate([ys, c[None]])


def _cg_scan(p: P, c: Any, xs: Any, a: Any) -> Any:
    def body(carry: Any, x: Any) -> Any:
        carry = cg.tanh(0.7 * carry * a + x)
        return carry, carry * cg.cos(x) + a

    last, ys = cg.scan(body, c, xs, reverse=p["reverse"])
    return cg.concat([ys, last[None]])


def _np_cond(p: P, x: Array, y: Array) -> Array:
    return np.sin(x) * y if np.sum(x) > p["at"] else x * x - y


def _cg_cond(p: P, x: Any, y: Any) -> Any:
    if p["closed"]:
        return cg.cond(cg.sum(x) > p["at"], lambda: cg.sin(x) * y, lambda: x * x - y)
    return cg.cond(cg.sum(x) > p["at"], lambda a, b: cg.sin(a) * b, lambda a, b: a * a - b, x, y)


def _np_at(p: P, x: Array, v: Array) -> Array:
    flat, value = x.reshape(-1).copy(), np.sum(v)
    for k, (place, scale) in enumerate(zip(p["places"], p["scales"], strict=True)):
        if p["how"] == "add":
            flat[place] += scale * value
        else:
            flat[place] = scale * value + k
    return flat.reshape(x.shape)


def _cg_at(p: P, x: Any, v: Any) -> Any:
    places, value = np.array(p["places"], np.int64), cg.sum(v) * np.array(p["scales"], np.float64)
    flat = cg.reshape(x, (-1,) if x.size else (0,))
    if p["how"] == "add":
        found = flat.at[places].add(value)
    else:
        found = flat.at[places].set(value + np.arange(len(places)))
    return cg.reshape(found, x.shape)


def _np_gram(p: P, x: Array) -> Array:
    return x @ np.swapaxes(x, -1, -2) + 3.0 * np.eye(x.shape[-2])


def _cg_gram(p: P, x: Any) -> Any:
    return x @ x.mT + 3.0 * cg.eye(x.shape[-2], dtype=cg.float64)


def _np_topk(p: P, x: Array) -> Array:
    return np.flip(np.sort(x, axis=-1), -1)[..., : p["k"]]


def _softmax(p: P, x: Array) -> Array:
    e = np.exp(x - np.max(x, axis=p["axis"], keepdims=True))
    return e / np.sum(e, axis=p["axis"], keepdims=True)


def _two(x: Any) -> Any:
    """A pair of results as one value of the program, alternately: the sum of both."""
    return x[0] + x[1]


UNARY = {
    "negative": np.negative, "positive": np.positive, "square": np.square, "sin": np.sin,
    "cos": np.cos, "tanh": np.tanh, "atan": np.arctan, "asinh": np.arcsinh,
    "sigmoid": special.expit, "erf": special.erf, "erfc": special.erfc, "sinc": np.sinc,
    "softplus": lambda x: np.logaddexp(x, 0), "abs": np.abs, "relu": lambda x: np.maximum(x, 0),
    "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.round,
    "tan": np.tan,
}  # fmt: skip
UNIT = {  # of values in (-0.9, 0.9)
    "asin": np.arcsin, "acos": np.arccos, "atanh": np.arctanh, "exp": np.exp, "exp2": np.exp2,
    "expm1": np.expm1, "log1p": np.log1p, "sinh": np.sinh, "cosh": np.cosh,
    "erfinv": special.erfinv,
}  # fmt: skip
POSITIVE = {  # of values > 0.3
    "log": np.log, "log2": np.log2, "log10": np.log10, "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x), "reciprocal": np.reciprocal, "lgamma": special.gammaln,
    "digamma": special.digamma,
}  # fmt: skip
BINARY = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum,
    "minimum": np.minimum, "atan2": np.arctan2, "hypot": np.hypot, "logaddexp": np.logaddexp,
    "copysign": np.copysign,
}  # fmt: skip
OVER_POSITIVE = {  # the second is > 0.3
    "divide": np.divide, "remainder": np.remainder, "floor_divide": np.floor_divide,
}  # fmt: skip
COMPARE = {
    "less": np.less, "greater_equal": np.greater_equal, "equal": np.equal,
    "not_equal": np.not_equal,
}  # fmt: skip
REDUCE: dict[str, Callable[..., Any]] = {
    "sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod, "var": np.var,
}  # fmt: skip

TABLE: dict[str, Pair] = {
    name: (_plain(getattr(cg, name)), _plain(f))
    for group in (UNARY, UNIT, POSITIVE, BINARY, OVER_POSITIVE, COMPARE)
    for name, f in group.items()
}
TABLE |= {name: (_with(getattr(cg, name)), _with(f)) for name, f in REDUCE.items()}
TABLE |= {
    # weak scalars and constants
    "scale": (lambda p, x: p["by"] * x, lambda p, x: p["by"] * x),
    "shift": (lambda p, x: x + p["by"], lambda p, x: x + p["by"]),
    "from_scalar": (lambda p, x: p["by"] - x, lambda p, x: p["by"] - x),
    "power": (lambda p, x: x ** p["by"], lambda p, x: x ** p["by"]),
    "constant": (lambda p, x: x * p["value"], lambda p, x: x * p["value"]),
    "pow": (_plain(cg.pow), _plain(np.power)),
    "where": (_plain(cg.where), _plain(np.where)),
    "clip": (lambda p, x: cg.clip(x, -0.8, 1.1), lambda p, x: np.clip(x, -0.8, 1.1)),
    "as_float": (lambda p, x: x.astype(cg.float64), lambda p, x: x.astype(np.float64)),
    # movement
    "reshape": (lambda p, x: cg.reshape(x, p["shape"]), lambda p, x: x.reshape(p["shape"])),
    "permute": (lambda p, x: cg.permute_dims(x, p["axes"]), lambda p, x: x.transpose(p["axes"])),
    "flip": (_with(cg.flip), _with(np.flip)),
    "expand": (_with(cg.expand_dims), _with(np.expand_dims)),
    "squeeze": (_with(cg.squeeze), _with(np.squeeze)),
    "concat": (
        lambda p, *xs: cg.concat(list(xs), axis=p["axis"]),
        lambda p, *xs: np.concatenate(xs, axis=p["axis"]),
    ),
    "stack": (
        lambda p, *xs: cg.stack(list(xs), axis=p["axis"]),
        lambda p, *xs: np.stack(xs, axis=p["axis"]),
    ),
    "broadcast": (
        lambda p, x: cg.broadcast_to(x, p["shape"]),
        lambda p, x: np.broadcast_to(x, p["shape"]),
    ),
    "index": (lambda p, x: x[p["key"]], lambda p, x: x[p["key"]]),
    "roll": (
        lambda p, x: cg.roll(x, p["shift"], axis=p["axis"]),
        lambda p, x: np.roll(x, p["shift"], axis=p["axis"]),
    ),
    "tile": (lambda p, x: cg.tile(x, p["by"]), lambda p, x: np.tile(x, p["by"])),
    "repeat": (
        lambda p, x: cg.repeat(x, p["by"], axis=p["axis"]),
        lambda p, x: np.repeat(x, p["by"], axis=p["axis"]),
    ),
    "tril": (lambda p, x: cg.tril(x, k=p["k"]), lambda p, x: np.tril(x, p["k"])),
    "triu": (lambda p, x: cg.triu(x, k=p["k"]), lambda p, x: np.triu(x, p["k"])),
    "diff": (lambda p, x: cg.diff(x, axis=p["axis"]), lambda p, x: np.diff(x, axis=p["axis"])),
    "moveaxis": (
        lambda p, x: cg.moveaxis(x, p["source"], p["to"]),
        lambda p, x: np.moveaxis(x, p["source"], p["to"]),
    ),
    "unstack": (
        lambda p, x: _two(cg.unstack(x, axis=p["axis"])),
        lambda p, x: np.take(x, 0, p["axis"]) + np.take(x, 1, p["axis"]),
    ),
    # reductions and scans over an axis
    "std": (
        lambda p, x: cg.std(x, axis=p["axis"], correction=0),
        lambda p, x: np.std(x, axis=p["axis"]),
    ),
    "logsumexp": (_with(cg.logsumexp), _logsumexp),
    "softmax": (lambda p, x: cg.softmax(x, axis=p["axis"]), _softmax),
    "any": (_with(lambda x, axis: cg.any(x > 0, axis=axis)), lambda p, x: (x > 0).any(p["axis"])),
    "argmax": (_with(cg.argmax), _with(np.argmax)),
    "cumsum": (_with(cg.cumulative_sum), _with(np.cumsum)),
    "cumprod": (_with(cg.cumulative_prod), _with(np.cumprod)),
    "cumlse": (_with(cg.cumulative_logsumexp), _with(np.logaddexp.accumulate)),
    "sort": (
        lambda p, x: cg.sort(x, axis=p["axis"], descending=p["down"]),
        lambda p, x: (
            np.flip(np.sort(x, axis=p["axis"]), p["axis"])
            if p["down"]
            else np.sort(x, axis=p["axis"])
        ),
    ),
    "sort_by": (
        lambda p, x, y: cg.take_along_axis(x, cg.argsort(y, axis=-1, stable=True), axis=-1),
        lambda p, x, y: np.take_along_axis(x, np.argsort(y, axis=-1, kind="stable"), axis=-1),
    ),
    "topk": (lambda p, x: cg.topk(x, p["k"])[0], _np_topk),
    # products
    "matmul": (_plain(cg.matmul), _plain(np.matmul)),
    "self_product": (
        lambda p, x: cg.matmul(x, x.mT),
        lambda p, x: np.matmul(x, np.swapaxes(x, -1, -2)),
    ),
    "outer": (
        lambda p, x, y: cg.tensordot(x, y, axes=0),
        lambda p, x, y: np.multiply.outer(x, y),
    ),
    "einsum": (
        lambda p, x: cg.einsum("...i,...i->...", x, x),
        lambda p, x: np.sum(x * x, axis=-1),
    ),
    "vecdot": (
        lambda p, x, y: cg.vecdot(x, y, axis=-1),
        lambda p, x, y: np.sum(x * y, axis=-1),
    ),
    # gather and scatter
    "take": (
        lambda p, x: cg.take(x, cg.asarray(p["at"]), axis=p["axis"]),
        lambda p, x: np.take(x, p["at"], axis=p["axis"]),
    ),
    "take_at": (
        lambda p, x, i: cg.take(x, i % x.shape[0] if x.shape[0] else i, axis=0),
        lambda p, x, i: np.take(x, i % x.shape[0], axis=0),
    ),
    "at": (_cg_at, _np_at),
    # control
    "scan": (_cg_scan, _np_scan),
    "cond": (_cg_cond, _np_cond),
    "checkpoint": (
        lambda p, x: cg.checkpoint(lambda a: cg.sin(a) * a)(x),
        lambda p, x: np.sin(x) * x,
    ),
    "inner_grad": (
        lambda p, x: cg.grad(lambda a: cg.sum(cg.sin(a) * a))(x),
        lambda p, x: np.cos(x) * x + np.sin(x),
    ),
    "inner_vmap": (
        lambda p, x, y: cg.vmap(lambda a: a * cg.sum(cg.cos(a)) + y)(x),
        lambda p, x, y: np.stack([a * np.sum(np.cos(a)) + y for a in x]),
    ),
    # matrices, of a well-conditioned one
    "gram": (_cg_gram, _np_gram),
    "inv": (_plain(cg.linalg.inv), _plain(np.linalg.inv)),
    "det": (_plain(cg.linalg.det), _plain(np.linalg.det)),
    "cholesky": (_plain(cg.linalg.cholesky), _plain(np.linalg.cholesky)),
    "solve": (_plain(cg.linalg.solve), _plain(np.linalg.solve)),
    "slogdet": (
        lambda p, x: cg.linalg.slogdet(x)[1],
        lambda p, x: np.linalg.slogdet(x)[1],
    ),
}
# --- where a value depends on rounding: at jumps, and at ties that are not exact ------------------


def _near(x: Any, at: Any = 0.0) -> bool:
    """Whether some element is so close to a value that rounding decides on which side it is."""
    return bool(np.any(np.abs(np.asarray(x) - at) < 1e-9))


def _whole(x: Array) -> bool:
    return _near(x - np.round(x))


def _tied(x: Array, axis: Any) -> bool:
    """Whether two elements along an axis differ by no more than rounding, but differ."""
    if axis is None or isinstance(axis, tuple):
        x, axis = x.reshape(-1) if axis is None else np.moveaxis(x, axis, range(len(axis))), 0
        x = x.reshape(-1, *x.shape[2:]) if x.ndim > 1 else x
    gaps = np.diff(np.sort(x, axis=axis), axis=axis)
    return bool(np.any((gaps > 0) & (gaps < 1e-9)))


def _kink(gap: Any) -> bool:
    """Whether something is close to zero without being it."""
    return bool(np.any((np.abs(gap) < 1e-9) & (gap != 0)))


FRAGILE: dict[str, Callable[..., bool]] = {
    "floor": lambda p, x: _whole(x),
    "ceil": lambda p, x: _whole(x),
    "trunc": lambda p, x: _whole(x),
    "round": lambda p, x: _whole(x - 0.5),
    "sign": lambda p, x: _near(x),
    "abs": lambda p, x: _kink(x),
    "relu": lambda p, x: _kink(x),
    "clip": lambda p, x: _kink(x + 0.8) or _kink(x - 1.1),
    "copysign": lambda p, x, y: _near(y) or _kink(x),
    "atan2": lambda p, y, x: _near(y) or _near(x),
    "hypot": lambda p, x, y: _near(y) or _near(x),
    "maximum": lambda p, x, y: _kink(x - y),
    "minimum": lambda p, x, y: _kink(x - y),
    "remainder": lambda p, x, y: _whole(x / y),
    "floor_divide": lambda p, x, y: _whole(x / y),
    **dict.fromkeys(COMPARE, lambda p, x, y: _kink(x - y)),
    "any": lambda p, x, axis=0: _near(x),
    "argmax": lambda p, x: _tied(x, p["axis"]),
    "max": lambda p, x: _tied(x, p["axis"]),
    "min": lambda p, x: _tied(x, p["axis"]),
    "sort": lambda p, x: _tied(x, p["axis"]),
    "topk": lambda p, x: _tied(x, -1),
    "sort_by": lambda p, x, y: _tied(y, -1),
    "cond": lambda p, x, y: _near(np.sum(x), p["at"]),
    "std": lambda p, x: _near(np.std(x, axis=p["axis"])),
    "cumprod": lambda p, x: _kink(x),
    "prod": lambda p, x: _kink(x),
}


JUMPS: dict[str, Callable[..., Any]] = {
    **{k: TABLE[k][1] for k in ("floor", "ceil", "trunc", "round", "sign", "floor_divide")},
    **{k: TABLE[k][1] for k in ("any", "argmax", *COMPARE)},
    "remainder": lambda p, x, y: np.floor(x / y),
    "sort_by": lambda p, x, y: np.argsort(y, axis=-1),
    "cond": lambda p, x, y: np.sum(x) > p["at"],
    "atan2": lambda p, y, x: np.signbit(y) & (x < 0),
    "copysign": lambda p, x, y: np.signbit(y),
}


# --- the generator --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """How long axes are, with which chance, and how many elements an input has at most."""

    dims: tuple[int, ...] = (0, 1, 2, 3, 5, 7)
    chance: tuple[float, ...] = (0.03, 0.15, 0.27, 0.27, 0.18, 0.10)
    largest: int = 150


SMALL = Sizes()
# Whole vectors, tails, several blocks of a product, several chunks of work for threads.
LARGE = Sizes(
    (1, 3, 16, 33, 65, 127, 1000, 4097), (0.1, 0.15, 0.15, 0.15, 0.15, 0.1, 0.1, 0.1), 20_000
)
LONGEST_SCAN = 127


class Maker:
    """A program in the making, with the NumPy value of each step."""

    def __init__(self, seed: int, sizes: Sizes = SMALL) -> None:
        self.rng = np.random.default_rng(seed)
        self.sizes = sizes
        inputs = [self.rng.uniform(-2, 2, self.shape()) for _ in range(self.rng.integers(1, 4))]
        self.program = Program(seed, inputs)
        self.values: list[Array] = list(inputs)

    def shape(self) -> tuple[int, ...]:
        """A random shape of moderate size."""
        while True:
            rank = self.rng.choice(5, p=(0.1, 0.2, 0.35, 0.25, 0.1))
            shape = tuple(
                int(n) for n in self.rng.choice(self.sizes.dims, rank, p=self.sizes.chance)
            )
            if np.prod(shape) <= self.sizes.largest:
                return shape

    def step(self, name: str, *args: int, **params: Any) -> int:
        """Add a step and return its number; ValueError if it is not legal or not moderate."""
        given = [self.values[k] for k in args]
        if name in FRAGILE and FRAGILE[name](params, *given):
            raise ValueError(f"{name}: rounding decides")
        with warnings.catch_warnings(), np.errstate(divide="raise", invalid="raise", over="raise"):
            warnings.simplefilter("error")
            value = np.asarray(TABLE[name][1](params, *given))
        if value.size > 4 * self.sizes.largest or value.ndim > 6 or not np.all(np.isfinite(value)):
            raise ValueError(name)
        self.program.steps.append(Step(name, args, params))
        self.values.append(value)
        here = len(self.values) - 1
        if value.dtype.kind == "f" and value.size and np.max(np.abs(value)) > 30:
            return self.step("tanh", self.step("scale", here, by=0.02))
        return here

    def pick(self, kind: str = "f", test: Callable[[Array], bool] = lambda x: True) -> int:
        """A value of the program, recent ones more often; ValueError if none fits."""
        found = [k for k, v in enumerate(self.values) if v.dtype.kind in kind and test(v)]
        if not found:
            raise ValueError(kind)
        late = int(self.rng.integers(len(found)))
        return found[max(late, int(self.rng.integers(len(found))))]

    def axis(self, x: Array, nonempty: bool = True) -> int:
        """An axis of a value, sometimes counted from the end."""
        axes = [k for k in range(x.ndim) if x.shape[k] or not nonempty]
        if not axes:
            raise ValueError("no axis")
        k = int(self.rng.choice(axes))
        return k if self.rng.random() < 0.5 else k - x.ndim

    def beside(self, x: Array) -> int:
        """A value that broadcasts with x, perhaps x itself."""

        def fits(y: Array) -> bool:
            try:
                return int(np.prod(np.broadcast_shapes(x.shape, y.shape))) <= 2 * self.sizes.largest
            except ValueError:
                return False

        return self.pick("f", fits)

    def positive(self, k: int) -> int:
        """A step that makes a value larger than 0.3."""
        return self.step("shift", self.step("square", k), by=0.31)

    def unit(self, k: int) -> int:
        """A step that brings a value into (-0.9, 0.9)."""
        return self.step("scale", self.step("tanh", k), by=0.85)

    def choose(self, names: Sequence[str]) -> str:
        """One of several names."""
        return str(self.rng.choice(list(names)))

    def add(self) -> None:
        """One more operation, with what prepares its arguments."""
        family = self.choose(FAMILIES)
        getattr(self, "_" + family)()

    def _elementwise(self) -> None:
        k = self.pick()
        kind = self.rng.integers(4)
        if kind == 0:
            self.step(self.choose(tuple(UNIT)), self.unit(k))
        elif kind == 1:
            self.step(self.choose(tuple(POSITIVE)), self.positive(k))
        else:
            name = self.choose(tuple(UNARY))
            self.step(name, self.unit(k) if name == "tan" else k)

    def _binary(self) -> None:
        k = self.pick()
        other = self.beside(self.values[k])
        kind = self.rng.integers(5)
        if kind == 0:
            self.step(self.choose(tuple(OVER_POSITIVE)), k, self.positive(other))
        elif kind == 1:
            self.step("pow", self.positive(k), self.unit(other))
        else:
            self.step(self.choose(tuple(BINARY)), k, other)

    def _scalar(self) -> None:
        k = self.pick()
        name = self.choose(("scale", "shift", "from_scalar", "power", "constant", "clip"))
        if name == "clip":
            self.step(name, k)
        elif name == "constant":
            self.step(name, k, value=self.rng.uniform(-2, 2, self.values[k].shape[-1:]))
        elif name == "power":
            self.step(name, self.positive(k), by=float(self.rng.choice([0.5, 2, 3, -1, 1.7])))
        else:
            by = self.rng.choice([2, -1, 0]) if self.rng.random() < 0.5 else self.rng.normal()
            self.step(name, k, by=by.item() if hasattr(by, "item") else by)

    def _choice(self) -> None:
        k = self.pick()
        other = self.beside(self.values[k])
        test = self.step(self.choose(tuple(COMPARE)), k, other)
        if self.rng.random() < 0.2:
            self.step("as_float", test)
        else:
            third = self.beside(np.zeros(np.broadcast(self.values[test]).shape))
            self.step("where", test, self.choose_of(k, third), third)

    def choose_of(self, *items: int) -> int:
        """One of several numbers."""
        return int(self.rng.choice(items))

    def _move(self) -> None:
        k = self.pick()
        x, rng = self.values[k], self.rng
        name = self.choose((
            "reshape", "permute", "flip", "expand", "squeeze", "broadcast", "roll", "tile",
            "repeat", "tril", "triu", "diff", "moveaxis", "unstack",
        ))  # fmt: skip
        if name == "reshape":
            options = [(x.size,), (1, x.size), x.shape[::-1], (*x.shape, 1)]
            options += [(d, x.size // d) for d in (2, 3, 5) if x.size % d == 0]
            if x.size:
                options += [(-1,), (1, -1)]
            self.step(name, k, shape=options[int(rng.integers(len(options)))])
        elif name == "permute":
            self.step(name, k, axes=tuple(int(i) for i in rng.permutation(x.ndim)))
        elif name == "flip":
            self.step(name, k, axis=None if rng.random() < 0.3 else self.axis(x, False))
        elif name == "expand":
            self.step(name, k, axis=int(rng.integers(-x.ndim - 1, x.ndim + 1)))
        elif name == "squeeze":
            self.step(name, k, axis=int(rng.choice([i for i, n in enumerate(x.shape) if n == 1])))
        elif name == "broadcast":
            shape = tuple(3 if n == 1 and rng.random() < 0.6 else n for n in x.shape)
            self.step(name, k, shape=(2, *shape) if rng.random() < 0.5 else shape)
        elif name == "roll":
            self.step(name, k, shift=int(rng.integers(-4, 5)), axis=self.axis(x, False))
        elif name == "tile":
            self.step(name, k, by=tuple(int(i) for i in rng.integers(0 if x.ndim > 2 else 1, 3, 2)))
        elif name == "repeat":
            self.step(name, k, by=int(rng.integers(1, 4)), axis=self.axis(x, False))
        elif name in ("tril", "triu"):
            self.step(name, self.pick("f", lambda v: v.ndim >= 2), k=int(rng.integers(-2, 3)))
        elif name == "diff":
            self.step(name, k, axis=self.axis(x))
        elif name == "moveaxis":
            self.step(name, k, source=self.axis(x, False), to=self.axis(x, False))
        else:
            axes = [i for i, n in enumerate(x.shape) if n == 2]
            self.step(name, k, axis=int(rng.choice(axes)))

    def _join(self) -> None:
        k = self.pick()
        shape = self.values[k].shape
        other = self.pick("f", lambda v: v.shape == shape)
        many = (k, other, k) if self.rng.random() < 0.3 else (k, other)
        if self.rng.random() < 0.5:
            self.step("stack", *many, axis=int(self.rng.integers(-len(shape) - 1, len(shape) + 1)))
        else:
            self.step("concat", *many, axis=self.axis(self.values[k], False))

    def _index(self) -> None:
        k = self.pick("f", lambda v: v.ndim > 0)
        x, rng = self.values[k], self.rng
        key: list[Any] = []
        for n in x.shape[: int(rng.integers(1, x.ndim + 1))]:
            kind = int(rng.integers(7))
            if kind == 0 and n:
                key.append(int(rng.integers(-n, n)))
            elif kind == 1 and n:
                key.append(rng.integers(-n, n, int(rng.choice([1, 2, 2]))))
            elif kind == 2 and n:  # NumPy takes empty masks on axes of any length
                key.append(rng.random(n) < 0.6)
            elif kind == 3:
                key.append(slice(None, None, int(rng.choice([-1, 2, -2]))))
            else:
                low, high = sorted(rng.integers(-1, n + 2, 2).tolist())
                key.append(slice(low, high))
            if rng.random() < 0.1:
                key.append(None)
        if rng.random() < 0.2:
            key = [..., *key] if rng.random() < 0.5 else [*key, ...]
        self.step("index", k, key=tuple(key))

    def _reduce(self) -> None:
        k = self.pick()
        x, rng = self.values[k], self.rng
        name = self.choose((*REDUCE, "std", "logsumexp", "softmax", "any", "einsum"))
        if name in ("std", "softmax"):
            self.step(name, k, axis=self.axis(x))
        elif name == "any":
            self.step("as_float", self.step(name, k, axis=self.axis(x, False)))
        elif name == "einsum":
            self.step(name, self.pick("f", lambda v: v.ndim > 0))
        else:
            options: list[Any] = [None, self.axis(x, name not in ("sum", "prod"))]
            if x.ndim > 1:
                options.append((0, x.ndim - 1))
                options.append((-1, 0))
            axis = options[int(rng.integers(len(options)))]
            if name == "logsumexp" and axis is None:
                axis = tuple(range(x.ndim))
            self.step(name, k, axis=axis, keepdims=bool(rng.random() < 0.3))

    def _along(self) -> None:
        k = self.pick("f", lambda v: v.ndim > 0)
        x = self.values[k]
        name = self.choose(("cumsum", "cumprod", "cumlse", "sort", "sort_by", "topk"))
        if name == "sort":
            self.step(name, k, axis=self.axis(x, False), down=bool(self.rng.random() < 0.5))
        elif name == "sort_by":
            self.step(name, k, self.pick("f", lambda v: v.shape == x.shape))
        elif name == "topk":
            self.step(name, k, k=int(self.rng.integers(1, x.shape[-1] + 1)))
        else:
            self.step(name, k, axis=self.axis(x))

    def _product(self) -> None:
        rng = self.rng
        k = self.pick("f", lambda v: v.ndim > 0)
        x = self.values[k]
        kind = rng.integers(4)
        if kind == 0:
            self.step("self_product", self.pick("f", lambda v: v.ndim >= 2))
        elif kind == 1:
            self.step("outer", k, self.pick("f", lambda v: v.size * x.size <= self.sizes.largest))
        elif kind == 2:
            self.step("vecdot", k, self.pick("f", lambda v: v.shape[-1:] == x.shape[-1:]))
        else:
            n = x.shape[-1]
            fit = self.pick("f", lambda v: v.ndim > 0 and v.shape[-2 if v.ndim > 1 else -1] == n)
            self.step("matmul", k, fit)

    def _gather(self) -> None:
        k = self.pick("f", lambda v: v.ndim > 0)
        x, rng = self.values[k], self.rng
        kind = rng.integers(4)
        if kind == 0:
            axis = self.axis(x)
            at = rng.integers(
                -x.shape[axis], x.shape[axis], tuple(rng.integers(1, 4, rng.integers(3)))
            )
            self.step("take", k, at=np.asarray(at), axis=axis)
        elif kind == 1:
            place = self.step("argmax", k, axis=self.axis(x))
            self.step("take_at", self.pick("f", lambda v: v.ndim > 0), place)
        else:
            count = int(rng.integers(0, 4))
            places = rng.integers(-x.size, x.size, count).tolist() if x.size else []
            scales = rng.normal(size=len(places)).tolist()
            how = self.choose(("add", "set"))
            self.step("at", k, self.pick(), places=places, scales=scales, how=how)

    def _control(self) -> None:
        rng = self.rng
        kind = rng.integers(5)
        if kind == 0:
            xs = self.pick("f", lambda v: v.ndim > 0 and len(v) <= LONGEST_SCAN)
            shape = self.values[xs].shape[1:]
            one = self.pick("f", lambda v: v.shape == shape)
            self.step("scan", one, xs, self.choose_of(one, self.pick("f", lambda v: v.shape == ())
                      if any(v.shape == () and v.dtype.kind == "f" for v in self.values) else one),
                      reverse=bool(rng.random() < 0.5))  # fmt: skip
        elif kind == 1:
            k = self.pick()
            shape = self.values[k].shape
            other = self.pick("f", lambda v: v.shape == shape)
            self.step("cond", k, other, at=float(rng.normal()), closed=bool(rng.random() < 0.5))
        elif kind == 2:
            self.step("checkpoint", self.pick())
        elif kind == 3:
            self.step("inner_grad", self.pick())
        else:
            k = self.pick("f", lambda v: v.ndim > 0 and v.shape[0] > 0)
            shape = self.values[k].shape[1:]
            self.step("inner_vmap", k, self.pick("f", lambda v: v.shape in (shape, ())))

    def _matrix(self) -> None:
        k = self.pick("f", lambda v: v.ndim >= 2 and v.shape[-2] <= 5)
        square = self.step("gram", self.unit(k))
        name = self.choose(("inv", "det", "cholesky", "slogdet", "solve"))
        if name == "solve":
            self.step(name, square, self.pick("f", lambda v: v.shape == self.values[square].shape))
        else:
            self.step(name, square)


FAMILIES = (
    "elementwise", "elementwise", "elementwise", "binary", "binary", "binary", "scalar", "choice",
    "move", "move", "move", "join", "index", "index", "reduce", "reduce", "along", "product",
    "gather", "gather", "control", "control", "matrix",
)  # fmt: skip


def random_program(seed: int, sizes: Sizes = SMALL) -> Program:
    """The program of a seed: 5 to about 40 steps, its outputs every float value not used again."""
    maker = Maker(seed, sizes)
    wanted = int(maker.rng.integers(5, 36))
    for _ in range(40 * wanted):
        if len(maker.program.steps) >= wanted:
            break
        before = len(maker.program.steps)
        try:
            maker.add()
        except (ValueError, IndexError, FloatingPointError, TypeError, RuntimeWarning):
            assert len(maker.values) == len(maker.program.inputs) + len(maker.program.steps)
            del maker.program.steps[before:]
            del maker.values[before + len(maker.program.inputs) :]
    program = maker.program
    used = {k for step in program.steps for k in step.args}
    program.outputs = [
        k for k, v in enumerate(maker.values) if v.dtype.kind == "f" and k not in used
    ]
    return program
