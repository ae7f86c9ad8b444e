"""Derivatives of derivatives and loops: a PDE's residual, an ODE, a Hessian-vector product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import in_jax
from .in_modules import compiled
from .spec import Array, Shapes, Workload, integers, linear, normal, product, together

# ---- Burgers' equation: u_t + u u_x = nu u_xx ----------------------------------------------------

NU = 0.01 / np.pi


def _pinn(lib: Any) -> Any:
    nn = lib.nn
    model = nn.Sequential(
        nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(),
        nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1),
    )  # fmt: skip
    derivatives = _reverse_derivatives if lib.__name__ == "torch" else _forward_derivatives

    def loss(model: Any, t: Any, x: Any) -> Any:
        u, u_t, u_x, u_xx = derivatives(lib, model, t, x)
        residual = u_t + u * u_x - NU * u_xx
        return (residual * residual).mean()

    return model, loss


def _reverse_derivatives(torch: Any, model: Any, t: Any, x: Any) -> tuple[Any, ...]:
    """u, u_t, u_x, u_xx as PyTorch's users take them: grad of grad."""
    t, x = t.clone().requires_grad_(), x.clone().requires_grad_()
    u = model(torch.cat([t, x], 1))
    ones = torch.ones_like(u)
    u_t, u_x = torch.autograd.grad(u, (t, x), ones, create_graph=True)
    (u_xx,) = torch.autograd.grad(u_x, x, ones, create_graph=True)
    return u, u_t, u_x, u_xx


def _forward_derivatives(cg: Any, model: Any, t: Any, x: Any) -> tuple[Any, ...]:
    """u, u_t, u_x, u_xx with forward derivatives: the points are rows and do not mix."""

    def u(t: Any, x: Any) -> Any:
        return model(cg.concat([t, x], axis=1))

    def along_x(x: Any) -> Any:
        return cg.jvp(lambda x: u(t, x), (x,), (cg.ones_like(x),))

    (value, u_x), (_, u_xx) = cg.jvp(along_x, (x,), (cg.ones_like(x),))
    _, u_t = cg.jvp(lambda t: u(t, x), (t,), (cg.ones_like(t),))
    return value, u_t, u_x, u_xx


def _pinn_jax(p: Any, t: Any, x: Any) -> Any:
    import jax
    import jax.numpy as jnp

    def u(t: Any, x: Any) -> Any:
        h = jnp.concatenate([t, x], 1)
        for name in ("0", "2", "4"):
            h = jnp.tanh(in_jax.dense(p, name, h))
        return in_jax.dense(p, "6", h)

    def along_x(x: Any) -> Any:
        return jax.jvp(lambda x: u(t, x), (x,), (jnp.ones_like(x),))

    (value, u_x), (_, u_xx) = jax.jvp(along_x, (x,), (jnp.ones_like(x),))
    _, u_t = jax.jvp(lambda t: u(t, x), (t,), (jnp.ones_like(t),))
    residual = u_t + value * u_x - NU * u_xx
    return jnp.mean(residual * residual)


_PINN_SHAPES = linear("0", 2, 32) | linear("2", 32, 32) | linear("4", 32, 32) | linear("6", 32, 1)

PINN = Workload(
    "pinn",
    "MLP 2-32-32-32-1, Burgers residual with u_xx at 256 points",
    _PINN_SHAPES,
    together(normal(256, 1), normal(256, 1)),
    # value, two first derivatives and a second one go through the network, and back.
    4 * (product(256, 2, 32) + 2 * product(256, 32, 32) + product(256, 32, 1)),
    modules=_pinn,
    jax=_pinn_jax,
    cannot=("torch.compile",),
)


# ---- an ODE whose right-hand side is learned -----------------------------------------------------

STEPS, DT = 100, 0.05


def _rk4(f: Callable[[Any], Any], y: Any) -> Any:
    """One step of the classical Runge-Kutta method."""
    k1 = f(y)
    k2 = f(y + 0.5 * DT * k1)
    k3 = f(y + 0.5 * DT * k2)
    k4 = f(y + DT * k3)
    return y + (DT / 6) * (k1 + 2 * (k2 + k3) + k4)


def _ode(lib: Any) -> Any:
    nn = lib.nn
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))

    def loss(model: Any, start: Any, end: Any) -> Any:
        if lib.__name__ == "torch":
            y = start
            for _ in range(STEPS):
                y = _rk4(model, y)
        else:
            y, _ = lib.scan(lambda y, _: (_rk4(model, y), None), start, length=STEPS)
        return nn.functional.mse_loss(y, end)

    return model, loss


def _ode_jax(p: Any, start: Any, end: Any) -> Any:
    import jax
    import jax.numpy as jnp

    def f(y: Any) -> Any:
        return in_jax.dense(p, "2", jnp.tanh(in_jax.dense(p, "0", y)))

    y, _ = jax.lax.scan(lambda y, _: (_rk4(f, y), None), start, length=STEPS)
    return jnp.mean((y - end) ** 2)


ODE = Workload(
    "ode",
    "MLP 2-32-2, 100 steps of RK4, batch 64",
    linear("0", 2, 32) | linear("2", 32, 2),
    together(normal(64, 2), normal(64, 2)),
    4 * STEPS * (product(64, 2, 32) + product(64, 32, 2)),
    modules=_ode,
    jax=_ode_jax,
)


# ---- the largest curvature of a loss, by power iteration with Hessian-vector products ------------

_HVP_SHAPES: Shapes = linear("0", 64, 128) | linear("2", 128, 10)


def _hvp_start(weights: dict[str, Array]) -> dict[str, Array]:
    norm = np.sqrt(sum(float((w**2).sum()) for w in weights.values()))
    return {name: (w / norm).astype(np.float32) for name, w in weights.items()}


def _hvp_jax(
    workload: Workload, weights: dict[str, Array], batch: tuple[Array, ...], options: Any
) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    def loss(p: Any, x: Any, y: Any) -> Any:
        h = jnp.tanh(in_jax.dense(p, "0", x))
        return in_jax.cross_entropy(in_jax.dense(p, "2", h), y)

    def iterate(v: Any, p: Any, x: Any, y: Any) -> Any:
        _, hv = jax.jvp(lambda p: jax.grad(loss)(p, x, y), (p,), (v,))
        curvature = sum(jnp.sum(v[n] * hv[n]) for n in v)
        norm = jnp.sqrt(sum(jnp.sum(h * h) for h in hv.values()))
        return jax.tree.map(lambda h: h / norm, hv), curvature

    run = jax.jit(iterate, donate_argnums=0)
    p = {n: jnp.asarray(w) for n, w in in_jax.layouts(weights).items()}
    v = {n: jnp.asarray(w) for n, w in in_jax.layouts(_hvp_start(weights)).items()}
    x, y = (jnp.asarray(a) for a in batch)

    def step() -> Any:
        nonlocal v
        v, curvature = run(v, p, x, y)
        return curvature

    return step


def _hvp_torch(
    workload: Workload, weights: dict[str, Array], batch: tuple[Array, ...], options: Any
) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(options.threads)
    p = {n: torch.from_numpy(w.copy()) for n, w in weights.items()}
    v = {n: torch.from_numpy(w) for n, w in _hvp_start(weights).items()}
    x, y = (torch.from_numpy(a) for a in batch)

    def loss(p: Any) -> Any:
        h = torch.tanh(torch.nn.functional.linear(x, p["0.weight"], p["0.bias"]))
        scores = torch.nn.functional.linear(h, p["2.weight"], p["2.bias"])
        return torch.nn.functional.cross_entropy(scores, y)

    def iterate(v: Any) -> Any:
        _, hv = torch.func.jvp(torch.func.grad(loss), (p,), (v,))
        curvature = sum((v[n] * hv[n]).sum() for n in v)
        norm = torch.sqrt(sum((h * h).sum() for h in hv.values()))
        return {n: h / norm for n, h in hv.items()}, curvature

    run = torch.compile(iterate) if options.library == "torch.compile" else iterate

    def step() -> Any:
        nonlocal v
        v, curvature = run(v)
        return curvature

    return step


def _hvp_cartograd(
    workload: Workload, weights: dict[str, Array], batch: tuple[Array, ...], options: Any
) -> Callable[[], Any]:
    import cartograd as cg

    F = cg.nn.functional

    def loss(p: Any, x: Any, y: Any) -> Any:
        h = cg.tanh(F.linear(x, p["0.weight"], p["0.bias"]))
        return F.cross_entropy(F.linear(h, p["2.weight"], p["2.bias"]), y)

    def iterate(v: Any, p: Any, x: Any, y: Any) -> Any:
        _, hv = cg.jvp(lambda p: cg.grad(loss)(p, x, y), (p,), (v,))
        curvature = sum((cg.sum(v[n] * hv[n]) for n in v), cg.asarray(0.0))
        norm = cg.sqrt(sum((cg.sum(h * h) for h in hv.values()), cg.asarray(0.0)))
        return {n: h / norm for n, h in hv.items()}, curvature

    run = compiled(cg, iterate, options, donate=(0,))
    p = {n: cg.asarray(w) for n, w in weights.items()}
    v = {n: cg.asarray(w) for n, w in _hvp_start(weights).items()}
    x, y = (cg.asarray(a) for a in batch)

    def step() -> Any:
        nonlocal v
        v, curvature = run(v, p, x, y)
        return curvature

    return step


HVP = Workload(
    "hvp",
    "Hessian-vector product of an MLP 64-128-10's loss, batch 128, in a power iteration",
    _HVP_SHAPES,
    together(normal(128, 64), integers(10, 128)),
    2 * (product(128, 64, 128, 2) + product(128, 128, 10)),
    optimizer="none",
    steps={
        "torch": _hvp_torch,
        "torch.compile": _hvp_torch,
        "jax": _hvp_jax,
        "cartograd": _hvp_cartograd,
    },
)

NAMED = (PINN, ODE)
MORE = (HVP,)
