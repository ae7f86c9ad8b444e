"""`explain`: the chain rule edge by edge, checked by adding it up; and what it looks like."""

import json

import numpy as np
import pytest

import cartograd as cg
from cartograd.inspector.typed import explain_expression

EXPRESSIONS = [
    ("(x + y) * z", ["x=-2", "y=5", "z=-4"]),
    ("x * x * x + x", ["x=3"]),
    ("sum(softmax(x) * y)", ["x=[1,2,3]", "y=[3,1,2]"]),
    ("linalg.det(a) * sum(a)", ["a=[[1,2],[3,5]]"]),
    ("where(x < 1, x, sqrt(x))", ["x=[0, 4]"]),
    ("maximum(x, y) ** 2", ["x=[1,2]", "y=[2,1]"]),
    ("sum(linalg.svd(a)[1])", ["a=[[1,2],[3,5]]"]),
    ("sum(linalg.solve(a, b))", ["a=[[1,2],[3,5]]", "b=[1,2]"]),
    ("mean(exp(x[::2]) / (1 + exp(x[::2])))", ["x=[1,2,3,4]"]),
    ("cumulative_sum(x)[1] * prod(x)", ["x=[1,2,3]"]),
    ("logsumexp(stack([x, y]))", ["x=1", "y=1"]),
    ("nn.functional.gelu(x) + tanh(x)", ["x=-0.5"]),
    ("x[x > 1] * 2", ["x=[0.5, 2]"]),
    ("einsum('ij,j->', a, b)", ["a=[[1,2],[3,5]]", "b=[1,2]"]),
]


def numeric(expression, given, name, step=1e-6):
    """The gradient of the sum by central differences."""
    pairs = dict(item.split("=") for item in given)
    at = np.asarray(json.loads(pairs[name]), np.float64)
    found = np.zeros(at.shape)
    for place in np.ndindex(at.shape):
        sides = []
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * step
            words = [f"{n}={moved.tolist() if n == name else v}" for n, v in pairs.items()]
            sides.append(np.sum(explain_expression(expression, words).value))
        found[place] = (sides[0] - sides[1]) / (2 * step)
    return found


@pytest.mark.parametrize(("expression", "given"), EXPRESSIONS)
def test_gradients_and_the_chain_rule(expression, given):
    found = explain_expression(expression, given)
    assert list(found.gradients) == [item.partition("=")[0] for item in given]
    nodes = {node.name: node for node in found.nodes}
    for name, gradient in found.gradients.items():
        if "where" not in expression:  # sqrt has no derivative at 0 from the left
            np.testing.assert_allclose(
                gradient, numeric(expression, given, name), rtol=1e-5, atol=1e-7
            )
        arriving = [e.contribution for e in found.edges if e.producer == name]
        np.testing.assert_allclose(sum(arriving), gradient, rtol=1e-14, atol=1e-300)
    for edge in found.edges:
        assert edge.producer in nodes
        assert edge.consumer in nodes
        came = nodes[edge.consumer].gradient
        if came is not None and nodes[edge.consumer].op != "svd":
            np.testing.assert_array_equal(edge.incoming, came)
        if edge.local is not None and not edge.untaken:
            np.testing.assert_array_equal(edge.incoming * edge.local, edge.contribution)
    for node in found.nodes:
        arriving = [e.contribution for e in found.edges if e.producer == node.name]
        if arriving and node.op != "svd":  # several outputs: no one gradient to add up to
            np.testing.assert_allclose(sum(arriving), node.gradient, rtol=1e-14, atol=1e-300)


def test_the_smallest_program():
    found = explain_expression("(x + y) * z", ["x=-2", "y=5", "z=-4"])
    assert str(found) == (
        "forward\n"
        "  x          = -2\n"
        "  y          = 5\n"
        "  z          = -4\n"
        "  v1 = x + y = 3\n"
        "  f = v1 * z = -12\n"
        "\n"
        "backward: incoming x local = contribution\n"
        "  f -> v1   1 x -4 = -4\n"
        "  f -> z    1 x 3 = 3\n"
        "  v1 -> x   -4 x 1 = -4\n"
        "  v1 -> y   -4 x 1 = -4\n"
        "\n"
        "gradients\n"
        "  d f / d x = -4\n"
        "  d f / d y = -4\n"
        "  d f / d z = 3"
    )
    told = json.loads(found.to_json())
    assert told["value"] == -12
    assert told["gradients"] == {"x": -4, "y": -4, "z": 3}
    assert [node["name"] for node in told["nodes"]] == ["x", "y", "z", "v1", "f"]
    assert told["nodes"][3] == {
        "name": "v1",
        "op": "add",
        "formula": "x + y",
        "shape": [],
        "dtype": "float64",
        "value": 3.0,
        "gradient": -4.0,
        "origin": "",
    }
    assert told["edges"][0] == {
        "producer": "v1",
        "consumer": "f",
        "argument": 0,
        "incoming": 1.0,
        "local": -4.0,
        "contribution": -4.0,
        "untaken": False,
    }


def test_an_untaken_branch_is_said_to_be_one():
    found = explain_expression("where(x < 1, x, sqrt(x))", ["x=0"])
    text = str(found)
    assert "v1 = x < 1           = True" in text
    assert "f -> v2   1 x 0 = 0" in text
    assert "v2 -> x   0 x inf = 0    (branch not taken)" in text
    assert found.gradients["x"] == 1
    assert [edge["untaken"] for edge in json.loads(found.to_json())["edges"]] == [
        *(False, False, True)
    ]


@pytest.mark.parametrize(
    ("expression", "given", "expected", "shown"),
    [
        ("x", ["x=2"], {"x": 1}, "d x / d x = 1"),
        ("x * 0 + y", ["x=1", "y=2", "z=[1,2]"], {"x": 0, "y": 1, "z": [0, 0]}, "d f / d z"),
        ("floor(x)", ["x=1.5"], {"x": 0}, "d f / d x = 0"),
        ("x > 1", ["x=2"], {}, "f is true or false: it has no derivative"),
        ("astype(x, int64)", ["x=2"], {}, "f is a whole number: it has no derivative"),
        ("sin(1)", [], {}, "nothing here requires a gradient"),
        ("3", [], {}, "f = 3"),
        ("f * v1", ["f=2", "v1=3"], {"f": 3, "v1": 2}, "result = f * v1"),
        ("ﬁ + x", ["ﬁ=1", "x=2"], {"fi": 1, "x": 1}, "f = fi + x"),
        ("zeros(3) + x", ["x=1"], {"x": 3}, "[0, 0, 0]"),
        ("random.normal((2,)) * x", ["x=1"], None, "d f / d x"),
        ("nonzero(x)[0]", ["x=[0, 1]"], {}, "[1]"),
    ],
)
def test_special_cases(expression, given, expected, shown):
    found = explain_expression(expression, given)
    assert shown in str(found) or shown == "[0, 0, 0]"
    if expected is not None:
        assert {name: g.tolist() for name, g in found.gradients.items()} == expected
    json.loads(found.to_json())


def test_the_seed_decides_random_numbers():
    runs = []
    for seed in (1, 1, 2):
        cg.manual_seed(seed)
        runs.append(explain_expression("random.normal((3,)) * x", ["x=1"]).value.tolist())
    assert runs[0] == runs[1] != runs[2]


def test_dtypes():
    for dtype in ("float32", "float16", "bfloat16"):
        found = explain_expression("x * 2 + sin(1)", ["x=1"], dtype)
        assert found.value.dtype == cg.asarray(0, dtype=dtype).dtype
        json.loads(found.to_json())
    for dtype in ("int32", "nonsense", "", "bool", "complex64"):
        with pytest.raises(cg.errors.UsageError, match="none of float64"):
            explain_expression("x", ["x=1"], dtype)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["x"], "not NAME=VALUE"),
        (["=1"], "not NAME=VALUE"),
        (["lambda=1"], "not NAME=VALUE"),
        (["x y=1"], "not NAME=VALUE"),
        (["\x1b[31m=1"], "not NAME=VALUE"),
        (["x=1", "x=2"], "x has two values"),
        (["x==1"], "must be a number"),
        (["x="], "must be a number"),
        (["y=1"], "x has no value"),
    ],
)
def test_names_and_values(given, message):
    with pytest.raises(cg.errors.UsageError, match=message):
        explain_expression("x", given)


def test_not_finite_numbers_in_json():
    told = json.loads(explain_expression("log(x)", ["x=[0, 1]"]).to_json())
    assert told["value"] == ["-inf", 0.0]
    assert told["gradients"]["x"] == ["inf", 1.0]


def test_large_arrays_are_summarised():
    text = str(explain_expression("sum(x * ones(100))", ["x=2"]))
    assert "= [100: min 2, mean 2, max 2]" in text


def test_a_long_formula_does_not_move_the_others():
    lines = str(explain_expression("x[0] + 1", ["x=[1,2]"])).splitlines()
    assert max(map(len, lines)) < 80
    assert any(line.startswith("  f = ") and line.endswith(" = 2") for line in lines)


def test_in_a_program_the_callers_names_are_used():
    first, second = (cg.asarray(v, requires_grad=True) for v in (2.0, 3.0))
    product = first * second
    text = str(cg.explain(product))
    assert "product = first * second = 6    test_explain.py:" in text
    assert "d product / d first " in text
    assert first.grad is None, "nothing is changed"


def test_what_cannot_be_explained():
    with pytest.raises(cg.errors.UsageError, match="takes a Tensor"):
        cg.explain(3.0)
    with pytest.raises(cg.errors.TraceError, match="needs values"):
        cg.trace(lambda x: cg.explain(x) and x)(cg.ones(2))


def test_a_deep_graph():
    x = cg.asarray(1.0, requires_grad=True)
    y = x
    for _ in range(5000):
        y = y * 1.0
    found = cg.explain(y)
    assert len(found.edges) == 5000
    assert found.gradients["x"] == 1
    assert str(found)
