"""Images: a convolutional classifier, a residual block with batch norm, two auto-encoders."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import in_jax
from .in_jax import layouts
from .spec import Array, Workload, conv, integers, linear, norm, normal, product, together, uniform


def _conv_flops(
    batch: int, side: int, inputs: int, outputs: int, size: int, times: int = 3
) -> float:
    """FLOPs of a convolution whose output is side x side, with its gradients."""
    return product(batch * side * side, inputs * size * size, outputs, times)


# ---- lenet -------------------------------------------------------------------------------------


def _lenet(lib: Any) -> Any:
    nn = lib.nn
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    return model, lambda model, x, y: nn.functional.cross_entropy(model(x), y)


def _lenet_jax(p: Any, x: Any, y: Any) -> Any:
    import jax

    x = in_jax.max_pool(jax.nn.relu(in_jax.conv(p, "0", x)))
    x = in_jax.max_pool(jax.nn.relu(in_jax.conv(p, "3", x)))
    x = jax.nn.relu(in_jax.dense(p, "7", x.reshape(x.shape[0], -1)))
    return in_jax.cross_entropy(in_jax.dense(p, "9", x), y)


def _lenet_prepare(weights: dict[str, Array]) -> dict[str, Array]:
    """The first Linear reads the image with its channels last."""
    flat = weights["7.weight"].reshape(128, 64, 7, 7).transpose(2, 3, 1, 0).reshape(-1, 128)
    return layouts(weights) | {"7.weight": np.ascontiguousarray(flat)}


LENET = Workload(
    "lenet",
    "conv 32, pool, conv 64, pool, 128, 10; 28x28, batch 64",
    conv("0", 1, 32, 3) | conv("3", 32, 64, 3) | linear("7", 64 * 49, 128) | linear("9", 128, 10),
    together(normal(64, 1, 28, 28), integers(10, 64)),
    _conv_flops(64, 28, 1, 32, 3, 2)
    + _conv_flops(64, 14, 32, 64, 3)
    + product(64, 64 * 49, 128)
    + product(64, 128, 10),
    modules=_lenet,
    jax=_lenet_jax,
    prepare=_lenet_prepare,
)


# ---- a residual block with batch norm ------------------------------------------------------------


def _resnet(lib: Any) -> Any:
    nn = lib.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
            self.norm0 = nn.BatchNorm2d(16)
            self.conv1 = nn.Conv2d(16, 32, 3, padding=1, stride=2, bias=False)
            self.norm1 = nn.BatchNorm2d(32)
            self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
            self.norm2 = nn.BatchNorm2d(32)
            self.short = nn.Conv2d(16, 32, 1, stride=2, bias=False)
            self.head = nn.Linear(32, 10)

        def forward(self, x: Any) -> Any:
            relu = nn.functional.relu
            x = relu(self.norm0(self.stem(x)))
            y = relu(self.norm1(self.conv1(x)))
            x = relu(self.norm2(self.conv2(y)) + self.short(x))
            return self.head(x.mean((2, 3)))

    return Net(), lambda model, x, y: nn.functional.cross_entropy(model(x), y)


def _resnet_jax(p: Any, kept: Any, x: Any, y: Any) -> Any:
    import jax
    import jax.numpy as jnp

    kept = dict(kept)

    def batch_norm(name: str, x: Any) -> Any:
        mean = x.mean((0, 1, 2))
        centred = x - mean
        var = (centred * centred).mean((0, 1, 2))
        count = x.size // x.shape[-1]
        for key, new in (("mean", mean), ("var", var * (count / (count - 1)))):
            full = f"{name}.running_{key}"
            kept[full] = 0.9 * kept[full] + 0.1 * new
        return centred * jax.lax.rsqrt(var + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    x = jax.nn.relu(batch_norm("norm0", in_jax.conv(p, "stem", x)))
    z = jax.nn.relu(batch_norm("norm1", in_jax.conv(p, "conv1", x, 2)))
    z = batch_norm("norm2", in_jax.conv(p, "conv2", z)) + in_jax.conv(p, "short", x, 2, 0)
    scores = in_jax.dense(p, "head", jnp.mean(jax.nn.relu(z), (1, 2)))
    return in_jax.cross_entropy(scores, y), kept


_KEPT = tuple(f"norm{k}.running_{what}" for k in range(3) for what in ("mean", "var"))

RESNET = Workload(
    "resnet",
    "residual block with batch norm, 16 and 32 channels, 16x16, batch 32",
    conv("stem", 3, 16, 3, False)
    | norm("norm0", 16)
    | conv("conv1", 16, 32, 3, False)
    | norm("norm1", 32)
    | conv("conv2", 32, 32, 3, False)
    | norm("norm2", 32)
    | conv("short", 16, 32, 1, False)
    | linear("head", 32, 10)
    | {name: (16 if "norm0" in name else 32,) for name in _KEPT},
    together(normal(32, 3, 16, 16), integers(10, 32)),
    _conv_flops(32, 16, 3, 16, 3, 2)
    + _conv_flops(32, 8, 16, 32, 3)
    + _conv_flops(32, 8, 32, 32, 3)
    + _conv_flops(32, 8, 16, 32, 1)
    + product(32, 32, 10),
    modules=_resnet,
    jax=_resnet_jax,
    statistics=_KEPT,
)


# ---- a convolutional auto-encoder ----------------------------------------------------------------


def _autoencoder(lib: Any) -> Any:
    nn = lib.nn
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
    )  # fmt: skip
    return model, lambda model, x: nn.functional.mse_loss(model(x), x)


def _autoencoder_jax(p: Any, x: Any) -> Any:
    import jax
    import jax.numpy as jnp

    def up(name: str, x: Any) -> Any:
        y = jax.lax.conv_general_dilated(
            x, p[f"{name}.weight"], (1, 1), [(2, 2)] * 2, lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return y + p[f"{name}.bias"]

    z = jax.nn.relu(in_jax.conv(p, "0", x, 2))
    z = jax.nn.relu(in_jax.conv(p, "2", z, 2))
    z = jax.nn.relu(up("4", z))
    d = up("6", z) - x
    return jnp.mean(d * d)


def _autoencoder_prepare(weights: dict[str, Array]) -> dict[str, Array]:
    """A transposed convolution is a convolution with its kernel turned round."""
    made = layouts(weights)
    for name in ("4.weight", "6.weight"):
        made[name] = np.ascontiguousarray(weights[name].transpose(2, 3, 0, 1)[::-1, ::-1])
    return made


AUTOENCODER = Workload(
    "autoencoder",
    "convolutions of stride 2 down and up, 1-16-32-16-1 channels, 28x28, batch 64",
    conv("0", 1, 16, 3)
    | conv("2", 16, 32, 3)
    | {"4.weight": (32, 16, 4, 4), "4.bias": (16,), "6.weight": (16, 1, 4, 4), "6.bias": (1,)},
    together(uniform(64, 1, 28, 28)),
    _conv_flops(64, 14, 1, 16, 3, 2)
    + _conv_flops(64, 7, 16, 32, 3)
    + _conv_flops(64, 7, 32, 16, 4)
    + _conv_flops(64, 14, 16, 1, 4),
    modules=_autoencoder,
    jax=_autoencoder_jax,
    prepare=_autoencoder_prepare,
)


# ---- a variational auto-encoder ------------------------------------------------------------------


def _vae(lib: Any) -> Any:
    nn = lib.nn
    F = nn.functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(784, 400)
            self.mean = nn.Linear(400, 20)
            self.spread = nn.Linear(400, 20)
            self.decode = nn.Linear(20, 400)
            self.out = nn.Linear(400, 784)

        def forward(self, x: Any, noise: Any) -> Any:
            h = F.relu(self.encode(x))
            mean, logvar = self.mean(h), self.spread(h)
            z = mean + noise * lib.exp(0.5 * logvar)
            return self.out(F.relu(self.decode(z))), mean, logvar

    def loss(model: Any, x: Any, noise: Any) -> Any:
        scores, mean, logvar = model(x, noise)
        fit = F.binary_cross_entropy_with_logits(scores, x, reduction="sum")
        return (fit - 0.5 * (1 + logvar - mean * mean - lib.exp(logvar)).sum()) / x.shape[0]

    return Net(), loss


def _vae_jax(p: Any, x: Any, noise: Any) -> Any:
    import jax
    import jax.numpy as jnp

    h = jax.nn.relu(in_jax.dense(p, "encode", x))
    mean, logvar = in_jax.dense(p, "mean", h), in_jax.dense(p, "spread", h)
    z = mean + noise * jnp.exp(0.5 * logvar)
    scores = in_jax.dense(p, "out", jax.nn.relu(in_jax.dense(p, "decode", z)))
    fit = jnp.sum(jnp.maximum(scores, 0) - scores * x + jnp.log1p(jnp.exp(-jnp.abs(scores))))
    return (fit - 0.5 * jnp.sum(1 + logvar - mean * mean - jnp.exp(logvar))) / x.shape[0]


VAE = Workload(
    "vae",
    "variational auto-encoder 784-400-20-400-784, batch 128",
    linear("encode", 784, 400)
    | linear("mean", 400, 20)
    | linear("spread", 400, 20)
    | linear("decode", 20, 400)
    | linear("out", 400, 784),
    together(uniform(128, 784), normal(128, 20)),
    product(128, 784, 400, 2)
    + product(128, 400, 40)
    + product(128, 20, 400)
    + product(128, 400, 784),
    modules=_vae,
    jax=_vae_jax,
)

NAMED = (LENET,)
MORE = (RESNET, AUTOENCODER, VAE)
