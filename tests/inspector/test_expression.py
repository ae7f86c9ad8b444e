"""Typed expressions: what they mean (beside NumPy), and that nothing else can be done with them."""

import math
import re

import numpy as np
import pytest

import cartograd as cg
from cartograd.inspector.expression import LARGEST, evaluate_expression, parse_value
from cartograd.inspector.limits import memory_limit
from cartograd.inspector.vocabulary import vocabulary

DOUBLE = np.dtype(np.float64)


def values(**given):
    return {name: parse_value(text, name, DOUBLE) for name, text in given.items()}


@pytest.fixture(autouse=True)
def _limited():
    """As on the command line: what asks for more memory than that is told so."""
    with memory_limit(2 << 30):
        yield


X = values(x="[1, 2]", a="[[1, 2], [3, 4]]", s="0.5")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2", 3),
        ("1/3*s", 0.5 / 3),
        ("2**0.5", math.sqrt(2)),
        ("2**-1", 0.5),
        ("7 // 2 + 7 % 4", 6),
        ("-s**2", -0.25),
        ("+s - -s", 1.0),
        ("x @ x", 5.0),
        ("a @ x", [5.0, 11.0]),
        ("a.T", [[1, 3], [2, 4]]),
        ("a.mT[0]", [1, 3]),
        ("x[::-1]", [2, 1]),
        ("x[None, :1]", [[1]]),
        ("a[..., 1]", [2, 4]),
        ("a[1, [0, 0]]", [3, 3]),
        ("x[x > 1]", [2]),
        ("(x > 1) & (x < 3)", [False, True]),
        ("~(x > 1) | (x != x)", [True, False]),
        ("(x >= 2) ^ (x <= 2)", [True, False]),
        ("1 << 3 >> 1", 4),
        ("where(x == 1, x, 0)", [1, 0]),
        ("[1, 2] * x", [1, 4]),
        ("[s, s*2] + x", [1.5, 3]),
        ("[1, 2] * 1000000000", [10**9, 2 * 10**9]),
        ("sum([1, 2, 3])", 6),
        ("linalg.det([[1.0, 2], [3, 4]])", -2),
        ("linalg.svd(eye(2))[1]", [1, 1]),
        ("concat([x, [3.0]])", [1, 2, 3]),
        ("stack([x, x*2], axis=1)", [[1, 2], [2, 4]]),
        ("permute_dims(a, [1, 0])", [[1, 3], [2, 4]]),
        ("reshape(x, (2, 1))", [[1], [2]]),
        ("sum(a, axis=0, keepdims=True)", [[4, 6]]),
        ("einsum('ij,j->i', a, x)", [5, 11]),
        ("topk(x, 1)[0]", [2]),
        ("softmax([0.0, 0.0])", [0.5, 0.5]),
        ("nn.functional.relu(x - 1.5)", [0, 0.5]),
        ("cg.exp(log(x))", [1, 2]),
        ("astype(x, int64)", [1, 2]),
        ("full((2,), pi)", [math.pi, math.pi]),
        ("sum(x, axis=None)", 3),
        ("abs(-3)", 3),
        ("9.0**9**9", math.inf),
        ("0x10 + 1e1", 26),
        ("éa * 2", 4),
    ],
)
def test_values(text, expected):
    found = evaluate_expression(text, {**X, **values(éa="2")})
    np.testing.assert_allclose(found.numpy(), np.asarray(expected), rtol=1e-12)


def test_numbers_alone_are_of_the_dtype_asked_for():
    assert evaluate_expression("sin(1)", {}).dtype == np.float64
    assert evaluate_expression("sin(1)", {}).item() == pytest.approx(math.sin(1), rel=1e-15)
    assert evaluate_expression("0.5", {}, np.dtype(np.float32)).dtype == np.float32
    assert evaluate_expression("[1, 0.5]", {}, np.dtype(np.float32)).dtype == np.float32
    assert evaluate_expression("3", {}).dtype == np.int64
    for text in ("full(2, 0.1)", "zeros(2)", "linspace(0, 1, 3)", "random.normal((2,))"):
        assert evaluate_expression(text, {}).dtype == np.float64
    assert evaluate_expression("arange(3)", {}).dtype == np.int64
    assert evaluate_expression("zeros(2, dtype=int8)", {}).dtype == np.int8


HOSTILE = [
    ("x.__class__", "not allowed"),
    ("x.node", "not allowed"),
    ("().__class__.__bases__[0]", "not allowed"),
    ("__import__('os').system('true')", "no function __import__"),
    ("__builtins__", "has no value"),
    ("eval('1')", "no function eval"),
    ("open('/etc/passwd')", "no function open"),
    ("sum.__globals__", "not allowed"),
    ("(lambda: 1)()", "no function"),
    ("lambda: 1", "not allowed"),
    ("[i for i in x]", "not allowed"),
    ("{1: 2}", "not allowed"),
    ("{1, 2}", "not allowed"),
    ("f'{x}'", "not allowed"),
    ("(x := 1)", "not allowed"),
    ("'a' * 10**9", "not allowed"),
    ("b'a'", "not allowed"),
    ("x if x else 1", r"where\(condition"),
    ("0 < x < 1", r"\(x > 0\) & \(x < 1\)"),
    ("x and x", "write & and |"),
    ("not x", r"~\(\.\.\.\)"),
    ("x is x", "not allowed"),
    ("1j", "complex"),
    ("(-8) ** (1/3)", "complex"),
    ("1/0", r"division by zero \(in 1 / 0\)"),
    ("5 % 0", "division by zero"),
    ("0 ** -1", "division by zero"),
    ("9**9**9", "too large for a whole number"),
    ("9**9**9**9", "too large"),
    ("(-9)**9**9", "too large"),
    ("1 << 10**9", "too large"),
    ("1 << -1", "negative shift"),
    ("18446744073709551616", "too large"),
    ("0x" + "f" * 5000, "too large"),
    ("9" * 5000, "does not parse"),
    ("zeros(10**12)", r"1,000,000,000,000 elements.*in zeros"),
    ("sum(broadcast_to(x, (10**7, 2)))", "20,000,000 elements"),
    ("repeat(x, 10**9)", "memory"),
    ("eye(10**8)", "not enough memory|elements"),
    ("tile(x, (10**9,))", "elements|memory"),
    ("[1] * 10**30", "too large"),
    ("x + foo", "foo has no value: give it as foo=VALUE"),
    ("sn(x)", "did you mean sin"),
    ("sum", r"sum is a function: write sum\(\.\.\.\)"),
    ("sum(*x)", r"\* and \*\* are not allowed"),
    ("sum(x, **x)", r"\* and \*\* are not allowed"),
    ("sum(x, foo=1)", "unexpected keyword"),
    ("sum(x, axis=7)", r"axis 7 is out of range.*in sum"),
    ("x[5]", r"index 5 is out of range.*in x\[5\]"),
    ("x[1.0]", "an index"),
    ("3[0]", "no elements"),
    ("3 .T", "a number has no"),
    ("mean(x[:0])", "mean of no elements"),
    ("x @ a[0, :1]", "matmul"),
    ("[[1, 2], [3]] + x", "one length"),
    ("[1, 'a'] + x", "not allowed"),
    ("linalg.svd(a)", "3 results: choose one"),
    ("linalg.svd(a)['x']", "not allowed|chosen from by a number"),
    ("linalg.svd(a)[7]", "IndexError"),
    ("linalg.inv([[1.0, 1], [1, 1]])", "singular"),
    ("int8", "no graph"),
    ("int8 + 1", "cannot be computed with"),
    ("astype(x, 'nonsense')", "nonsense"),
    ("", "does not parse"),
    ("x;1", "does not parse at character 2"),
    ("x\x00", "does not parse"),
    ("x \x1b[2J", "does not parse"),
    ("\u202ex", "does not parse"),
    ("(" * 300 + "x" + ")" * 300, "too long or nested too deep|does not parse"),
    ("-" * 5000 + "x", "too long or nested too deep"),
    ("+".join(["x"] * 4000), "too long or nested too deep"),
    ("[" * 80 + "]" * 80, "dimension|one length|float"),
    ("x" * 10_001, "longer than 10000 characters"),
    ("from_dlpack(x)", "no function"),
    ("random.Generator(1)", "no function"),
    ("nn.Linear(1, 1)", "no function"),
]


@pytest.mark.parametrize(("text", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_expressions(text, message):
    with pytest.raises(cg.errors.CartogradError, match=message) as caught:
        evaluate_expression(text, X)
    assert "main.py" not in str(caught.value)
    assert not re.search(r"\(at [^)]*:\d+\)", str(caught.value)), "no line of code is the user's"
    assert len(str(caught.value)) < 500


def test_the_type_of_an_error_is_kept():
    for text, kind in (
        ("sum(x, axis=3)", cg.errors.AxisError),
        ("x + [1, 2, 3]", cg.errors.ShapeError),
        ("x[9]", cg.errors.IndexOutOfRangeError),
        ("asarray([1]) // asarray([0])", cg.errors.DivideByZeroError),
        ("linalg.inv([[0.0]])", cg.errors.LinAlgError),
    ):
        with pytest.raises(kind):
            evaluate_expression(text, X)


def test_an_error_names_the_innermost_part():
    with pytest.raises(cg.errors.ShapeError, match=r"\(in x \+ \[1, 2, 3\]\)$"):
        evaluate_expression("sum(exp(x + [1, 2, 3])) * 2", X)


def test_a_long_sum_is_fine():
    assert evaluate_expression("+".join(["x"] * 100), X).tolist() == [100, 200]


def test_the_limit_of_elements_is_exact():
    assert evaluate_expression(f"zeros({LARGEST})[0]", {}).item() == 0
    with pytest.raises(cg.errors.UsageError, match="elements"):
        evaluate_expression(f"zeros({LARGEST} + 1)[0]", {})


def test_every_function_can_be_called_without_a_crash():
    """Whatever is given, a function gives a Tensor or a typed error."""
    given = {**X, "i": cg.asarray([0, 1]), "m": cg.asarray([True, False])}
    for name in vocabulary():
        for args in ("", "x", "a", "i", "x, x", "a, a", "1", "[1, 2]", "x, 1", "'x'", "x, (0,)"):
            try:
                evaluate_expression(f"{name}({args})", given)
            except cg.errors.CartogradError as error:
                message = str(error)
            else:
                message = ""
            assert not re.search(r"\(at [^)]*:\d+\)", message), (name, args)


def test_the_whole_namespace_is_there():
    from cartograd.namespace import FUNCTIONS

    missing = set(FUNCTIONS) - set(vocabulary())
    assert missing == {
        *("broadcast_shapes", "can_cast", "finfo", "from_dlpack", "iinfo", "result_type"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", 2),
        ("-2.5e3", -2500),
        ("1/3", 1 / 3),
        ("[1, [2][0]][:1]", None),
        ("[[1, 2], [3, inf]]", [[1, 2], [3, math.inf]]),
        ("-inf", -math.inf),
        ("nan", math.nan),
        ("(1, 2)", [1, 2]),
        ("[]", []),
        (" 7 ", 7),
        ("True", 1),
        ("pi", math.pi),
    ],
)
def test_parse_value(text, expected):
    if expected is None:
        with pytest.raises(cg.errors.UsageError):
            parse_value(text, "x", DOUBLE)
    else:
        found = parse_value(text, "x", DOUBLE)
        assert found.requires_grad
        np.testing.assert_array_equal(found.numpy(), np.asarray(expected, np.float64))


@pytest.mark.parametrize(
    "text",
    [
        *("None", "'12'", "x", "__import__('os')", "9**9**9", "[[1, 2], [3]]", "{}", "", "[", "1j"),
        *("sin(1)", "9" * 400, "[1]*10**9", "int8", "..."),
    ],
)
def test_values_that_are_none(text):
    with pytest.raises(cg.errors.UsageError, match="must be a number or a list of numbers") as got:
        parse_value(text, "x", DOUBLE)
    assert len(str(got.value)) < 400
