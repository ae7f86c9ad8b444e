"""A neural ODE: learn the vector field of a spiral from its path.

Runge-Kutta steps are the body of `cg.scan`, so the loop is one node of the graph however long it
is, and the gradient flows back through every step.
"""

import sys

import cartograd as cg

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 150
TIMES, DT, WIDTH, RATE, SEED = 60, 0.05, 32, 1e-2, 0

cg.manual_seed(SEED)


def rk4(f, y):
    k1 = f(y)
    k2 = f(y + DT / 2 * k1)
    k3 = f(y + DT / 2 * k2)
    k4 = f(y + DT * k3)
    return y + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def path(f, start):
    """The states after each of TIMES steps: [TIMES, batch, 2]."""

    def step(y, _):
        y = rk4(f, y)
        return y, y

    return cg.scan(step, start, length=TIMES)[1]


spiral = cg.asarray([[-0.1, 2.0], [-2.0, -0.1]])
start = cg.random.uniform((16, 2), low=-2.0, high=2.0)
truth = path(lambda y: y @ spiral.T, start)

model = cg.nn.Sequential(cg.nn.Linear(2, WIDTH), cg.nn.Tanh(), cg.nn.Linear(WIDTH, 2))
optimizer = cg.optim.Adam(model.parameters(), lr=RATE)
for step in range(STEPS):
    loss = ((path(model, start) - truth) ** 2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 50 == 0:
        print(f"step {step:4d}  loss {loss.item():.5f}")
print(f"last loss {loss.item():.5f}")
