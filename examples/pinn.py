"""A physics-informed network: solve u'' = -pi^2 sin(pi x), u(-1) = u(1) = 0, without any data.

The residual needs a second derivative inside the loss: `grad` of `grad`, mapped over the points.
The exact solution is sin(pi x); the script prints how far off the network ends.
"""

import math
import sys

import cartograd as cg

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 400
POINTS, WIDTH, RATE, SEED = 64, 32, 1e-2, 0

cg.manual_seed(SEED)


def layer(inputs, outputs):
    scale = 1 / math.sqrt(inputs)
    return {"w": cg.random.normal((inputs, outputs)) * scale, "b": cg.zeros(outputs)}


def network(params, x):
    """u at one point; the factor (1 - x^2) makes it zero at both ends."""
    h = x.reshape(1)
    for part in params[:-1]:
        h = cg.tanh(h @ part["w"] + part["b"])
    return (h @ params[-1]["w"] + params[-1]["b"])[0] * (1 - x * x)


def residual(params, x):
    def u(x):
        return network(params, x)

    return cg.grad(cg.grad(u))(x) + math.pi**2 * cg.sin(math.pi * x)


def loss(params, xs):
    return (cg.vmap(residual, (None, 0))(params, xs) ** 2).mean()


params = [layer(1, WIDTH), layer(WIDTH, WIDTH), layer(WIDTH, 1)]
adam = cg.optim.functional.adam(lr=RATE)
state = adam.init(params)
xs = cg.linspace(-1.0, 1.0, POINTS)
for step in range(STEPS):
    value, grads = cg.value_and_grad(loss)(params, xs)
    params, state = adam.update(grads, state, params)
    if step % 100 == 0:
        print(f"step {step:4d}  loss {value.item():.5f}")

exact = cg.sin(math.pi * xs)
found = cg.vmap(network, (None, 0))(params, xs)
print(f"largest error {abs(found - exact).max().item():.4f}")
