"""A training step in JAX: one jitted function with donated state, Adam written over the tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .spec import Array, Workload

TABLES = ("tokens", "positions", "embedding")  # looked up, not multiplied: kept as they are


def jax_step(
    workload: Workload, weights: dict[str, Array], batch: tuple[Array, ...], options: Any
) -> Callable[[], Any]:
    """One step in JAX; the state lives in the closure and is donated to each call."""
    import jax
    import jax.numpy as jnp

    loss = workload.jax
    assert loss is not None
    prepared = (workload.prepare or layouts)(weights)
    kept = {name: jnp.asarray(prepared[name]) for name in workload.statistics}
    params = {n: jnp.asarray(v) for n, v in prepared.items() if n not in workload.statistics}
    update = sgd if workload.optimizer == "sgd" else adam

    def body(state: Any, *batch: Any) -> Any:
        params, slots, kept = state
        if kept:
            value_and_grad = jax.value_and_grad(loss, has_aux=True)
            (y, kept), grads = value_and_grad(params, kept, *batch)
        else:
            y, grads = jax.value_and_grad(loss)(params, *batch)
        params, slots = update(params, grads, slots, workload.rate)
        return (params, slots, kept), y

    run = jax.jit(body, donate_argnums=0)
    zeros = {n: jnp.zeros_like(p) for n, p in params.items()}
    more = {n: jnp.zeros_like(p) for n, p in params.items()}
    state = (params, (zeros, more, jnp.float32(0)), kept)
    inputs = [jnp.asarray(channels_last(a)) for a in batch]

    def step() -> Any:
        nonlocal state
        state, y = run(state, *inputs)
        return y

    return step


def adam(params: Any, grads: Any, slots: Any, rate: float) -> Any:
    """(params, slots) after one step of Adam with the usual constants."""
    import jax
    import jax.numpy as jnp

    m, v, t = slots
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    size, scale = rate / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
    params = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) / scale + 1e-8), params, m, v)
    return params, (m, v, t)


def sgd(params: Any, grads: Any, slots: Any, rate: float) -> Any:
    """(params, slots) after one step of gradient descent with momentum 0.9."""
    import jax

    m, unused, t = slots
    m = jax.tree.map(lambda m, g: 0.9 * m + g, m, grads)
    return jax.tree.map(lambda p, m: p - rate * m, params, m), (m, unused, t)


def layouts(weights: dict[str, Array]) -> dict[str, Array]:
    """PyTorch's weights as JAX's users lay them out: [in, out] and [height, width, in, out]."""
    made = dict(weights)
    for name, w in weights.items():
        if w.ndim == 2 and not any(table in name for table in TABLES):
            made[name] = np.ascontiguousarray(w.T)
        elif w.ndim == 4:
            made[name] = np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    return made


def channels_last(a: Array) -> Array:
    """Images [n, c, h, w] as [n, h, w, c], which XLA prefers; other arrays unchanged."""
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)) if a.ndim == 4 else a


# ---- layers, over flat dicts with PyTorch's names ----------------------------------------------


def dense(p: Any, name: str, x: Any) -> Any:
    """A linear layer."""
    y = x @ p[f"{name}.weight"]
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def layer_norm(p: Any, name: str, x: Any) -> Any:
    """Layer normalisation over the last axis."""
    import jax
    import jax.numpy as jnp

    mean = jnp.mean(x, -1, keepdims=True)
    centred = x - mean
    var = jnp.mean(centred * centred, -1, keepdims=True)
    return centred * jax.lax.rsqrt(var + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def conv(p: Any, name: str, x: Any, stride: int = 1, padding: int = 1) -> Any:
    """A two-dimensional convolution of [n, h, w, c]."""
    import jax

    y = jax.lax.conv_general_dilated(
        x,
        p[f"{name}.weight"],
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def max_pool(x: Any) -> Any:
    """Windows of 2x2, without overlap: by reshaping, much faster on a CPU than reduce_window."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def cross_entropy(scores: Any, labels: Any) -> Any:
    """The mean of -log softmax(scores)[label]."""
    import jax
    import jax.numpy as jnp

    picked = jnp.take_along_axis(scores, labels[..., None], -1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(scores, -1) - picked)
