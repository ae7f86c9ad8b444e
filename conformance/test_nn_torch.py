"""Layers, losses, activations and initialisers against PyTorch 2.13.

The inputs are PyTorch's own: its module database gives the arguments of 104 Modules that both
have, in training and evaluation. Same weights, same input: the output, every gradient and the
running statistics must agree in float64 to rounding. Further cases below are what the database
leaves out.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing._internal.common_modules import module_db

import cartograd as cg

F, TF = cg.nn.functional, torch.nn.functional
RTOL, ATOL = 1e-10, 1e-12

# --- conversion and comparison -------------------------------------------------------------------


def to_cg(x: Any) -> Any:
    """A tree of torch Tensors as Cartograd's, leaves that require a gradient included."""
    if isinstance(x, torch.Tensor):
        return cg.asarray(x.detach().numpy(), requires_grad=x.requires_grad)
    if isinstance(x, torch.dtype):
        return np.dtype(str(x).removeprefix("torch."))
    if isinstance(x, dict):
        return {k: to_cg(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(to_cg(v) for v in x)
    if isinstance(x, torch.nn.Module):
        return twin(x)
    return TWINS.get(x, x) if callable(x) else x


TWINS: dict[Any, Any] = {TF.relu: F.relu, TF.gelu: F.gelu}


def twin(module: torch.nn.Module) -> cg.nn.Module:
    """The Cartograd Module of the same class and options as a layer used as an argument."""
    if isinstance(module, torch.nn.TransformerEncoderLayer):
        made: cg.nn.Module = cg.nn.TransformerEncoderLayer(
            module.self_attn.embed_dim,
            module.self_attn.num_heads,
            module.linear1.out_features,
            activation=TWINS[module.activation],
            batch_first=module.self_attn.batch_first,
            norm_first=module.norm_first,
            bias=module.linear1.bias is not None,
            dtype=cg.float64,
        )
    elif isinstance(module, torch.nn.ReLU):
        made = cg.nn.ReLU()
    elif isinstance(module, torch.nn.PairwiseDistance):
        made = cg.nn.PairwiseDistance(module.norm, module.eps, module.keepdim)
    else:
        raise NotImplementedError(type(module))
    load(made, module)
    return made


def leaves(x: Any) -> list[Any]:
    """The Tensors of an output, in order."""
    if isinstance(x, (torch.Tensor, cg.Tensor)):
        return [x]
    if isinstance(x, (list, tuple)):
        return [leaf for part in x for leaf in leaves(part)]
    if isinstance(x, dict):
        return [leaf for part in x.values() for leaf in leaves(part)]
    return []


def load(ours: cg.nn.Module, theirs: torch.nn.Module) -> None:
    """Give ours the state of theirs; the keys, their order and the shapes must be the same."""
    state = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
    own = ours.state_dict()
    assert list(own) == list(state)
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in state.items()}
    assert {k: v.dtype for k, v in own.items()} == {k: v.dtype for k, v in state.items()}
    keys = ours.load_state_dict(state)
    assert keys.missing_keys == keys.unexpected_keys == []


def close(ours: Any, theirs: Any, what: str, rtol: float = RTOL, atol: float = ATOL) -> None:
    a = ours.numpy() if isinstance(ours, cg.Tensor) else np.asarray(ours)
    b = theirs.detach().numpy()
    assert a.shape == b.shape, f"{what}: {a.shape} and {b.shape}"
    assert a.dtype == b.dtype, f"{what}: {a.dtype} and {b.dtype}"
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=what)


def compare(
    ours: Any,
    theirs: Any,
    inputs: tuple[Any, Any],
    parameters: list[tuple[str, Any, Any]],
    **tol: float,
) -> None:
    """Outputs, and the gradients of a random combination of them."""
    rng = np.random.default_rng(0)
    ours_out, theirs_out = leaves(ours), leaves(theirs)
    assert len(ours_out) == len(theirs_out)
    total_ours, total_theirs = None, None
    for k, (a, b) in enumerate(zip(ours_out, theirs_out, strict=True)):
        close(a, b, f"output {k}", **tol)
        if b.requires_grad:
            weight = rng.standard_normal(b.shape).astype(b.detach().numpy().dtype)
            part = (a * cg.asarray(weight)).sum()
            total_ours = part if total_ours is None else total_ours + part
            part = (b * torch.from_numpy(np.asarray(weight))).sum()
            total_theirs = part if total_theirs is None else total_theirs + part
    if total_theirs is None:
        return
    total_ours.backward()
    total_theirs.backward()
    for k, (a, b) in enumerate(zip(leaves(inputs[0]), leaves(inputs[1]), strict=True)):
        if b.requires_grad:
            same_gradient(a, b, f"input {k}", **tol)
    for name, a, b in parameters:
        same_gradient(a, b, name, **tol)


def same_gradient(a: Any, b: Any, name: str, **tol: float) -> None:
    """PyTorch leaves the gradient of an input without influence None; so may we, or zero."""
    theirs = torch.zeros_like(b) if b.grad is None else b.grad
    ours = cg.zeros_like(a.detach()) if a.grad is None else a.grad
    # PyTorch has 0 x inf = NaN where an element had no influence; a zero is right.
    theirs = torch.where(torch.isnan(theirs) & torch.tensor(ours.numpy() == 0), 0.0, theirs)
    close(ours, theirs, f"gradient of {name}", **tol)


def parameter_pairs(ours: cg.nn.Module, theirs: torch.nn.Module) -> list[tuple[str, Any, Any]]:
    other = dict(theirs.named_parameters())
    return [(name, p, other[name]) for name, p in ours.named_parameters()]


# --- PyTorch's module database -------------------------------------------------------------------

# Not in Cartograd; each line says why.
ABSENT = {
    "CTCLoss": "not on the list of this issue",
    "LinearCrossEntropyLoss": "new in PyTorch 2.13; Linear and CrossEntropyLoss are the same",
    "FractionalMaxPool2d": "random windows; rarely used",
    "FractionalMaxPool3d": "random windows; rarely used",
    **dict.fromkeys(
        [f"Lazy{kind}{n}d" for kind in ("Conv", "ConvTranspose") for n in (1, 2, 3)],
        "shapes are part of a layer here from the start",
    ),
}

# Inputs where PyTorch and Cartograd differ on purpose; each line says why.
RANDOM = {
    "AlphaDropout",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "RReLU",
}
"""Random in training: their distributions are tested in tests/nn."""

INFOS = {info.module_cls.__name__: info for info in module_db}


def test_every_module_of_the_database_is_here_or_says_why_not() -> None:
    absent = {name for name in INFOS if not hasattr(cg.nn, name)}
    assert absent == set(ABSENT)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", sorted(set(INFOS) - set(ABSENT)))
def test_module_database(name: str, training: bool) -> None:
    info = INFOS[name]
    torch.manual_seed(0)
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(
            info.module_inputs_func(
                info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
            )
        )
    for k, sample in enumerate(samples):
        if sample.forward_input is None or (training and name in RANDOM):
            continue
        if name.startswith("BatchNorm") and training and 0 in sample.forward_input.args[0].shape:
            continue  # an empty batch: NaN statistics in PyTorch, ShapeError here
        built, called = sample.constructor_input, sample.forward_input
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = info.module_cls(*built.args, **built.kwargs).double().train(training)
            without_dropout(theirs)
            ours = getattr(cg.nn, name)(*to_cg(list(built.args)), **to_cg(built.kwargs))
            ours.double().train(training)
            without_dropout(ours)
            load(ours, theirs)
            torch_args = [copy_of(x) for x in called.args]
            torch_kwargs = {key: copy_of(v) for key, v in called.kwargs.items()}
            args, kwargs = to_cg(torch_args), to_cg(torch_kwargs)
            b = theirs(*torch_args, **torch_kwargs)
            if name == "CrossEntropyLoss" and ours.reduction == "mean" and torch.isnan(b):
                with pytest.raises(cg.errors.DataError, match="ignored"):  # 0/0 in PyTorch
                    ours(*args, **kwargs)
                continue
            a = ours(*args, **kwargs)
            try:
                compare(
                    a,
                    b,
                    ((args, kwargs), (torch_args, torch_kwargs)),
                    parameter_pairs(ours, theirs),
                )
                for key, buffer in theirs.named_buffers():
                    close(ours.get_buffer(key), buffer, key)
            except AssertionError as error:
                raise AssertionError(f"{name} sample {k} ({sample.desc}): {error}") from error
        count += 1
    assert count or name in RANDOM


def copy_of(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.detach().clone().requires_grad_(x.requires_grad)
    if isinstance(x, (list, tuple)):
        return type(x)(copy_of(v) for v in x)
    return x


def without_dropout(module: Any) -> None:
    """Set every dropout probability inside to 0, so that both compute the same in training."""
    for part in module.modules():
        kind = type(part).__name__
        if kind in ("Dropout", "AlphaDropout") and part is not module:
            part.p = 0.0
        if isinstance(getattr(part, "dropout", None), float):
            part.dropout = 0.0


# --- names, arguments and text -------------------------------------------------------------------


def arguments(f: Any) -> list[tuple[str, Any]]:
    """The positional arguments of a function and their defaults, `self` left out."""
    found = []
    for p in inspect.signature(f).parameters.values():
        if p.name != "self" and p.kind is not p.VAR_KEYWORD and p.kind is not p.KEYWORD_ONLY:
            found.append((p.name, p.default))
    return found


# Differences in arguments; each line says why.
OTHER_NAMES = {"dim": "axis"}  # `axis` is the name here; `dim` is accepted by keyword
OTHER_DEFAULTS = {
    ("softmax", "axis"): "the last axis, where PyTorch guesses and warns",
    ("log_softmax", "axis"): "the same",
    ("softmin", "axis"): "the same",
    ("glu", "axis"): "None stands for -1",
    ("normalize", "axis"): "None stands for 1",
    ("gumbel_softmax", "axis"): "None stands for -1",
    ("cosine_similarity", "axis"): "None stands for 1",
}


def functional_names() -> list[str]:
    found = []
    for name in F.__all__:
        theirs = getattr(TF, name, None) or getattr(torch, name, None)
        if theirs is None or name in ("logsumexp", "vector_norm"):
            continue
        try:
            inspect.signature(theirs)
        except (TypeError, ValueError):
            continue
        found.append(name)
    return found


@pytest.mark.parametrize("name", functional_names())
def test_functional_arguments(name: str) -> None:
    theirs = arguments(getattr(TF, name))
    ours = arguments(getattr(F, name))
    theirs = [(OTHER_NAMES.get(n, n), d) for n, d in theirs if n not in ("_stacklevel", "out")]
    if not theirs or theirs[0][0] in ("args", "kwargs"):  # dispatched in PyTorch: names are hidden
        return
    assert [n for n, _ in ours][: len(theirs)] == [n for n, _ in theirs]
    for (n, a), (_, b) in zip(ours, theirs, strict=False):
        assert a == b or (name, n) in OTHER_DEFAULTS, f"{name}({n}={a!r}) here, {b!r} in PyTorch"


@pytest.mark.parametrize(
    "name", sorted(n for n in cg.nn.__all__ if hasattr(torch.nn, n) and n[0].isupper())
)
def test_module_arguments(name: str) -> None:
    if name in ("Buffer", "Parameter", "Module", "Identity", "RNN", "LSTM", "GRU"):
        return  # *args in PyTorch; the state_dict test covers what they take
    theirs = arguments(getattr(torch.nn, name).__init__)
    ours = arguments(getattr(cg.nn, name).__init__)
    theirs = [(n, d) for n, d in theirs if n not in ("args", *RETIRED)]
    assert [n for n, _ in ours] == [n for n, _ in theirs] or name == "Sequential"
    for (n, a), (_, b) in zip(ours, theirs, strict=False):
        if callable(b):
            b = to_cg(b)
        assert a == b, f"{name}({n}={a!r}) here, {b!r} in PyTorch"


RETIRED = {"min_value", "max_value"}  # Hardtanh's older names, deprecated in PyTorch

REPR = [
    "Linear(3, 4)",
    "Linear(3, 4, bias=False)",
    "Bilinear(2, 3, 4)",
    "Identity()",
    "Conv1d(3, 4, 5)",
    "Conv2d(3, 6, (3, 5), stride=2, padding='same'.replace('same', 'valid'), dilation=2, groups=3)",
    "Conv2d(3, 6, 3, padding=1, bias=False, padding_mode='reflect')",
    "ConvTranspose2d(3, 6, 3, stride=2, output_padding=1)",
    "MaxPool2d(2)",
    "AvgPool2d(2, 1)",
    "LPPool2d(2, 3)",
    "AdaptiveAvgPool2d((1, None))",
    "BatchNorm2d(3)",
    "InstanceNorm1d(3, affine=True)",
    "LayerNorm((3, 4))",
    "RMSNorm(3)",
    "GroupNorm(2, 4)",
    "LocalResponseNorm(2)",
    "Dropout(0.25)",
    "Embedding(10, 3, padding_idx=1)",
    "EmbeddingBag(10, 3)",
    "RNN(3, 4)",
    "LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True, proj_size=2)",
    "GRU(3, 4, bias=False)",
    "LSTMCell(3, 4)",
    "RNNCell(3, 4, nonlinearity='relu')",
    "MultiheadAttention(4, 2)",
    "Transformer(8, 2, 1, 1, 16)",
    "Flatten()",
    "Fold((4, 5), 2)",
    "Unfold(2, padding=1)",
    "Unflatten(1, (2, 3))",
    "Upsample(scale_factor=2)",
    "ReLU()",
    "ReLU(inplace=True)",
    "LeakyReLU(0.2)",
    "PReLU()",
    "ELU()",
    "SELU()",
    "CELU()",
    "GELU()",
    "GELU('tanh')",
    "SiLU()",
    "Mish()",
    "Sigmoid()",
    "Tanh()",
    "Softplus()",
    "Softsign()",
    "Hardtanh()",
    "ReLU6()",
    "Hardswish()",
    "Hardsigmoid()",
    "LogSigmoid()",
    "Softmax(dim=1)",
    "LogSoftmax(dim=1)",
    "GLU()",
    "CrossEntropyLoss()",
    "MSELoss()",
    "ConstantPad2d(1, 2.0)",
    "ZeroPad2d(1)",
    "Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 1)))",
    "ModuleDict({'a': nn.Linear(2, 3)})",
]


@pytest.mark.parametrize("text", REPR)
def test_repr(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = repr(eval(f"nn.{text}", {"nn": torch.nn}))
    assert repr(eval(f"nn.{text}", {"nn": cg.nn})) == theirs


# --- functions -----------------------------------------------------------------------------------

POINTS = np.concatenate(
    [np.linspace(-7, 7, 57), [-3.0, -1.0, 0.0, 1.0, 3.0, 6.0, 0.5, -0.5, 20.0, -20.0, 30.0, -30.0]]
)
ACTIVATIONS = [
    "celu",
    "elu",
    "gelu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_with_kinks(name: str, dtype: str) -> None:
    points = POINTS.astype(dtype)
    theirs = torch.tensor(points, requires_grad=True)
    ours = cg.asarray(points, requires_grad=True)
    tol = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-12}
    if name == "hardsigmoid":
        tol["rtol"] = 1e-7  # PyTorch multiplies by a 1/6 of float32, in float64 too
    compare(getattr(F, name)(ours), getattr(TF, name)(theirs), (ours, theirs), [], **tol)


# PyTorch has no second derivative of hardsigmoid
@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n != "hardsigmoid"])
def test_activations_second_derivative(name: str) -> None:
    points = np.linspace(-6.3, 6.3, 40)
    theirs = torch.tensor(points, requires_grad=True)
    (first,) = torch.autograd.grad(getattr(TF, name)(theirs).sum(), theirs, create_graph=True)
    ours = cg.grad(lambda x: cg.grad(lambda y: getattr(F, name)(y).sum())(x).sum())(
        cg.asarray(points)
    )
    if not first.requires_grad:
        assert not ours.numpy().any()
        return
    (second,) = torch.autograd.grad(first.sum(), theirs, allow_unused=True)
    expected = torch.zeros_like(theirs) if second is None else second
    close(ours, expected, name, rtol=1e-8, atol=1e-10)


def randn(*shape: int, positive: bool = False, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return torch.tensor(np.abs(values) + 0.1 if positive else values, requires_grad=True)


def ints(high: int, *shape: int, low: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(shape).integers(low, high, shape))


A, B, P = randn(4, 5), randn(4, 5, seed=1), randn(4, 5, positive=True)
IMAGE = randn(2, 6, 5, 4)
PROBABILITY = torch.sigmoid(randn(4, 5)).detach().requires_grad_()
SIGNS = torch.tensor(np.where(np.random.default_rng(3).random((4, 5)) < 0.5, -1.0, 1.0))
ROW_SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
TARGET = torch.tensor([0, 4, -100, 2])
IMAGE_TARGET = ints(6, 2, 5, 4)
CLASS_WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.25, 3.0], dtype=torch.float64)
SOFT = torch.softmax(randn(4, 5, seed=9).detach(), 1)
MASK = torch.tensor(np.tril(np.ones((3, 7), dtype=bool)))
Q, K, V = randn(2, 4, 3, 8), randn(2, 4, 7, 8), randn(2, 4, 7, 6)

Case = tuple[str, tuple[Any, ...], dict[str, Any]]
LOSSES: list[Case] = [
    ("mse_loss", (A, B), {}),
    ("mse_loss", (A, B), {"weight": P}),
    ("l1_loss", (A, B), {}),
    ("l1_loss", (A, B), {"weight": P}),
    ("smooth_l1_loss", (A, B), {}),
    ("smooth_l1_loss", (A, B), {"beta": 0.3}),
    ("smooth_l1_loss", (A, B), {"beta": 0.0}),
    ("huber_loss", (A, B), {"delta": 0.7}),
    ("huber_loss", (A, B), {"delta": 0.7, "weight": P}),
    ("kl_div", (A, SOFT), {}),
    ("kl_div", (A, B), {"log_target": True}),
    ("gaussian_nll_loss", (A, B, P), {}),
    ("gaussian_nll_loss", (A, B, P[:, :1].detach()), {"full": True}),
    ("gaussian_nll_loss", (A, B, P[:, 0].detach()), {"eps": 0.5}),
    ("gaussian_nll_loss", (A, B, 0.7), {}),
    ("poisson_nll_loss", (A, P), {}),
    ("poisson_nll_loss", (A, 3 * P.detach()), {"full": True}),
    ("poisson_nll_loss", (P, P), {"log_input": False}),
    ("binary_cross_entropy", (PROBABILITY, SOFT), {}),
    ("binary_cross_entropy", (PROBABILITY, SOFT), {"weight": P.detach()}),
    ("binary_cross_entropy_with_logits", (A, SOFT), {}),
    ("binary_cross_entropy_with_logits", (A, SOFT), {"weight": CLASS_WEIGHT}),
    ("binary_cross_entropy_with_logits", (A, SOFT), {"pos_weight": CLASS_WEIGHT}),
    ("cross_entropy", (A, TARGET), {}),
    ("cross_entropy", (A, TARGET), {"weight": CLASS_WEIGHT}),
    ("cross_entropy", (A, TARGET), {"label_smoothing": 0.2}),
    ("cross_entropy", (A, TARGET), {"weight": CLASS_WEIGHT, "label_smoothing": 0.2}),
    ("cross_entropy", (A, TARGET.clip(0)), {"ignore_index": 4}),
    ("cross_entropy", (A, SOFT), {}),
    ("cross_entropy", (A, SOFT), {"weight": CLASS_WEIGHT, "label_smoothing": 0.2}),
    ("cross_entropy", (IMAGE, IMAGE_TARGET), {}),
    ("cross_entropy", (IMAGE, torch.softmax(IMAGE, 1).detach()), {"label_smoothing": 0.1}),
    ("cross_entropy", (randn(5), torch.tensor(3)), {}),
    ("cross_entropy", (randn(5), torch.softmax(randn(5).detach(), 0)), {}),
    ("nll_loss", (torch.log_softmax(A, 1).detach().requires_grad_(), TARGET), {}),
    ("nll_loss", (A, TARGET), {"weight": CLASS_WEIGHT}),
    ("nll_loss", (IMAGE, IMAGE_TARGET), {"ignore_index": 2}),
    ("multi_margin_loss", (A, TARGET.clip(0)), {}),
    ("multi_margin_loss", (A, TARGET.clip(0)), {"p": 2, "margin": 0.5, "weight": CLASS_WEIGHT}),
    ("multilabel_margin_loss", (A, torch.tensor([[3, 0, -1, 1, 2]] * 4)), {}),
    ("multilabel_margin_loss", (A, torch.tensor([[-1, 0, 1, 1, 2]] * 4)), {}),
    ("multilabel_soft_margin_loss", (A, SOFT.round()), {}),
    ("multilabel_soft_margin_loss", (A, SOFT.round()), {"weight": CLASS_WEIGHT}),
    ("soft_margin_loss", (A, SIGNS), {}),
    ("hinge_embedding_loss", (A, SIGNS), {"margin": 0.5}),
    ("margin_ranking_loss", (A, B, SIGNS), {"margin": 0.5}),
    ("cosine_embedding_loss", (A, B, ROW_SIGNS), {"margin": 0.1}),
    ("cosine_embedding_loss", (randn(5), randn(5, seed=2), torch.tensor(-1.0)), {}),
    ("triplet_margin_loss", (A, B, P), {}),
    ("triplet_margin_loss", (A, B, P), {"p": 1.0, "margin": 0.5, "swap": True}),
    ("triplet_margin_loss", (A, B, P), {"p": 3.0}),
    ("triplet_margin_with_distance_loss", (A, B, P), {"swap": True}),
]
OTHERS: list[Case] = [
    ("softmax", (A, 0), {}),
    ("softmax", (A,), {"dim": -1}),
    ("softmin", (A,), {"dim": 1}),
    ("log_softmax", (A, 1), {}),
    ("glu", (randn(4, 6),), {}),
    ("glu", (randn(4, 6), 0), {}),
    ("prelu", (IMAGE, randn(6)), {}),
    ("prelu", (A, randn(1)), {}),
    ("threshold", (A, 0.5, -2.0), {}),
    ("softplus", (A, 2.0, 1.0), {}),
    ("gelu", (A,), {"approximate": "tanh"}),
    ("elu", (A, 0.5), {}),
    ("celu", (A, 0.5), {}),
    ("leaky_relu", (A, 0.2), {}),
    ("rrelu", (A,), {}),
    ("hardshrink", (A, 0.2), {}),
    ("softshrink", (A, 0.2), {}),
    ("hardtanh", (A, -0.3, 0.7), {}),
    ("linear", (A, randn(3, 5), randn(3)), {}),
    ("linear", (randn(2, 4, 5), randn(3, 5)), {}),
    ("linear", (A, randn(5)), {}),
    ("bilinear", (A, B, randn(3, 5, 5), randn(3)), {}),
    ("layer_norm", (IMAGE, (5, 4), randn(5, 4), randn(5, 4)), {"eps": 1e-3}),
    ("rms_norm", (IMAGE, (4,), randn(4)), {}),
    ("rms_norm", (IMAGE, (5, 4)), {"eps": 1e-3}),
    ("group_norm", (IMAGE, 3, randn(6), randn(6)), {}),
    ("instance_norm", (IMAGE,), {"weight": randn(6), "bias": randn(6)}),
    ("batch_norm", (IMAGE, None, None, randn(6), randn(6), True), {}),
    ("batch_norm", (A, B[0].detach(), P[0].detach(), randn(5), randn(5)), {}),
    ("local_response_norm", (IMAGE, 3), {"alpha": 0.5}),
    ("local_response_norm", (IMAGE, 2), {"alpha": 0.5, "k": 2.0}),
    ("normalize", (A,), {}),
    ("normalize", (A, 1.0, 0), {}),
    ("normalize", (A, float("inf")), {"dim": 1}),
    ("normalize", (torch.zeros(2, 3, dtype=torch.float64, requires_grad=True),), {}),
    ("cosine_similarity", (A, B), {}),
    ("cosine_similarity", (IMAGE, IMAGE[:, :1]), {"dim": -1}),
    ("cosine_similarity", (A, torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)), {}),
    ("pairwise_distance", (A, B), {}),
    ("pairwise_distance", (A, B, 1.0, 1e-3, True), {}),
    ("pairwise_distance", (A, A.detach(), 2.0, 0.0), {}),
    ("pairwise_distance", (A, randn(5)), {}),
    ("scaled_dot_product_attention", (Q, K, V), {}),
    ("scaled_dot_product_attention", (Q, K, V), {"is_causal": True}),
    ("scaled_dot_product_attention", (Q, K, V, MASK), {"scale": 0.5}),
    ("scaled_dot_product_attention", (Q, K, V, randn(4, 3, 7)), {}),
    ("scaled_dot_product_attention", (Q, K[:, :2], V[:, :2]), {"enable_gqa": True}),
    ("scaled_dot_product_attention", (Q, K, V, torch.zeros(3, 7, dtype=torch.bool)), {}),
    ("embedding", (ints(6, 2, 3), randn(6, 4)), {"padding_idx": 2}),
    ("embedding", (ints(6, 2, 3), randn(6, 4)), {"scale_grad_by_freq": True}),
    ("embedding_bag", (ints(6, 2, 3), randn(6, 4)), {}),
    ("embedding_bag", (ints(6, 7), randn(6, 4), torch.tensor([0, 3, 3])), {"mode": "sum"}),
    ("embedding_bag", (ints(6, 7), randn(6, 4), torch.tensor([0, 3, 3])), {"mode": "max"}),
    (
        "embedding_bag",
        (ints(6, 7), randn(6, 4), torch.tensor([0, 3, 7])),
        {"include_last_offset": True, "padding_idx": 1},
    ),
    (
        "embedding_bag",
        (ints(6, 2, 3), randn(6, 4)),
        {"mode": "sum", "per_sample_weights": randn(2, 3)},
    ),
    ("one_hot", (ints(6, 2, 3),), {}),
    ("one_hot", (ints(6, 2, 3), 8), {}),
    ("pad", (IMAGE, (1, 2)), {"value": 0.5}),
    ("pad", (IMAGE, (-1, 2, 0, -2)), {}),
    ("pad", (IMAGE, (1, 2, 3, 0)), {"mode": "reflect"}),
    ("pad", (IMAGE, (1, 2, 3, 0)), {"mode": "replicate"}),
    ("pad", (IMAGE, (4, 2, 3, 0)), {"mode": "circular"}),
    ("interpolate", (IMAGE,), {"scale_factor": 2}),
    ("interpolate", (IMAGE,), {"scale_factor": (1.7, 0.6)}),
    ("interpolate", (IMAGE, (3, 9)), {}),
    ("interpolate", (IMAGE, (3, 9)), {"mode": "nearest-exact"}),
    ("interpolate", (IMAGE, (7, 3)), {"mode": "bilinear"}),
    ("interpolate", (IMAGE, (7, 3)), {"mode": "bilinear", "align_corners": True}),
    ("interpolate", (IMAGE,), {"mode": "bilinear", "scale_factor": 1.7}),
    (
        "interpolate",
        (IMAGE,),
        {"mode": "bilinear", "scale_factor": 1.7, "recompute_scale_factor": True},
    ),
    ("interpolate", (randn(2, 3, 5),), {"mode": "linear", "scale_factor": 2}),
    ("interpolate", (IMAGE, (7, 3)), {"mode": "bicubic"}),
    ("interpolate", (IMAGE, (7, 3)), {"mode": "bicubic", "align_corners": True}),
    ("interpolate", (IMAGE,), {"mode": "bicubic", "scale_factor": (0.7, 2.3)}),
    ("interpolate", (IMAGE, (3, 3)), {"mode": "area"}),
    ("interpolate", (randn(1, 2, 3, 4, 5), (4, 4, 4)), {"mode": "trilinear"}),
    ("pixel_shuffle", (randn(2, 8, 3, 4), 2), {}),
    ("pixel_unshuffle", (randn(2, 2, 6, 4), 2), {}),
    ("logsumexp", (A, 1), {}),
    ("logsumexp", (A, (0, 1), True), {}),
]


def run_case(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    torch_args = [copy_of(x) for x in args]
    torch_kwargs = {k: copy_of(v) for k, v in kwargs.items()}
    ours_args, ours_kwargs = to_cg(torch_args), to_cg(torch_kwargs)
    theirs = getattr(TF, name, None) or getattr(torch, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        b = theirs(*torch_args, **torch_kwargs)
    a = getattr(F, name)(*ours_args, **ours_kwargs)
    compare(a, b, ((ours_args, ours_kwargs), (torch_args, torch_kwargs)), [])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("case", LOSSES, ids=lambda case: case[0])
def test_losses(case: Case, reduction: str) -> None:
    run_case(case[0], case[1], {**case[2], "reduction": reduction})


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case[0])
def test_functions(case: Case) -> None:
    run_case(*case)


def test_kl_batchmean_and_older_reduction_flags() -> None:
    run_case("kl_div", (A, SOFT), {"reduction": "batchmean"})
    run_case("mse_loss", (A, B), {"size_average": False})
    run_case("mse_loss", (A, B), {"reduce": False})


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "layer_norm", *ACTIVATIONS])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_wide_and_rounded_once(name: str, dtype: str) -> None:
    values = (4 * np.random.default_rng(0).standard_normal((8, 64))).astype(np.float32)
    ours = cg.asarray(values).astype(dtype)
    theirs = torch.tensor(ours.astype(cg.float64).numpy())
    extra = {"softmax": (-1,), "log_softmax": (-1,), "layer_norm": ((64,),)}.get(name, ())
    a = getattr(F, name)(ours, *extra)
    b = getattr(TF, name)(theirs, *extra)
    assert a.dtype.name == dtype
    step = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    np.testing.assert_allclose(a.astype(cg.float32).numpy(), b.numpy(), rtol=1.02 * step, atol=6e-8)


# --- layers that the database does not exercise in full ------------------------------------------


def module_case(name: str, options: dict[str, Any], *inputs: Any, **kwargs: Any) -> None:
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(**options).double()
    ours = getattr(cg.nn, name)(**options).double()
    load(ours, theirs)
    torch_inputs = copy_of(list(inputs))
    ours_inputs = to_cg(torch_inputs)
    compare(
        ours(*ours_inputs, **to_cg(kwargs)),
        theirs(*torch_inputs, **kwargs),
        (ours_inputs, torch_inputs),
        parameter_pairs(ours, theirs),
    )


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", ["RNN", "RNN_relu", "LSTM", "LSTM_proj", "GRU"])
def test_recurrent(kind: str, batch_first: bool, bidirectional: bool) -> None:
    name, _, extra = kind.partition("_")
    options = {
        "input_size": 3,
        "hidden_size": 5,
        "num_layers": 2,
        "batch_first": batch_first,
        "bidirectional": bidirectional,
    }
    if extra == "relu":
        options["nonlinearity"] = "relu"
    if extra == "proj":
        options["proj_size"] = 2
    count = 4 if bidirectional else 2
    h = randn(count, 2, 2 if extra == "proj" else 5)
    state = (h, randn(count, 2, 5)) if name == "LSTM" else h
    x = randn(2, 7, 3) if batch_first else randn(7, 2, 3)
    module_case(name, options, x)
    module_case(name, options, x, state)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, 2, "same", "valid"])
def test_convolution_padding(padding: Any, padding_mode: str) -> None:
    options = {
        "in_channels": 4,
        "out_channels": 6,
        "kernel_size": 4 if padding == "same" else 3,
        "padding": padding,
        "padding_mode": padding_mode,
        "groups": 2,
        "dilation": 1 if padding == "valid" else 2,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module_case("Conv1d", options, randn(2, 4, 9))
        module_case("Conv2d", options, randn(2, 4, 9, 8))
        module_case("Conv3d", options, randn(1, 4, 8, 9, 8))


def test_transposed_convolution_output_size() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1).double()
    ours = cg.nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1).double()
    load(ours, theirs)
    x = randn(1, 2, 4, 5)
    for size in [(8, 10), (7, 9), (1, 3, 8, 9)]:
        close(ours(to_cg(x), output_size=size), theirs(x, output_size=size), str(size))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_follows_the_batches(momentum: float | None) -> None:
    theirs = torch.nn.BatchNorm2d(6, momentum=momentum).double()
    ours = cg.nn.BatchNorm2d(6, momentum=momentum).double()
    load(ours, theirs)
    for seed in range(3):
        x = randn(2, 6, 5, 4, seed=seed)
        close(ours(to_cg(x)), theirs(x), "output")
    for name, buffer in theirs.named_buffers():
        close(ours.get_buffer(name), buffer, name)
    close(ours.eval()(to_cg(IMAGE)), theirs.eval()(IMAGE), "eval")


MHA_OPTIONS = [
    {},
    {"batch_first": True},
    {"bias": False},
    {"add_bias_kv": True, "add_zero_attn": True},
    {"kdim": 5, "vdim": 3},
]


@pytest.mark.parametrize("options", MHA_OPTIONS, ids=str)
@pytest.mark.parametrize(
    "masks", ["none", "attn", "attn3", "padding", "both", "float", "unbatched"]
)
@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention(options: dict[str, Any], masks: str, need_weights: bool) -> None:
    kdim, vdim = options.get("kdim", 8), options.get("vdim", 8)
    q, k, v = randn(3, 2, 8), randn(6, 2, kdim), randn(6, 2, vdim)
    if options.get("batch_first"):
        q, k, v = (x.detach().transpose(0, 1).clone().requires_grad_() for x in (q, k, v))
    if masks == "unbatched":
        q, k, v = randn(3, 8), randn(6, kdim), randn(6, vdim)
    rng = np.random.default_rng(4)
    kwargs: dict[str, Any] = {"need_weights": need_weights}
    if masks in ("attn", "both"):
        kwargs["attn_mask"] = torch.tensor(np.triu(np.ones((3, 6), dtype=bool), 2))
    if masks == "attn3":
        mask = rng.random((8, 3, 6)) < 0.4
        mask[..., 0] = False
        kwargs["attn_mask"] = torch.tensor(mask)
    if masks == "float":
        kwargs["attn_mask"] = torch.tensor(rng.standard_normal((3, 6)))
    if masks in ("padding", "both"):
        kwargs["key_padding_mask"] = torch.tensor([[False] * 4 + [True] * 2, [False] * 6])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module_case(
            "MultiheadAttention", {"embed_dim": 8, "num_heads": 4, **options}, q, k, v, **kwargs
        )


def test_self_attention_and_unaveraged_weights() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(8, 2).double()
    ours = cg.nn.MultiheadAttention(8, 2).double()
    load(ours, theirs)
    x = randn(3, 2, 8)
    y = to_cg(x)
    a = ours(y, y, y, average_attn_weights=False)
    b = theirs(x, x, x, average_attn_weights=False)
    compare(a, b, (y, x), parameter_pairs(ours, theirs))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_transformer(norm_first: bool, activation: str) -> None:
    torch.manual_seed(0)
    options = {
        "d_model": 8,
        "nhead": 2,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "dim_feedforward": 16,
        "dropout": 0.0,
        "activation": activation,
        "norm_first": norm_first,
        "batch_first": True,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.nn.Transformer(**options).double()
    ours = cg.nn.Transformer(**options).double()
    load(ours, theirs)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64)
    ours_mask = cg.nn.Transformer.generate_square_subsequent_mask(4, dtype=cg.float64)
    close(ours_mask, mask, "mask")
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    src, tgt = randn(2, 5, 8), randn(2, 4, 8)
    ours_inputs = to_cg([src, tgt])
    for causal in (None, True):
        a = ours(
            *ours_inputs,
            tgt_mask=ours_mask,
            src_key_padding_mask=to_cg(padding),
            memory_key_padding_mask=to_cg(padding),
            tgt_is_causal=causal,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            b = theirs(
                src,
                tgt,
                tgt_mask=mask,
                src_key_padding_mask=padding,
                memory_key_padding_mask=padding,
                tgt_is_causal=causal,
            )
        compare(a, b, (ours_inputs, [src, tgt]), parameter_pairs(ours, theirs))


def test_a_whole_model_trains_the_same() -> None:
    def build(nn: Any) -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 10),
        )

    torch.manual_seed(0)
    theirs, ours = build(torch.nn).double(), build(cg.nn).double()
    load(ours, theirs)
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = rng.standard_normal((6, 1, 8, 8)), rng.integers(0, 10, 6)
        a = F.cross_entropy(ours(cg.asarray(x)), cg.asarray(y))
        b = TF.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y))
        close(a, b, "loss", rtol=1e-9)
        ours.zero_grad()
        theirs.zero_grad()
        a.backward()
        b.backward()
        for _, p, q in parameter_pairs(ours, theirs):
            p.assign(p.detach() - 0.1 * p.grad)
            with torch.no_grad():
                q -= 0.1 * q.grad
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key], value, key, rtol=1e-8, atol=1e-10)


# --- initialisation ------------------------------------------------------------------------------

INITS = [
    ("uniform_", (-0.3, 0.7), {}),
    ("normal_", (0.5, 2.0), {}),
    ("trunc_normal_", (0.0, 1.0, -1.0, 2.0), {}),
    ("trunc_normal_", (1.0, 2.0, -1.0, 0.5), {}),
    ("xavier_uniform_", (), {"gain": 1.5}),
    ("xavier_normal_", (), {}),
    ("kaiming_uniform_", (), {"a": math.sqrt(5)}),
    ("kaiming_uniform_", (), {"mode": "fan_out", "nonlinearity": "relu"}),
    ("kaiming_normal_", (), {"nonlinearity": "tanh"}),
    ("orthogonal_", (), {"gain": 2.0}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), INITS, ids=lambda x: str(x))
def test_init_distribution(name: str, args: Any, kwargs: Any) -> None:
    torch.manual_seed(0)
    cg.manual_seed(0)
    shape = (64, 8, 5, 5)
    theirs = getattr(torch.nn.init, name)(torch.empty(shape), *args, **kwargs)
    ours = getattr(cg.nn.init, name)(cg.Parameter(cg.zeros(shape)), *args, **kwargs)
    a, b = ours.numpy().ravel(), theirs.numpy().ravel()
    assert stats.ks_2samp(a, b).pvalue > 1e-3
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a.std(), b.std(), rtol=0.03)
    np.testing.assert_allclose([a.min(), a.max()], [b.min(), b.max()], rtol=0.35)


def test_init_of_known_values() -> None:
    for name, shape, args in [
        ("ones_", (3, 2), ()),
        ("zeros_", (3, 2), ()),
        ("constant_", (3, 2), (0.3,)),
        ("eye_", (3, 5), ()),
        ("dirac_", (4, 3, 3), ()),
        ("dirac_", (6, 2, 3, 4), (3,)),
        ("dirac_", (2, 4, 2, 3, 3), ()),
    ]:
        theirs = getattr(torch.nn.init, name)(torch.full(shape, 7.0), *args)
        close(getattr(cg.nn.init, name)(cg.Parameter(cg.zeros(shape)), *args), theirs, name)


@pytest.mark.parametrize(
    "kind", ["linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
)
def test_gain(kind: str) -> None:
    assert cg.nn.init.calculate_gain(kind) == pytest.approx(torch.nn.init.calculate_gain(kind))
    if kind == "leaky_relu":
        ours = cg.nn.init.calculate_gain(kind, 0.2)
        assert ours == pytest.approx(torch.nn.init.calculate_gain(kind, 0.2))


LAYER_INITS = [
    "Linear(200, 50)",
    "Bilinear(20, 10, 30)",
    "Conv1d(20, 40, 5)",
    "Conv2d(20, 40, 3, groups=2)",
    "Conv3d(8, 16, 3)",
    "ConvTranspose1d(20, 40, 5)",
    "ConvTranspose2d(20, 40, 3, groups=2)",
    "Embedding(100, 30)",
    "RNN(30, 40)",
    "LSTM(30, 40, proj_size=10)",
    "GRU(30, 40, bidirectional=True)",
    "LSTMCell(30, 40)",
    "MultiheadAttention(40, 4, add_bias_kv=True)",
    "MultiheadAttention(40, 4, kdim=20, vdim=30)",
    "TransformerEncoderLayer(40, 4, 80)",
    "TransformerDecoderLayer(40, 4, 80)",
    "Transformer(40, 4, 1, 1, 80)",
    "BatchNorm1d(20)",
    "LayerNorm(20)",
    "PReLU(20)",
]


@pytest.mark.parametrize("text", LAYER_INITS)
def test_layers_start_like_theirs(text: str) -> None:
    torch.manual_seed(1)
    cg.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = eval(f"nn.{text}", {"nn": torch.nn})
    ours = eval(f"nn.{text}", {"nn": cg.nn})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        a, b = ours.state_dict()[name].numpy().ravel(), value.numpy().ravel()
        if b.std() < 1e-6 or b.size < 8:
            np.testing.assert_allclose(a.mean(), b.mean(), atol=0.3 if b.std() else 0)
            continue
        bound = 4 / math.sqrt(b.size)
        assert abs(a.std() / b.std() - 1) < bound, name
        assert stats.ks_2samp(a, b).pvalue > 1e-4, name


# --- utilities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm(norm_type: float, max_norm: float) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for shape in [(3, 4), (5,), ()]:
        grad = rng.standard_normal(shape)
        p = cg.Parameter(cg.zeros(shape, dtype=cg.float64))
        q = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        p.grad, q.grad = cg.asarray(grad), torch.tensor(grad)
        ours.append(p)
        theirs.append(q)
    a = cg.nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    b = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    close(a, b, "norm")
    for p, q in zip(ours, theirs, strict=True):
        close(p.grad, q.grad, "gradient")
    cg.nn.utils.clip_grad_value_(ours, 0.1)
    torch.nn.utils.clip_grad_value_(theirs, 0.1)
    for p, q in zip(ours, theirs, strict=True):
        close(p.grad, q.grad, "gradient")


def test_functional_call_ties_weights() -> None:
    def build(nn: Any) -> Any:
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
        model[2].weight = model[0].weight
        return model.double()

    torch.manual_seed(0)
    theirs, ours = build(torch.nn), build(cg.nn)
    load(ours, theirs)
    x, w = randn(2, 3), randn(3, 3)
    for tie in (True, False):
        a = cg.nn.functional_call(ours, {"0.weight": to_cg(w)}, to_cg(x), tie_weights=tie)
        b = torch.func.functional_call(theirs, {"0.weight": w}, x, tie_weights=tie)
        close(a, b, f"tie_weights={tie}")
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert list(copy.deepcopy(ours).state_dict()) == list(theirs.state_dict())
