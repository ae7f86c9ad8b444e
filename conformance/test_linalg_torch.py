"""Linear algebra against PyTorch: values, gradients, and gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import cartograd as cg

Array = np.ndarray[Any, Any]
CL, TL = cg.linalg, torch.linalg


def positive_definite(*shape: int) -> Array:
    x = np.random.default_rng(0).standard_normal(shape)
    return x @ x.swapaxes(-1, -2) + np.eye(shape[-1])


def general(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape)


# Squares of vectors do not depend on the sign that a routine chose for them.
CASES: list[tuple[str, Callable[..., Any], Callable[..., Any], Array]] = [
    ("cholesky", CL.cholesky, TL.cholesky, positive_definite(2, 4, 4)),
    ("upper", lambda x: CL.cholesky(x, upper=True), lambda x: TL.cholesky(x, upper=True),
     positive_definite(3, 3)),
    ("inv", CL.inv, TL.inv, positive_definite(2, 3, 3)),
    ("det", CL.det, TL.det, general(2, 5, 5)),
    ("slogdet", lambda x: CL.slogdet(x).logabsdet, lambda x: TL.slogdet(x)[1], general(2, 4, 4)),
    ("eigvalsh", CL.eigvalsh, TL.eigvalsh, positive_definite(2, 4, 4)),
    ("eigh", lambda x: CL.eigh(x)[1] ** 2, lambda x: TL.eigh(x)[1] ** 2, positive_definite(4, 4)),
    ("svdvals", CL.svdvals, TL.svdvals, general(2, 3, 4)),
    ("svd u", lambda x: CL.svd(x, full_matrices=False).U ** 2,
     lambda x: TL.svd(x, full_matrices=False)[0] ** 2, general(4, 3)),
    ("svd vh", lambda x: CL.svd(x, full_matrices=False).Vh ** 2,
     lambda x: TL.svd(x, full_matrices=False)[2] ** 2, general(3, 4)),
    ("qr q", lambda x: CL.qr(x).Q ** 2, lambda x: TL.qr(x)[0] ** 2, general(4, 3)),
    ("qr r", lambda x: CL.qr(x).R ** 2, lambda x: TL.qr(x)[1] ** 2, general(3, 5)),
    ("pinv", CL.pinv, TL.pinv, general(2, 4, 3)),
    ("power", lambda x: CL.matrix_power(x, -3), lambda x: TL.matrix_power(x, -3),
     positive_definite(3, 3)),
    ("solve", lambda x: CL.solve(x, x[0]), lambda x: TL.solve(x, x[0]), positive_definite(3, 3)),
    ("cross", lambda x: CL.cross(x, x * x), lambda x: TL.cross(x, x * x), general(4, 3)),
    *(
        (f"vector_norm {p}", lambda x, p=p: CL.vector_norm(x, ord=p, axis=1),
         lambda x, p=p: TL.vector_norm(x, p, dim=1), general(4, 3))
        for p in (2, 1, 3.5, 0.5, float("inf"), -float("inf"), -1)
    ),
    *(
        (f"matrix_norm {p}", lambda x, p=p: CL.matrix_norm(x, ord=p),
         lambda x, p=p: TL.matrix_norm(x, p), general(2, 4, 3))
        for p in ("fro", "nuc", 2, -2, 1, -1, float("inf"), -float("inf"))
    ),
    ("einsum", lambda x: cg.einsum("bij,bkj,bki->bi", x, x, x[:, :3]),
     lambda x: torch.einsum("bij,bkj,bki->bi", x, x, x[:, :3]), general(2, 3, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ours", "theirs", "x"), CASES, ids=[c[0] for c in CASES])
def test_values_and_two_derivatives(name: str, ours: Any, theirs: Any, x: Array) -> None:
    rng = np.random.default_rng(2)
    leaf = torch.tensor(x, requires_grad=True)
    y = theirs(leaf)
    w, v = rng.standard_normal(tuple(y.shape)), rng.standard_normal(x.shape)
    (first,) = torch.autograd.grad((y * torch.tensor(w)).sum(), leaf, create_graph=True)
    second = torch.zeros_like(leaf)
    if first.requires_grad:
        total = (first * torch.tensor(v)).sum() + 0.0 * leaf.sum()
        (second,) = torch.autograd.grad(total, leaf)

    def loss(z: Any) -> Any:
        return (ours(z) * cg.asarray(w)).sum()

    point = cg.asarray(x)
    gradient = cg.grad(loss)
    got = [
        ours(point), gradient(point),
        cg.grad(lambda z: (gradient(z) * cg.asarray(v)).sum())(point),
    ]  # fmt: skip
    want = [y.detach(), first.detach(), second]
    for g, t in zip(got, want, strict=True):
        scale = max(1.0, float(t.abs().max()))
        np.testing.assert_allclose(g.numpy(), t.numpy(), rtol=0, atol=1e-11 * scale)
