"""The names and parameters of the array API standard 2025.12, and that ours take calls like them.

The tables say what the standard requires. A function may take more: everything more is optional.
"""

import inspect
from inspect import Parameter
from typing import Any

import pytest

import cartograd as cg

MAIN = """
abs(x, /)  acos(x, /)  acosh(x, /)  asin(x, /)  asinh(x, /)  atan(x, /)  atanh(x, /)
bitwise_invert(x, /)  ceil(x, /)  conj(x, /)  cos(x, /)  cosh(x, /)  exp(x, /)  expm1(x, /)
floor(x, /)  imag(x, /)  isfinite(x, /)  isinf(x, /)  isnan(x, /)  log(x, /)  log1p(x, /)
log2(x, /)  log10(x, /)  logical_not(x, /)  negative(x, /)  positive(x, /)  real(x, /)
reciprocal(x, /)  round(x, /)  sign(x, /)  signbit(x, /)  sin(x, /)  sinh(x, /)  sqrt(x, /)
square(x, /)  tan(x, /)  tanh(x, /)  trunc(x, /)

add(x1, x2, /)  atan2(x1, x2, /)  bitwise_and(x1, x2, /)  bitwise_left_shift(x1, x2, /)
bitwise_or(x1, x2, /)  bitwise_right_shift(x1, x2, /)  bitwise_xor(x1, x2, /)
copysign(x1, x2, /)  divide(x1, x2, /)  equal(x1, x2, /)  floor_divide(x1, x2, /)
greater(x1, x2, /)  greater_equal(x1, x2, /)  hypot(x1, x2, /)  less(x1, x2, /)
less_equal(x1, x2, /)  logaddexp(x1, x2, /)  logical_and(x1, x2, /)  logical_or(x1, x2, /)
logical_xor(x1, x2, /)  maximum(x1, x2, /)  minimum(x1, x2, /)  multiply(x1, x2, /)
nextafter(x1, x2, /)  not_equal(x1, x2, /)  pow(x1, x2, /)  remainder(x1, x2, /)
subtract(x1, x2, /)  clip(x, /, min=None, max=None)

arange(start, /, stop=None, step=1, *, dtype=None, device=None)
asarray(obj, /, *, dtype=None, device=None, copy=None)
empty(shape, *, dtype=None, device=None)  empty_like(x, /, *, dtype=None, device=None)
eye(n_rows, n_cols=None, /, *, k=0, dtype=None, device=None)
from_dlpack(x, /, *, device=None, copy=None)
full(shape, fill_value, *, dtype=None, device=None)
full_like(x, /, fill_value, *, dtype=None, device=None)
linspace(start, stop, /, num, *, dtype=None, device=None, endpoint=True)
meshgrid(*arrays, indexing="xy")
ones(shape, *, dtype=None, device=None)  ones_like(x, /, *, dtype=None, device=None)
tril(x, /, *, k=0)  triu(x, /, *, k=0)
zeros(shape, *, dtype=None, device=None)  zeros_like(x, /, *, dtype=None, device=None)

astype(x, dtype, /, *, copy=True, device=None)  can_cast(from_, to, /)  finfo(type, /)
iinfo(type, /)  isdtype(dtype, kind)  result_type(*arrays_and_dtypes)

take(x, indices, /, *, axis=None)  take_along_axis(x, indices, /, *, axis=-1)

matmul(x1, x2, /)  matrix_transpose(x, /)  tensordot(x1, x2, /, *, axes=2)
vecdot(x1, x2, /, *, axis=-1)

broadcast_arrays(*arrays)  broadcast_shapes(*shapes)  broadcast_to(x, /, shape)
concat(arrays, /, *, axis=0)  expand_dims(x, /, axis)  flip(x, /, *, axis=None)
moveaxis(x, source, destination, /)  permute_dims(x, /, axes)
repeat(x, repeats, /, *, axis=None)  reshape(x, /, shape, *, copy=None)
roll(x, /, shift, *, axis=None)  squeeze(x, /, axis)  stack(arrays, /, *, axis=0)
tile(x, repetitions, /)  unstack(x, /, *, axis=0)

argmax(x, /, *, axis=None, keepdims=False)  argmin(x, /, *, axis=None, keepdims=False)
count_nonzero(x, /, *, axis=None, keepdims=False)  nonzero(x, /)
searchsorted(x1, x2, /, *, side="left", sorter=None)  where(condition, x1, x2, /)

isin(x1, x2, /, *, invert=False)
unique_all(x, /)  unique_counts(x, /)  unique_inverse(x, /)  unique_values(x, /)

argsort(x, /, *, axis=-1, descending=False, stable=True)
sort(x, /, *, axis=-1, descending=False, stable=True)

cumulative_prod(x, /, *, axis=None, dtype=None, include_initial=False)
cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False)
max(x, /, *, axis=None, keepdims=False)  mean(x, /, *, axis=None, keepdims=False)
min(x, /, *, axis=None, keepdims=False)
prod(x, /, *, axis=None, dtype=None, keepdims=False)
std(x, /, *, axis=None, correction=0.0, keepdims=False)
sum(x, /, *, axis=None, dtype=None, keepdims=False)
var(x, /, *, axis=None, correction=0.0, keepdims=False)

all(x, /, *, axis=None, keepdims=False)  any(x, /, *, axis=None, keepdims=False)
diff(x, /, *, axis=-1, n=1, prepend=None, append=None)

__array_namespace_info__()
"""

LINALG = """
cholesky(x, /, *, upper=False)  cross(x1, x2, /, *, axis=-1)  det(x, /)
diagonal(x, /, *, offset=0)  eigh(x, /)  eigvalsh(x, /)  inv(x, /)  matmul(x1, x2, /)
matrix_norm(x, /, *, keepdims=False, ord="fro")  matrix_power(x, n, /)
matrix_rank(x, /, *, rtol=None)  matrix_transpose(x, /)  outer(x1, x2, /)
pinv(x, /, *, rtol=None)  qr(x, /, *, mode="reduced")  slogdet(x, /)  solve(x1, x2, /)
svd(x, /, *, full_matrices=True)  svdvals(x, /)  tensordot(x1, x2, /, *, axes=2)
trace(x, /, *, offset=0, dtype=None)  vecdot(x1, x2, /, *, axis=-1)
vector_norm(x, /, *, axis=None, keepdims=False, ord=2)
"""

METHODS = """
__abs__()  __bool__()  __complex__()  __dlpack_device__()  __float__()  __index__()  __int__()
__invert__()  __neg__()  __pos__()
__add__(other, /)  __and__(other, /)  __eq__(other, /)  __floordiv__(other, /)  __ge__(other, /)
__getitem__(key, /)  __gt__(other, /)  __le__(other, /)  __lshift__(other, /)  __lt__(other, /)
__matmul__(other, /)  __mod__(other, /)  __mul__(other, /)  __ne__(other, /)  __or__(other, /)
__pow__(other, /)  __rshift__(other, /)  __setitem__(key, value, /)  __sub__(other, /)
__truediv__(other, /)  __xor__(other, /)
__radd__(other, /)  __rand__(other, /)  __rfloordiv__(other, /)  __rlshift__(other, /)
__rmatmul__(other, /)  __rmod__(other, /)  __rmul__(other, /)  __ror__(other, /)
__rpow__(other, /)  __rrshift__(other, /)  __rsub__(other, /)  __rtruediv__(other, /)
__rxor__(other, /)
__array_namespace__(*, api_version=None)
__dlpack__(*, stream=None, max_version=None, dl_device=None, copy=None)
to_device(device, /, *, stream=None)
"""

INFO = """
capabilities()  default_device()  default_dtypes(*, device=None)
dtypes(*, device=None, kind=None)  devices()
"""

DTYPES = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32",
    "float64",
}  # fmt: skip


def parse(table: str) -> list[tuple[str, str]]:
    entries = table.replace(")", ")\n").split("\n")
    pairs = [entry.strip().rstrip(")").split("(", 1) for entry in entries if entry.strip()]
    return [(name, params) for name, params in pairs]


def required(params: str) -> list[Parameter]:
    return list(inspect.signature(eval(f"lambda {params}: None")).parameters.values())


def check(function: Any, wanted: list[Parameter], without_defaults: bool = False) -> None:
    found = list(inspect.signature(function).parameters.values())
    names = {p.name: p for p in found}
    by_position = [p for p in wanted if p.kind is not Parameter.KEYWORD_ONLY]
    for place, want in enumerate(by_position):
        have = found[place]
        if want.kind is Parameter.POSITIONAL_ONLY:
            assert have.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        else:
            assert (have.name, have.kind) == (want.name, want.kind)
        if want.default is not Parameter.empty:
            assert have.default == want.default
    for want in wanted:
        if want.kind is Parameter.KEYWORD_ONLY:
            have = names[want.name]
            assert have.kind in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
            assert have.default == want.default
    more = [p for p in found[len(by_position) :] if p.name not in {w.name for w in wanted}]
    variadic = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    assert all(p.default is not Parameter.empty or p.kind in variadic for p in more)


def cases(table: str) -> Any:
    pairs = parse(table)
    return pytest.mark.parametrize(("name", "params"), pairs, ids=[name for name, _ in pairs])


@cases(MAIN)
def test_a_function_of_the_main_namespace(name: str, params: str) -> None:
    check(getattr(cg, name), required(params))


@cases(LINALG)
def test_a_function_of_linalg(name: str, params: str) -> None:
    check(getattr(cg.linalg, name), required(params))


@cases(METHODS)
def test_a_method_of_the_array(name: str, params: str) -> None:
    check(getattr(cg.ones(2), name), required(params))


@cases(INFO)
def test_a_method_of_the_namespace_info(name: str, params: str) -> None:
    check(getattr(cg.__array_namespace_info__(), name), required(params))


def test_the_tables_are_whole() -> None:
    # The standard has 136 functions in its main namespace (with the info) and 25 in linalg,
    # of which eig and eigvals are complex.
    assert len(parse(MAIN)) == 136
    assert len(parse(LINALG)) == 23


def test_elementwise_signatures_say_positional_only() -> None:
    assert str(inspect.signature(cg.tanh)).startswith("(x: ")
    kinds = [p.kind for p in inspect.signature(cg.atan2).parameters.values()]
    assert kinds == [Parameter.POSITIONAL_ONLY] * 2
    assert list(inspect.signature(cg.atan2).parameters) == ["x1", "x2"]
    with pytest.raises(TypeError):
        cg.add(x1=1, x2=2)


def test_constants_and_dtypes_are_there() -> None:
    assert (cg.e, cg.pi) == (2.718281828459045, 3.141592653589793)
    assert cg.inf == float("inf") and cg.nan != cg.nan and cg.newaxis is None
    for name in DTYPES:
        assert getattr(cg, name).name == name
        assert getattr(cg, name) == getattr(cg, name)
    assert cg.__array_api_version__ == "2025.12"
    assert cg.__name__ == "cartograd"


def test_attributes_of_the_array() -> None:
    x = cg.ones((2, 3))
    assert (x.shape, x.ndim, x.size, x.dtype, x.device) == ((2, 3), 2, 6, cg.float32, "cpu")
    assert (x.T.shape, x.mT.shape) == ((3, 2), (3, 2))
    assert x.to_device("cpu") is x
    assert x.__array_namespace__() is cg
    assert x.__array_namespace__(api_version="2022.12") is cg
    with pytest.raises(NotImplementedError, match="2019"):
        x.__array_namespace__(api_version="2019.12")


def test_namespace_info() -> None:
    info = cg.__array_namespace_info__()
    assert info.capabilities() == {
        "boolean indexing": True,
        "data-dependent shapes": True,
        "max dimensions": 64,
    }
    assert info.devices() == ("cpu",) and info.default_device() in info.devices()
    defaults = info.default_dtypes()
    assert defaults["real floating"] == cg.float32
    assert defaults["integral"] == defaults["indexing"] == cg.int64
    assert "complex floating" in defaults
    assert set(info.dtypes()) == set(DTYPES)
    assert set(info.dtypes(kind="bool")) == {"bool"}
    assert set(info.dtypes(kind="signed integer")) == {"int8", "int16", "int32", "int64"}
    assert set(info.dtypes(kind="unsigned integer")) == {"uint8", "uint16", "uint32", "uint64"}
    assert set(info.dtypes(kind="real floating")) == {"float32", "float64"}
    assert info.dtypes(kind="complex floating") == {}
    assert set(info.dtypes(kind=("bool", "real floating"))) == {"bool", "float32", "float64"}
    assert len(info.dtypes(kind="numeric")) == 10 and len(info.dtypes(kind="integral")) == 8
    for x in (cg.arange(3), cg.ones(2), cg.argmax(cg.ones(2)), cg.nonzero(cg.ones(2))[0]):
        assert x.dtype in defaults.values()


@pytest.mark.parametrize("name", ["fft", "complex64", "complex128"])
def test_what_is_left_out_says_so(name: str) -> None:
    assert not hasattr(cg, name)
    with pytest.raises(cg.errors.UnsupportedNameError, match="complex dtypes"):
        getattr(cg, name)


@pytest.mark.parametrize("name", ["eig", "eigvals"])
def test_linear_algebra_that_is_left_out_says_so(name: str) -> None:
    assert not hasattr(cg.linalg, name)
    with pytest.raises(cg.errors.UnsupportedNameError, match="complex"):
        getattr(cg.linalg, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(cg.linalg, "no_such" + "_name")


def test_complex_numbers_are_refused_by_name() -> None:
    for make in (
        lambda: cg.asarray(1j),
        lambda: cg.asarray([1.0, 2j]),
        lambda: cg.zeros(2, dtype=complex),
        lambda: cg.zeros(2, dtype="complex64"),
        lambda: cg.full(2, 1j),
        lambda: cg.ones(2) * 1j,
        lambda: cg.ones(2).astype("complex128"),
    ):
        with pytest.raises(cg.errors.UnsupportedError, match="complex"):
            make()
