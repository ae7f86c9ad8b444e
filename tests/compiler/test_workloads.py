"""Training of small models of every kind: compiled steps give the curves of eager ones.

In float64, so that what differs is rounding alone (sums in another order), which ten steps of an
optimiser do not carry far; in float32 with what its precision allows. Whatever a step changes is
compared at the end: parameters, buffers, and the state of the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn
from cartograd.nn import functional as F

STEPS = 10
Array = np.ndarray[Any, Any]
Loss = Callable[..., cg.Tensor]


# --- models: what makes each, its batch, and its loss ---------------------------------------------


class Attention(nn.Module):
    """A causal transformer of one block over a small alphabet, its head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 16), nn.Embedding(7, 16)
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.mixed, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.wide = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 16))

    def forward(self, x: cg.Tensor) -> cg.Tensor:
        b, t = x.shape
        h = self.tokens(x) + self.places(cg.arange(t))
        q, k, v = cg.unstack(self.mixed(self.first(h)).reshape((b, t, 3, 2, 8)), axis=2)
        q, k, v = (cg.permute_dims(u, (0, 2, 1, 3)) for u in (q, k, v))
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(cg.permute_dims(found, (0, 2, 1, 3)).reshape((b, t, 16)))
        h = h + self.wide(self.second(h))
        return h @ self.tokens.weight.mT


class Recurrent(nn.Module):
    """The last state of a recurrent layer, read out."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(5, 9, batch_first=True)
        self.out = nn.Linear(9, 1)

    def forward(self, x: cg.Tensor) -> cg.Tensor:
        return self.out(self.layer(x)[0][:, -1])


class Residual(nn.Module):
    """Two convolutions with batch norm around a shortcut, then the mean of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.first, self.second = (nn.Conv2d(6, 6, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(6)])
        self.out = nn.Linear(6, 4)

    def forward(self, x: cg.Tensor) -> cg.Tensor:
        x = F.relu(self.stem(x))
        h = F.relu(self.norms[0](self.first(x)))
        h = F.relu(self.norms[1](self.second(h)) + x)
        return self.out(h.mean(axis=(2, 3)))


class Variational(nn.Module):
    """An autoencoder that draws its code: returns the negative evidence lower bound."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(12, 8), nn.Linear(4, 12)

    def forward(self, x: cg.Tensor) -> cg.Tensor:
        mean, spread = cg.unstack(self.inside(x).reshape((-1, 2, 4)), axis=1)
        code = mean + cg.exp(0.5 * spread) * cg.random.normal(mean.shape, dtype=mean.dtype)
        error = F.binary_cross_entropy_with_logits(self.outside(code), x, reduction="sum")
        return (error - 0.5 * (1 + spread - mean**2 - cg.exp(spread)).sum()) / x.shape[0]


def _normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def _labels(high: int, *shape: int) -> Array:
    return np.random.default_rng(high).integers(0, high, shape)


def _plain(f: Callable[..., Any]) -> Loss:
    return lambda model, x, y: f(model(x), y)


def _hidden() -> nn.Module:
    return nn.Sequential(
        nn.Linear(7, 33), nn.BatchNorm1d(33), nn.ReLU(), nn.Dropout(0.2), nn.Linear(33, 17),
        nn.Tanh(), nn.Linear(17, 1),
    )  # fmt: skip


def _pictures() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 5, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 7, 3),
        nn.GroupNorm(7, 7), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(28, 10),
    )  # fmt: skip


def _symbols(model: nn.Module, x: cg.Tensor, y: cg.Tensor) -> cg.Tensor:
    return F.cross_entropy(model(x).reshape((-1, 11)), y.reshape((-1,)))


def _physics(model: nn.Module, x: cg.Tensor, y: cg.Tensor) -> cg.Tensor:
    """u'' = y in the inside, u = 0 at the ends: second derivatives inside a loss."""

    def u(t: cg.Tensor) -> cg.Tensor:
        return model(t.reshape((1, 1)))[0, 0]

    curved = cg.vmap(cg.grad(cg.grad(u)))(x)
    ends = model(cg.asarray([[0.0], [1.0]], dtype=x.dtype))
    return ((curved - y) ** 2).mean() + (ends**2).mean()


def _steered(model: nn.Module, x: cg.Tensor, y: cg.Tensor) -> cg.Tensor:
    """A path that a network steers, by Heun's method in a scan."""

    def step(state: cg.Tensor, _: Any) -> Any:
        a = model(state)
        b = model(state + 0.1 * a)
        return state + 0.05 * (a + b), None

    return ((cg.scan(step, x, None, length=6)[0] - y) ** 2).mean()


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Array, Array]], Loss]] = {
    "logistic": (
        lambda: nn.Linear(13, 1),
        lambda: (_normal(31, 13), _labels(2, 31, 1).astype(float)),
        _plain(F.binary_cross_entropy_with_logits),
    ),
    "mlp": (_hidden, lambda: (_normal(19, 7), _normal(19, 1)), _plain(F.mse_loss)),
    "cnn": (_pictures, lambda: (_normal(4, 1, 12, 12), _labels(10, 4)), _plain(F.cross_entropy)),
    "residual": (Residual, lambda: (_normal(5, 1, 6, 6), _labels(4, 5)), _plain(F.cross_entropy)),
    "lstm": (
        lambda: Recurrent("LSTM"), lambda: (_normal(6, 8, 5), _normal(6, 1)), _plain(F.mse_loss),
    ),
    "gru": (
        lambda: Recurrent("GRU"), lambda: (_normal(6, 8, 5), _normal(6, 1)), _plain(F.l1_loss),
    ),
    "gpt": (Attention, lambda: (_labels(11, 3, 7), _labels(10, 3, 7)), _symbols),
    "vae": (
        Variational, lambda: (_labels(2, 9, 12).astype(float), _normal(1)), lambda m, x, y: m(x),
    ),
    "pinn": (
        lambda: nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)),
        lambda: (np.linspace(0.1, 0.9, 9), _normal(9)), _physics,
    ),
    "ode": (
        lambda: nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)),
        lambda: (_normal(10, 2), _normal(10, 2)), _steered,
    ),
}  # fmt: skip
OPTIMISERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    "Adam": {"lr": 0.01},
    "AdamW": {"lr": 0.01, "amsgrad": True},
    "RMSprop": {"lr": 0.005, "centered": True, "momentum": 0.5},
}


# --- the imperative idiom -------------------------------------------------------------------------


def trained(
    name: str, optimiser: str, dtype: Any, compiled: bool
) -> tuple[list[float], dict[str, Array]]:
    """Losses of ten steps, and everything that the steps changed."""
    build, batch, loss_of = MODELS[name]
    cg.manual_seed(1)
    model = build().to(dtype)
    options = OPTIMISERS[optimiser]
    opt = getattr(cg.optim, optimiser)(model.parameters(), **options)
    schedule = cg.optim.lr_scheduler.StepLR(opt, 4, gamma=0.5)

    def step(x: cg.Tensor, y: cg.Tensor) -> cg.Tensor:
        opt.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        opt.step()
        return loss

    run = cg.compile(step) if compiled else step
    x, y = (cg.asarray(a if a.dtype.kind == "i" else a.astype(dtype)) for a in batch())
    losses: list[float] = []
    for _ in range(STEPS):
        losses.append(run(x, y).item())
        schedule.step()
    if compiled:
        assert run.lowerings <= 2  # the first call finds no gradients to clear
    after = {k: v.numpy() for k, v in model.state_dict().items()}
    return losses, {**after, "generator": cg.random.default_generator.get_state()}


def same(
    left: tuple[list[float], dict[str, Array]], right: tuple[list[float], dict[str, Array]],
    rtol: float,
) -> None:  # fmt: skip
    """Curves and what is left behind, within rtol of the largest of each."""
    np.testing.assert_allclose(left[0], right[0], rtol=rtol, atol=rtol)
    assert left[1].keys() == right[1].keys()
    for key, value in right[1].items():
        if value.dtype.kind != "f":
            np.testing.assert_array_equal(left[1][key], value, key)
        else:
            scale = np.max(np.abs(value), initial=1e-3)
            np.testing.assert_allclose(left[1][key], value, rtol=0, atol=rtol * scale, err_msg=key)


# Every model with two optimisers, every optimiser with five models.
PAIRS = [(name, list(OPTIMISERS)[(k + j) % 4]) for k, name in enumerate(MODELS) for j in (0, 1)]


@pytest.mark.parametrize(("name", "optimiser"), PAIRS)
def test_a_compiled_training_is_the_eager_one(name: str, optimiser: str) -> None:
    eager = trained(name, optimiser, cg.float64, compiled=False)
    assert min(eager[0]) < eager[0][0]
    same(trained(name, optimiser, cg.float64, compiled=True), eager, 1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_in_float32_too(name: str) -> None:
    same(trained(name, "SGD", cg.float32, True), trained(name, "SGD", cg.float32, False), 2e-3)


# --- the functional idiom -------------------------------------------------------------------------


@pytest.mark.parametrize("donate", [(), (0, 1)], ids=["kept", "donated"])
@pytest.mark.parametrize(
    ("name", "optimiser"), [("mlp", "sgd"), ("gpt", "adamw"), ("pinn", "rmsprop"), ("ode", "adam")]
)
def test_both_idioms_train_alike(name: str, optimiser: str, donate: tuple[int, ...]) -> None:
    """Parameters as a tree, replaced; and as States, written in place."""
    build, batch, loss_of = MODELS[name]
    options = {"sgd": {"lr": 0.05, "momentum": 0.9}}.get(optimiser, {"lr": 0.01})
    kind = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}[optimiser]
    cg.manual_seed(1)
    model = build().to(cg.float64)
    model.train(False)
    x, y = (cg.asarray(a) for a in batch())
    start = {k: cg.asarray(v.numpy().copy()) for k, v in model.named_parameters()}

    opt = getattr(cg.optim, kind)(model.parameters(), **options)

    @cg.compile
    def imperative(x: cg.Tensor, y: cg.Tensor) -> cg.Tensor:
        opt.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        opt.step()
        return loss

    losses = [imperative(x, y).item() for _ in range(STEPS)]
    ended = {k: v.numpy().copy() for k, v in model.named_parameters()}

    pure = getattr(cg.optim.functional, optimiser)(**options)
    blank = build().to(cg.float64)
    blank.train(False)

    def loss_at(params: Any, x: cg.Tensor, y: cg.Tensor) -> cg.Tensor:
        def called(*args: Any) -> cg.Tensor:
            return nn.functional_call(blank, params, args)

        return loss_of(called, x, y)

    def functional(params: Any, state: Any, x: cg.Tensor, y: cg.Tensor) -> Any:
        loss, grads = cg.value_and_grad(loss_at)(params, x, y)
        params, state = pure.update(grads, state, params)
        return params, state, loss

    run = cg.compile(functional, donate=donate)
    params, state = start, pure.init(start)
    found: list[float] = []
    for _ in range(STEPS):
        params, state, loss = run(params, state, x, y)
        found.append(loss.item())
    assert run.lowerings == 1
    same((found, {k: v.numpy() for k, v in params.items()}), (losses, ended), 1e-9)
