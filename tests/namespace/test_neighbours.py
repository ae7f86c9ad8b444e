"""SciPy, scikit-learn and einops on Tensors, as they come: their own array API support."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import einops
import einops.array_api
import numpy as np
import pytest
from einops._backends import AbstractBackend

import cartograd as cg
from tests.namespace.neighbours import CASES

FLOATS = {"r2_score", "log_loss", "roc_auc_score"}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "tests.namespace.neighbours"],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", CASES)
def test_a_function_of_scipy_or_scikit_learn(found: dict[str, Any], name: str) -> None:
    kind, off, unchanged = found[name]
    assert kind == ("float" if name in FLOATS else "Tensor")
    assert off < 1e-12
    assert unchanged  # their assignments never reach what they were given


def test_assignment_is_for_their_code_only() -> None:
    scope: dict[str, Any] = {"__name__": "scipy.special.example", "x": cg.zeros(3)}
    given = scope["x"]
    exec("before = x[:2]; y = x * 1; y[y == 0] = 7; y[0] += 1", scope)
    assert scope["y"].tolist() == [8, 7, 7]
    assert given.tolist() == [0, 0, 0] and scope["before"].tolist() == [0, 0]
    for thing in (
        cg.Parameter(cg.zeros(3)),
        cg.State(cg.zeros(3)),
        cg.zeros(3, requires_grad=True),
    ):
        with pytest.raises(cg.errors.UsageError, match="immutable"):
            exec("x[0] = 1", {"__name__": "scipy.special.example", "x": thing})
    with pytest.raises(cg.errors.UsageError, match=r"x\.at\[i\]\.set\(v\)"):
        exec("x[0] = 1", {"__name__": "my.scipy", "x": cg.zeros(3)})


def test_the_gradient_passes_through_their_assignments() -> None:
    x = cg.asarray([1.0, 2.0, 3.0], requires_grad=True)
    scope: dict[str, Any] = {"__name__": "sklearn.example", "y": x * x}
    exec("y[1] = 5.0", scope)
    scope["y"].sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 0, 6]


# --- einops ---------------------------------------------------------------------------------------

VALUES = np.arange(24.0).reshape(2, 3, 4)
PATTERNS: list[tuple[str, tuple[Any, ...], dict[str, int]]] = [
    ("rearrange", ("a b c -> c (a b)",), {}),
    ("rearrange", ("a b (c d) -> d a b c",), {"d": 2}),
    ("rearrange", ("a b c -> (a b c)",), {}),
    ("reduce", ("a b c -> a c", "max"), {}),
    ("reduce", ("a b (c d) -> a d", "mean"), {"d": 2}),
    ("reduce", ("a b c -> () b ()", "sum"), {}),
    ("repeat", ("a b c -> a b c d",), {"d": 3}),
    ("repeat", ("a b c -> (a n) b c",), {"n": 2}),
]


class CartogradBackend(AbstractBackend):
    """What einops wants of a library: registered by being a subclass."""

    framework_name = "cartograd"

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, cg.Tensor)

    def from_numpy(self, x: Any) -> Any:
        return cg.asarray(x)

    def to_numpy(self, x: Any) -> Any:
        return x.numpy()

    def arange(self, start: int, stop: int) -> Any:
        return cg.arange(start, stop)

    def stack_on_zeroth_dimension(self, tensors: list[Any]) -> Any:
        return cg.stack(tensors)

    def add_axis(self, x: Any, new_position: int) -> Any:
        return cg.expand_dims(x, new_position)

    def tile(self, x: Any, repeats: Any) -> Any:
        return cg.tile(x, repeats)

    def concat(self, tensors: list[Any], axis: int) -> Any:
        return cg.concat(tensors, axis=axis)

    def is_float_type(self, x: Any) -> bool:
        return cg.isdtype(x.dtype, "real floating")

    def einsum(self, pattern: str, *x: Any) -> Any:
        return cg.einsum(pattern, *x)


@pytest.mark.parametrize(("name", "args", "sizes"), PATTERNS)
def test_einops(name: str, args: tuple[Any, ...], sizes: dict[str, int]) -> None:
    want = getattr(einops, name)(VALUES, *args, **sizes)
    for module in (einops, einops.array_api):
        x = cg.asarray(VALUES, requires_grad=True)
        got = getattr(module, name)(x, *args, **sizes)
        assert isinstance(got, cg.Tensor)
        np.testing.assert_array_equal(got.numpy(), want)
        got.sum().backward()
        assert x.grad is not None and x.grad.shape == x.shape
        many = getattr(module, name)([cg.asarray(v) for v in VALUES], *args, **sizes)
        np.testing.assert_array_equal(many.numpy(), want)  # a list is stacked


def test_einops_of_several() -> None:
    x = cg.asarray(VALUES)
    packed, shapes = einops.pack([x, x[:, 0]], "a * c")
    assert packed.shape == (2, 4, 4)
    first, second = einops.unpack(packed, shapes, "a * c")
    assert first.shape == (2, 3, 4) and second.tolist() == x[:, 0].tolist()
    got = einops.einsum(x, x, "a b c, a b d -> c d")
    np.testing.assert_allclose(got.numpy(), np.einsum("abc,abd->cd", VALUES, VALUES))
    with pytest.raises(einops.EinopsError, match=r"can't divide|Shape mismatch"):
        einops.rearrange(x, "a b (c d) -> a b c d", d=3)
