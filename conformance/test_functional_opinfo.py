"""The functions of nn.functional on PyTorch's own samples (its operator database, 2.13).

For every `nn.functional` operator that both have: value and gradients on each sample in float64.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db

import cartograd as cg

F = cg.nn.functional
MOST = 60  # samples of each operator: some have thousands

# Random: other numbers are drawn here; distributions are tested in tests/nn.
RANDOM = {
    "alpha_dropout",
    "dropout",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
    "rrelu",
}


def name_of(op: Any) -> str:
    return op.name.removeprefix("nn.functional.")


INFOS = {
    f"{name_of(op)}-{op.variant_test_name}".rstrip("-"): op
    for op in op_db
    if op.name.startswith("nn.functional.")
    and name_of(op) in F.__all__
    and name_of(op) != "one_hot"
}


def to_cg(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return cg.asarray(x.detach().numpy(), requires_grad=x.requires_grad)
    if isinstance(x, torch.dtype):
        return np.dtype(str(x).removeprefix("torch."))
    if isinstance(x, dict):
        return {k: to_cg(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(to_cg(v) for v in x)
    return cg.nn.PairwiseDistance() if isinstance(x, torch.nn.PairwiseDistance) else x


def leaves(x: Any) -> list[Any]:
    if isinstance(x, (torch.Tensor, cg.Tensor)):
        return [x]
    if isinstance(x, (list, tuple)):
        return [leaf for part in x for leaf in leaves(part)]
    return [leaf for part in x.values() for leaf in leaves(part)] if isinstance(x, dict) else []


def left_out(name: str, args: list[Any], kwargs: dict[str, Any]) -> str:
    """Why a sample is no input here, or ""."""
    if name in ("multi_margin_loss", "multilabel_margin_loss") and args[0].ndim < 2:
        return "a score without a class axis, or a target (1,) of one example"
    if name in ("normalize", "cosine_similarity") and args[0].ndim == 0:
        return "a scalar has no axis"
    if () in [x for x in (*args, *kwargs.values()) if isinstance(x, tuple)]:
        return "an empty stride for none"
    if name == "batch_norm" and args[0].ndim < 2:
        return "no channel axis"
    return ""


def in_our_order(name: str, args: list[Any]) -> list[Any]:
    """As the functions take them.

    The database passes an embedding's weight first, to differentiate it; running statistics are
    updated, so they are Buffers here.
    """
    if name in ("embedding", "embedding_bag"):
        return [args[1], args[0], *args[2:]]
    if name in ("batch_norm", "instance_norm"):
        statistics = [x if x is None else cg.Buffer(x) for x in args[1:3]]
        return [args[0], *statistics, *args[3:]]
    return args


def with_buffers(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {
        k: cg.Buffer(v) if k.startswith("running") and v is not None else v
        for k, v in kwargs.items()
    }


def differs_on_purpose(name: str, args: list[Any], expected: Any) -> str:
    """Why a sample is an error here, or ""."""
    first = leaves(expected)[0]
    if name in ("cross_entropy", "nll_loss") and first.ndim == 0 and torch.isnan(first):
        return "every target is ignored: 0/0 in PyTorch, DataError here"
    if name == "gaussian_nll_loss" and args[0].shape != args[1].shape:
        return "a loss does not broadcast"
    return ""


@pytest.mark.parametrize("key", sorted(INFOS))
def test_samples(key: str) -> None:
    op = INFOS[key]
    name = name_of(op)
    ran = 0
    samples = op.sample_inputs("cpu", torch.float64, requires_grad=True)
    for _, sample in zip(range(MOST), samples, strict=False):
        args, kwargs = [sample.input, *sample.args], dict(sample.kwargs)
        if left_out(name, args, kwargs):
            continue
        if name == "multi_head_attention_forward":
            kwargs["training"] = False  # no dropout at random
        if name == "scaled_dot_product_attention":
            kwargs["dropout_p"] = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = op(*args, **kwargs)
        if differs_on_purpose(name, args, theirs):
            with pytest.raises(cg.errors.CartogradError):
                getattr(F, name)(*to_cg(args), **to_cg(kwargs))
            continue
        if name in RANDOM and kwargs.get("training", True) and kwargs.get("p", 0.5) not in (0, 1):
            continue
        ours_args, ours_kwargs = to_cg(args), to_cg(kwargs)
        ours = getattr(F, name)(*in_our_order(name, ours_args), **with_buffers(ours_kwargs))
        ran += 1
        check(f"{key} {sample}"[:300], (ours, theirs), (ours_args, ours_kwargs), (args, kwargs))
    assert ran or name in RANDOM


def check(what: str, results: Any, ours_inputs: Any, theirs_inputs: Any) -> None:
    rng = np.random.default_rng(0)
    total, other = None, None
    ours, theirs = leaves(results[0]), leaves(results[1])
    assert len(ours) == len(theirs), what
    for a, b in zip(ours, theirs, strict=True):
        compare(a.numpy(), b.detach().numpy(), what)
        if b.requires_grad:
            weight = rng.standard_normal(tuple(b.shape))
            part = (a * cg.asarray(weight)).sum()
            total = part if total is None else total + part
            part = (b * torch.from_numpy(np.asarray(weight))).sum()
            other = part if other is None else other + part
    if other is None:
        return
    wanted = [x for x in leaves(theirs_inputs) if x.requires_grad]
    gradients = torch.autograd.grad(other, wanted, allow_unused=True)
    total.backward()
    own = [x for x in leaves(ours_inputs) if x.requires_grad]
    for a, b, x in zip(own, gradients, wanted, strict=True):
        expected = np.zeros(tuple(x.shape)) if b is None else b.numpy()
        found = np.zeros(tuple(x.shape)) if a.grad is None else a.grad.numpy()
        # PyTorch has 0 x inf = NaN where an element had no influence; a zero is right.
        expected = np.where(np.isnan(expected) & (found == 0), 0.0, expected)
        compare(found, expected, f"gradient: {what}")


def compare(a: Any, b: Any, what: str) -> None:
    assert a.shape == b.shape, f"{what}: {a.shape} and {b.shape}"
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9, err_msg=what)
