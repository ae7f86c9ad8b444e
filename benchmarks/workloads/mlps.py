"""Multi-layer perceptrons: the small and large ones, odd widths, one row, many rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from . import in_jax
from .spec import Shapes, Workload, integers, linear, norm, normal, product, together

Loss = Callable[..., Any]


def mlp(
    name: str,
    widths: tuple[int, ...],
    batch: int,
    activation: str = "relu",
    loss: str = "cross_entropy",
    normalise: bool = False,
    optimizer: str = "adam",
    about: str = "",
) -> Workload:
    """An MLP of the given widths; `loss` is the name of a function of nn.functional."""
    classes = loss == "cross_entropy"
    target = integers(widths[-1], batch) if classes else normal(batch, widths[-1])
    described = f"MLP {_widths(widths)} {activation}, batch {batch}, {loss.replace('_', ' ')}"
    return Workload(
        name,
        about or described,
        _shapes(widths, normalise),
        together(normal(batch, widths[0]), target),
        _flops(widths, batch),
        modules=lambda lib: _modules(lib, widths, activation, loss, normalise),
        jax=_jax(len(widths) - 1, activation, loss, normalise),
        optimizer=optimizer,
        rate=1e-2 if optimizer == "sgd" else 1e-3,
    )


def _widths(widths: tuple[int, ...]) -> str:
    if len(widths) > 6:
        return f"{widths[0]}-{widths[1]}x{len(widths) - 2}-{widths[-1]}"
    return "-".join(map(str, widths))


def _places(layers: int, normalise: bool) -> list[tuple[int, int | None]]:
    """Where in the Sequential each Linear is, and the LayerNorm after it."""
    each = 3 if normalise else 2
    last = layers - 1
    return [(each * k, each * k + 1 if normalise and k < last else None) for k in range(layers)]


def _shapes(widths: tuple[int, ...], normalise: bool) -> Shapes:
    shapes: Shapes = {}
    for k, (place, after) in enumerate(_places(len(widths) - 1, normalise)):
        shapes |= linear(str(place), widths[k], widths[k + 1])
        if after is not None:
            shapes |= norm(str(after), widths[k + 1])
    return shapes


def _flops(widths: tuple[int, ...], batch: int) -> float:
    pairs = enumerate(pairwise(widths))
    return sum(product(batch, m, n, 3 if k else 2) for k, (m, n) in pairs)


def _modules(
    lib: Any, widths: tuple[int, ...], activation: str, loss: str, normalise: bool
) -> tuple[Any, Loss]:
    nn = lib.nn
    kinds = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
    layers: list[Any] = []
    for k in range(len(widths) - 1):
        layers.append(nn.Linear(widths[k], widths[k + 1]))
        if k < len(widths) - 2:
            layers += [nn.LayerNorm(widths[k + 1])] if normalise else []
            layers.append(kinds[activation]())
    model = nn.Sequential(*layers)
    compare = getattr(nn.functional, loss)
    return model, lambda model, x, y: compare(model(x), y)


def _jax(layers: int, activation: str, loss: str, normalise: bool) -> Loss:
    places = _places(layers, normalise)

    def value(p: Any, x: Any, y: Any) -> Any:
        import jax
        import jax.numpy as jnp

        acts = {
            "relu": jax.nn.relu,
            "tanh": jnp.tanh,
            "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        }
        for k, (place, after) in enumerate(places):
            x = in_jax.dense(p, str(place), x)
            if k < layers - 1:
                x = x if after is None else in_jax.layer_norm(p, str(after), x)
                x = acts[activation](x)
        if loss == "cross_entropy":
            return in_jax.cross_entropy(x, y)
        d = x - y
        if loss == "huber_loss":
            a = jnp.abs(d)
            return jnp.mean(jnp.where(a < 1, 0.5 * d * d, a - 0.5))
        return jnp.mean(d * d)

    return value


NAMED = (
    mlp("tiny", (4, 16, 16, 1), 32, "tanh", "mse_loss"),
    mlp("mlp", (784, 128, 10), 128),
    mlp("wide", (784, 1024, 1024, 10), 256),
)

MORE = (
    mlp("logistic", (784, 10), 256, about="logistic regression 784-10, batch 256"),
    mlp("odd", (33, 77, 51, 3), 50, "gelu", normalise=True,
        about="MLP 33-77-51-3, GELU and layer norm, batch 50"),
    mlp("rows", (64, 128, 128, 10), 4096),
    mlp("one", (128, 256, 256, 10), 1),
    mlp("momentum", (256, 300, 100, 10), 64, "tanh", optimizer="sgd",
        about="MLP 256-300-100-10 tanh, batch 64, SGD with momentum"),
    mlp("huber", (13, 64, 64, 1), 200, "relu", "huber_loss"),
)  # fmt: skip


def swept(layers: int, width: int, batch: int) -> Workload:
    """An MLP of so many hidden layers of one width, for the growth of the step's time."""
    name = f"sweep-{layers}-{width}-{batch}"
    return mlp(name, (32, *([width] * layers), 10), batch, "relu")
