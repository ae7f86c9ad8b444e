"""The native codes of the elementwise ops, against NumPy, mpmath and the records' own meaning."""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from cartograd.compiler.ir import Builder, Module, Value, register_dtype
from cartograd.compiler.llvm import compile_text, load
from cartograd.compiler.tape import convert, is_point
from cartograd.dtype import ALL, DType, bool_, float32, float64, kind_of
from cartograd.ops.op import REGISTRY, Op, argument
from tests.ops.truth import BINARY, DIGITS, UNARY, Binary, Unary
from tests.ops.ulps import points_of

Array = np.ndarray[Any, Any]
Run = Callable[..., Array]

LANES = {
    1: 16,
    2: 16,
    4: 8,
    8: 4,
}  # by size of element: 256 bits, or as many as an eager test needs
TOLERANCE = 4.0
FLOATS = (float32, float64)
ELEMENTWISE = [op for op in REGISTRY.values() if op.family == "elementwise"]
CODED = [op for op in ELEMENTWISE if op.emit is not None]
EXACT = [op for op in CODED if op.flops == 1]  # a few operations of IEEE 754: NumPy's bits
TRUTHS: dict[str, Unary | Binary] = {**UNARY, **BINARY}


# --- codes as functions of arrays ----------------------------------------------------------------


def _body(
    b: Builder, op: Op, dtypes: Sequence[DType], out: DType, params: Any, at: Value, n: int
) -> None:
    xs = [b.load(b.offset(f"%p{k}", at, d.itemsize), d, n) for k, d in enumerate(dtypes)]
    y = op.emit(b, *xs, **params)
    assert y.dtype == register_dtype(out)
    assert y.lanes == n
    b.store(y, b.offset("%out", at, out.itemsize), out)


def compiled(op: Op, dtype: DType, params: dict[str, Any]) -> tuple[Run, Run]:
    """An op in vectors with a scalar tail, and in scalars alone, as functions of arrays."""
    count = op.arity or 3
    dtypes = [bool_ if op.name == "where" and k == 0 else dtype for k in range(count)]
    out = bool_ if op.result == "bool" else dtype
    pointers = [*[f"p{k}" for k in range(count)], "out"]
    module = Module()
    for name, lanes in (("vectors", LANES[dtype.itemsize]), ("scalars", 1)):
        b = module.function(name, pointers, ["n"], public=True)
        end = b.integers["n"]
        whole = b.imul(b.idiv(end, lanes), lanes)
        with b.loop(0, whole, lanes) as i:
            _body(b, op, dtypes, out, params, i, lanes)
        with b.loop(whole, end) as i:
            _body(b, op, dtypes, out, params, i, 1)
        b.finish()
    native = load(compile_text(module.text()), ["vectors", "scalars"])
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (count + 1), ctypes.c_int64)

    def function(name: str) -> Run:
        call = kind(native.address(name))

        def run(*arrays: Array) -> Array:
            given = [np.ascontiguousarray(x, d) for x, d in zip(arrays, dtypes, strict=True)]
            y = np.empty(given[0].shape, out)
            call(*[x.ctypes.data for x in given], y.ctypes.data, y.size)
            return y

        run.__dict__["native"] = native  # the code lives as long as the function
        return run

    return function("vectors"), function("scalars")


@cache
def of(name: str, dtype: DType, **params: Any) -> Run:
    """An op's code as a function of arrays, checked to say the same in vectors and in scalars."""
    vectors, scalars = compiled(REGISTRY[name], dtype, params)

    def run(*arrays: Array) -> Array:
        y, z = vectors(*arrays), scalars(*arrays)
        assert alike(y, z).all()
        return y

    return run


def declines(op: Op, dtype: DType, **params: Any) -> bool:
    """Whether a code leaves a dtype or params to `eval`."""
    b = Module().function("asked", [])
    xs = [Value(f"%x{k}", register_dtype(dtype), 4) for k in range(op.arity)]
    return op.emit(b, *xs, **params) is None


def alike(y: Array, z: Array) -> Array:
    """Where two arrays have the same bits or are both NaN."""
    if kind_of(y.dtype) != "floating":
        return y == z
    a, b = y.astype(np.float64), z.astype(np.float64)
    return ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))


def spacing(x: Array, dtype: DType) -> Array:
    """The unit in the last place of a dtype at float64 numbers."""
    info = np.finfo(dtype)
    a = np.clip(np.abs(x), float(info.tiny), float(info.max))
    return np.exp2(np.floor(np.log2(a)) - info.nmant)


# --- points --------------------------------------------------------------------------------------


def special(dtype: DType) -> Array:
    """Zeros, ends of ranges, neighbours of them, and ordinary numbers of a dtype."""
    kind = kind_of(dtype)
    if kind == "bool":
        return np.array([True, False, True])
    if kind != "floating":
        i = np.iinfo(dtype)
        near = [0, 1, 2, 3, 5, 7, 100, i.max, i.max - 1, i.max // 2, i.min, i.min + 1, i.bits]
        near += [-1, -2, -3, -7] if i.min else [255, i.bits - 1]
        return np.array(near, np.int64 if i.min else np.uint64).astype(dtype)
    single = float64 if dtype == float64 else float32
    info = np.finfo(single)
    parts = (0.0, 0.25, 0.5, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 10.0, 88.8, 104.0, 710.0, 1e5, np.inf)
    ends = (info.max, info.tiny, info.smallest_subnormal, info.eps, info.tiny / 2, 1 - info.eps)
    a = np.array([*parts, *ends], single)
    with np.errstate(all="ignore"):
        return np.concatenate([a, -a, [np.nan]]).astype(dtype)


def grid(op: Op, dtype: DType) -> list[Array]:
    """All pairs of special values of a dtype, for the inputs of an op."""
    values = special(dtype)
    x, y = (a.ravel() for a in np.meshgrid(values, values))
    if op.name == "where":
        return [np.arange(x.size) % 3 == 0, x, y]
    return [x, y] if op.arity == 2 else [np.resize(values, 3 * values.size + 1)]


def spread(name: str, count: int, seed: int = 0) -> tuple[Array, ...]:
    """Float32 points of an op, at all scales."""
    return points_of(TRUTHS[name], count, np.float32, zlib.crc32(name.encode()) + seed)


def meaning(op: Op, arrays: Sequence[Array], params: Any) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(op.eval(*arrays, **params))


def params_of(op: Op) -> dict[str, Any]:
    return dict(op.samples[0].params)


# --- tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", EXACT, ids=lambda op: op.name)
def test_codes_of_single_operations_give_numpys_bits(op: Op) -> None:
    asked = [d for d in ALL if op.name == "where" or d.char in op.takes]
    for dtype in asked:
        if op.name != "where" and declines(op, dtype):
            continue
        arrays = grid(op, dtype)
        y, want = of(op.name, dtype)(*arrays), meaning(op, arrays, {})
        assert y.dtype == want.dtype
        if dtype.itemsize == 2 and kind_of(dtype) == "floating" and want.dtype == dtype:
            # NumPy's float16 and ml_dtypes' bfloat16 round each step and differ in signs of zeros.
            a, b = y.astype(np.float64), want.astype(np.float64)
            with np.errstate(all="ignore"):
                near = np.abs(a - b) <= np.abs(b) * 2 * _eps(dtype)
            good = (a == b) | (np.isnan(a) & np.isnan(b)) | near
        else:
            good = alike(y, want)
        at = int(np.argmin(good))
        assert good.all(), (dtype.name, [x[at] for x in arrays], y[at], want[at])


def _eps(dtype: DType) -> float:
    return 2.0**-10 if dtype.name == "float16" else 2.0**-7


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize("op", CODED, ids=lambda op: op.name)
def test_special_values_are_those_of_the_record(op: Op, dtype: DType) -> None:
    params = params_of(op)
    if op.name == "where" or dtype.char not in op.takes or declines(op, dtype, **params):
        return
    arrays = grid(op, dtype)
    y, want = of(op.name, dtype, **params)(*arrays), meaning(op, arrays, params)
    if op.result == "bool":
        assert (y == want).all()
        return
    ends = np.isnan(want) | np.isinf(want) | (want == 0) | np.isnan(y) | np.isinf(y) | (y == 0)
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):  # a unit from the end of the range is no error
        last = 4 * float(info.smallest_subnormal)
        close = np.abs(y.astype(np.float64) - want.astype(np.float64)) <= last
        top = (np.abs(y) >= info.max * (1 - 4 * info.eps)) & (y * want > 0)
        close |= top & (np.abs(want) >= info.max * (1 - 4 * info.eps))
    good = ~ends | alike(y, want) | close
    at = int(np.argmin(good))
    assert good.all(), ([x[at] for x in arrays], y[at], want[at])


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize("name", [n for n in TRUTHS if REGISTRY[n].emit is not None])
def test_errors_are_within_four_units_of_the_truth(name: str, dtype: DType) -> None:
    op, truth = REGISTRY[name], TRUTHS[name]
    if declines(op, dtype, **truth.params):
        return
    arrays = points_of(truth, 120, dtype.type, zlib.crc32(name.encode()))
    y = of(name, dtype, **truth.params)(*arrays)
    for k, point in enumerate(zip(*(a.tolist() for a in arrays), strict=True)):
        with mp.workdps(DIGITS):
            error = _error(truth, point, float(y[k]), dtype)
        assert error <= TOLERANCE, (point, y[k], error)


def _error(truth: Unary | Binary, point: Sequence[float], got: float, dtype: DType) -> float:
    """The error in units in the last place; where `truth` is loose, less that of rounded inputs."""
    info = np.finfo(dtype)
    exact_point = [mp.mpf(x) for x in point]
    exact = _exact(truth, exact_point)
    if not mp.isfinite(exact):
        return 0.0 if got == float(exact) or (mp.isnan(exact) and np.isnan(got)) else np.inf
    if abs(exact) > mp.mpf(float(info.max)) * (1 - 4 * mp.mpf(float(info.eps))):
        return 0.0 if got * float(mp.sign(exact)) >= float(info.max) * (1 - 8e-16) else np.inf
    if not np.isfinite(got):
        return np.inf
    unit = float(spacing(np.array(float(exact)), dtype))
    error = abs(mp.mpf(got) - exact)
    for k in range(len(point) if 0 in truth.loose else 0):
        moved = [x * (1 + float(info.eps) * (j == k)) for j, x in enumerate(exact_point)]
        error -= abs(_exact(truth, moved) - exact)
    return float(error / mp.mpf(unit))


def _exact(truth: Unary | Binary, point: Sequence[Any]) -> Any:
    return mp.mpf(truth.f[0](*point) if isinstance(truth, Unary) else truth.f(*point, 0, 0))


@pytest.mark.parametrize("name", [n for n in TRUTHS if REGISTRY[n].emit is not None])
def test_float32_is_within_four_units_of_float64(name: str) -> None:
    op, truth = REGISTRY[name], TRUTHS[name]
    arrays = spread(name, 30_000)
    y = of(name, float32, **truth.params)(*arrays)
    want = meaning(op, [a.astype(np.float64) for a in arrays], truth.params)
    top = float(np.finfo(float32).max)
    scale = np.abs(want)
    if 0 in truth.loose:  # near a zero that is no point of float32: units of what cancels
        scale = np.maximum(scale, 1.0 if isinstance(truth, Unary) else np.abs(arrays[0]))
    with np.errstate(all="ignore"):
        units = np.abs(y.astype(np.float64) - want) / spacing(scale, float32)
        both = (np.abs(want) >= top * (1 - 3e-7)) & (np.abs(y) >= top * (1 - 3e-7)) & (y * want > 0)
    units = np.where(both | (np.isnan(y) & np.isnan(want)), 0.0, units)
    at = int(np.argmax(np.nan_to_num(units, nan=np.inf, posinf=np.inf)))
    assert units[at] <= TOLERANCE, ([a[at] for a in arrays], y[at], want[at], units[at])


FAMILIES = [
    *[("gaussian", {"n": n}) for n in (1, 2, 3)],
    *[("normal_density", {"n": n}) for n in (1, 2, 3)],
    *[(f"{s}_derivative", {"i": i, "j": 2 - i}) for s in ("hypot", "atan2") for i in (0, 1, 2)],
    *[("pow_derivative", {"n": n, "m": m}) for n, m in ((2, 0), (0, 1))],
]


@pytest.mark.parametrize(("name", "params"), FAMILIES)
def test_higher_orders_agree_with_float64(name: str, params: dict[str, int]) -> None:
    op = REGISTRY[name]
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0, 8, 20_000), special(float32)]).astype(np.float32)
    y = np.concatenate([rng.uniform(-5, 5, 20_000), np.flip(special(float32))]).astype(np.float32)
    arrays = [x, y][: op.arity]
    got = of(name, float32, **params)(*arrays).astype(np.float64)
    want = meaning(op, [a.astype(np.float64) for a in arrays], params)
    with np.errstate(all="ignore"):
        rounded = want.astype(np.float32)
        units = np.abs(got - want) / spacing(want, float32)
    good = (units <= TOLERANCE) | (got == rounded) | (np.isnan(got) & np.isnan(want))
    at = int(np.argmin(good))
    assert good.all(), ([a[at] for a in arrays], got[at], want[at])


@pytest.mark.parametrize("name", ["gaussian", "normal_density"])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_the_bell_curves_derivatives_in_float64(name: str, n: int) -> None:
    x = np.random.default_rng(n).uniform(-7, 7, 300)
    y = of(name, float64, n=n)(x)
    f = UNARY[name].f[n]
    with mp.workdps(DIGITS):
        exact = [mp.mpf(f(mp.mpf(v))) for v in x.tolist()]
        errors = [float(abs(mp.mpf(a) - e)) for a, e in zip(y.tolist(), exact, strict=True)]
    units = np.array(errors) / spacing(np.array([float(e) for e in exact]), float64)
    assert units.max() <= TOLERANCE


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_large_angles_are_reduced_too(name: str, dtype: DType) -> None:
    x = 10.0 ** np.random.default_rng(0).uniform(3, 37, 400) * np.resize([1, -1, 1e-36], 400)
    x = x.astype(dtype)
    y = of(name, dtype)(x)
    with mp.workdps(80):
        exact = [getattr(mp, name)(mp.mpf(v)) for v in x.tolist()]
        errors = [float(abs(mp.mpf(a) - e)) for a, e in zip(y.tolist(), exact, strict=True)]
    units = np.array(errors) / spacing(np.array([float(e) for e in exact]), dtype)
    assert units.max() <= TOLERANCE


@pytest.mark.parametrize("dtype", [np.dtype(n) for n in ("int8", "int32", "int64", "uint16")])
@pytest.mark.parametrize("by", [1, 2, 3, 7, -3])
def test_integers_are_divided_shifted_and_raised_by_literals(dtype: DType, by: int) -> None:
    signed = kind_of(dtype) == "signed"
    names = ["floor_divide", "remainder"]
    names += ["bitwise_left_shift", "bitwise_right_shift", "pow"] if by > 0 else []
    if by < 0 and not signed:
        by = 250
    x = special(dtype)
    for name in names:
        op = REGISTRY[name]
        module = Module()
        for f, n in (("vectors", x.size), ("scalars", 1)):
            b = module.function(f, ["x", "y"], public=True)
            y = op.emit(b, b.load("%x", dtype, n), b.const(by, dtype, n))
            b.store(y, "%y", dtype)
            b.finish()
        native = load(compile_text(module.text()), ["vectors"])
        got = np.empty_like(x)
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(native.address("vectors"))
        call(x.ctypes.data, got.ctypes.data)
        assert (got == op.eval(x, np.full_like(x, by))).all(), (name, x, got)


def test_codes_decline_what_may_raise() -> None:
    int32, uint32 = np.dtype("int32"), np.dtype("uint32")
    for name in ("floor_divide", "remainder", "pow"):
        assert declines(REGISTRY[name], int32)
        assert declines(REGISTRY[name], uint32)
        assert not declines(REGISTRY[name], float32)
    for name in ("bitwise_left_shift", "bitwise_right_shift"):
        assert declines(REGISTRY[name], int32)
        assert not declines(REGISTRY[name], uint32)
    assert declines(REGISTRY["gaussian"], float32, n=9)


def test_the_compiler_asks_codes_about_literals() -> None:
    x = argument((4,), np.dtype("int32"))
    floor_divide = REGISTRY["floor_divide"]
    assert is_point(floor_divide(x, 7))
    assert not is_point(floor_divide(x, 0))
    assert not is_point(floor_divide(x, x))


@pytest.mark.parametrize("source", ALL, ids=lambda d: d.name)
def test_conversions_are_those_of_cast(source: DType) -> None:
    rng = np.random.default_rng(0)
    kind = kind_of(source)
    if kind == "floating":  # beyond 2**31 what NumPy gives depends on the processor
        ends = [np.inf, -np.inf, np.nan, -0.0, 0.5, -0.5, 1e-7, 65504.0]
        x = np.concatenate([rng.uniform(-300, 300, 64), rng.uniform(-2e9, 2e9, 64), ends])
    else:
        info = np.iinfo(source) if kind != "bool" else np.iinfo("uint8")
        x = rng.integers(info.min, info.max, 100, dtype=info.dtype, endpoint=True)
    with np.errstate(all="ignore"):
        x = x.astype(source)
    for target in ALL:
        if kind == "floating" and target.name in ("uint32", "uint64"):
            x = np.abs(x)
            x = x[x.astype(np.float64) < 2.0**31]
        module = Module()
        b = module.function("f", ["x", "y"], ["n"], public=True)
        with b.loop(0, b.integers["n"], 4) as i:
            y = convert(b, b.load(b.offset("%x", i, source.itemsize), source, 4), target)
            b.store(y, b.offset("%y", i, target.itemsize), target)
        b.finish()
        native = load(compile_text(module.text()), ["f"])
        given = np.ascontiguousarray(x[: x.size // 4 * 4])
        got = np.empty(given.shape, target)
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        call(native.address("f"))(given.ctypes.data, got.ctypes.data, given.size)
        with np.errstate(all="ignore"):
            want = REGISTRY["cast"].eval(given, target)
        good = alike(got, want)
        at = int(np.argmin(good))
        assert good.all(), (target.name, given[at], got[at], want[at])
