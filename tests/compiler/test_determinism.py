"""The same numbers to the last bit: however many threads, in any process, under any load.

The programs are large enough that their kernels are shared among threads, and of every kind that
adds: products, convolutions, reductions to few and to many results, scatters, scans.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn
from cartograd.nn import functional as F

THREADS = (1, 2, 3, 4)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = cg.get_num_threads()
    yield
    cg.set_num_threads(before)


def _array(*shape: int, dtype: Any = np.float32) -> cg.Tensor:
    return cg.asarray(np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype))


def _products(x: cg.Tensor, w: cg.Tensor) -> Any:
    def loss(w: cg.Tensor) -> cg.Tensor:
        return (F.gelu(x @ w) ** 2).mean()

    return cg.value_and_grad(loss)(w)


def _convolutions(x: cg.Tensor, k: cg.Tensor) -> Any:
    def loss(k: cg.Tensor) -> cg.Tensor:
        h = F.max_pool2d(F.relu(F.conv2d(x, k, padding=1)), 2)
        return (h * h).mean() + F.conv2d(x, k, stride=2).sum() / 1000

    return cg.value_and_grad(loss)(k)


def _reductions(x: cg.Tensor) -> Any:
    return (
        x.sum(), x.sum(axis=0), x.mean(axis=1), x.max(), x.var(axis=0), cg.logsumexp(x, axis=1),
        cg.softmax(x, axis=0).sum(axis=1), (x * x).sum(axis=(0, 1)), cg.prod(1 + x * 1e-4),
        F.layer_norm(x, (x.shape[1],)).sum(axis=0), cg.argmax(x, axis=0),
    )  # fmt: skip


def _scatters(table: cg.Tensor, at: cg.Tensor) -> Any:
    def loss(table: cg.Tensor) -> cg.Tensor:
        return (F.embedding(at, table) ** 2).sum() + cg.take(table, at[:100], axis=0).sum()

    return cg.grad(loss)(table), table.at[at[:500]].add(1.5)


def _orders(x: cg.Tensor) -> Any:
    return cg.sort(x, axis=0), cg.argsort(x, axis=1), cg.cumulative_sum(x, axis=1), cg.topk(x, 5)


def _loops(x: cg.Tensor, w: cg.Tensor) -> Any:
    def run(w: cg.Tensor) -> cg.Tensor:
        def body(c: cg.Tensor, row: cg.Tensor) -> Any:
            c = cg.tanh(c @ w + row)
            return c, c.sum()

        last, sums = cg.scan(body, cg.zeros((64, w.shape[0])), x)
        return last.sum() + (sums * sums).sum()

    return cg.value_and_grad(run)(w)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[cg.Tensor, ...]]]] = {
    "products": (_products, lambda: (_array(257, 300), _array(300, 131))),
    "products64": (_products, lambda: (_array(130, 70, dtype="f8"), _array(70, 257, dtype="f8"))),
    "convolutions": (_convolutions, lambda: (_array(8, 5, 28, 28), _array(13, 5, 3, 3))),
    "reductions": (_reductions, lambda: (_array(517, 263),)),
    "scatters": (
        _scatters,
        lambda: (_array(50, 96), cg.asarray(np.random.default_rng(0).integers(0, 50, 5000))),
    ),
    "orders": (_orders, lambda: (_array(1021, 129),)),
    "loops": (_loops, lambda: (_array(9, 64, 80), _array(80, 80))),
}  # fmt: skip


def digest(results: Any) -> str:
    """What tells results apart by any bit of any leaf."""
    found = hashlib.sha256()
    for leaf in cg.tree.leaves(results):
        a = leaf.numpy()
        found.update(f"{a.dtype}{a.shape}".encode())
        found.update(a.tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    f, make = FUNCTIONS[name]
    compiled, args = cg.compile(f), make()
    seen: dict[str, int] = {}
    for threads in THREADS * 3:
        cg.set_num_threads(threads)
        seen.setdefault(digest(compiled(*args)), threads)
    assert len(seen) == 1
    assert compiled.lowerings == 1


def test_parallel_and_not_gives_the_same_bits() -> None:
    """The partition of the work is part of the program, not of how it is run."""
    options = cg.compiler.options.Options(parallel=False)
    cg.set_num_threads(4)
    for f, make in FUNCTIONS.values():
        args = make()
        assert digest(cg.compile(f)(*args)) == digest(cg.compile(f, options=options)(*args))


def training() -> Any:
    """Losses and what is left of a model with dropout and batch norm, after four steps."""
    cg.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(8 * 14 * 14, 65), nn.Tanh(), nn.Linear(65, 10),
    )  # fmt: skip
    opt = cg.optim.Adam(model.parameters(), lr=1e-3)

    @cg.compile
    def step(x: cg.Tensor, y: cg.Tensor) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x + 0.1 * cg.random.normal(x.shape)), y)
        loss.backward()
        opt.step()
        return loss

    labels = cg.asarray(np.arange(33) % 10)
    losses = [step(_array(33, 1, 28, 28), labels) + 0 for _ in range(4)]
    return losses, list(model.state_dict().values())


def report() -> str:
    """What a process says of itself: a line of JSON."""
    found = {name: digest(cg.compile(f)(*make())) for name, (f, make) in FUNCTIONS.items()}
    return json.dumps({**found, "training": digest(training())})


def _child(folder: Any, **environment: str) -> dict[str, str]:
    given = {**os.environ, "CARTOGRAD_CACHE": str(folder), **environment}
    code = "from tests.compiler.test_determinism import report; print(report())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_process_computes_the_same_bits(tmp_path: Any) -> None:
    """Other hashes, numbers of threads, machine code from LLVM and from the disk."""
    wanted = json.loads(report())
    cold = _child(tmp_path, PYTHONHASHSEED="1", CARTOGRAD_THREADS="1")
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) >= len(FUNCTIONS) + 1
    warm = _child(tmp_path, PYTHONHASHSEED="2", CARTOGRAD_THREADS="2")
    assert sorted(path.name for path in tmp_path.iterdir()) == kept  # the same programs, found
    none = _child(tmp_path, PYTHONHASHSEED="3", CARTOGRAD_THREADS="4", CARTOGRAD_CACHE_SIZE="0")
    assert cold == wanted and warm == wanted and none == wanted


def test_load_changes_no_bit() -> None:
    """More busy processes than processors, so that threads are put aside in the middle."""
    cg.set_num_threads(4)
    compiled = {name: (cg.compile(f), make()) for name, (f, make) in FUNCTIONS.items()}
    quiet = {name: digest(f(*args)) for name, (f, args) in compiled.items()}
    spin = "while True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(4)]
    try:
        for _ in range(5):
            for name, (f, args) in compiled.items():
                assert digest(f(*args)) == quiet[name], name
    finally:
        for process in busy:
            process.kill()
            process.wait()


# --- random numbers: those of eager


DRAWS: dict[str, Callable[[], cg.Tensor]] = {
    "bits": lambda: cg.random.bits((257,)),
    "uniform": lambda: cg.random.uniform((257,)),
    "uniform64": lambda: cg.random.uniform((3, 67), low=-2.0, high=5.0, dtype=cg.float64),
    "half": lambda: cg.random.uniform((257,), dtype=cg.float16),
    "randint": lambda: cg.random.randint(-3, 10, (257,)),
    "bernoulli": lambda: cg.random.bernoulli(cg.full((257,), 0.3)),
    "permutation": lambda: cg.random.permutation(101),
    "categorical": lambda: cg.random.categorical(cg.zeros((33, 5))),
    "dropout": lambda: F.dropout(cg.ones((33, 7)), 0.3),
    "two": lambda: cg.stack([cg.random.uniform((5,)), F.dropout(cg.ones(5), 0.5)]),
}
ROUNDED: dict[str, Callable[[], cg.Tensor]] = {  # through functions of 4 units in the last place
    "normal": lambda: cg.random.normal((257,)),
    "normal64": lambda: cg.random.normal((257,), mean=2.0, std=0.5, dtype=cg.float64),
    "exponential": lambda: cg.random.exponential((257,)),
    "truncated_normal": lambda: cg.random.truncated_normal((257,)),
    "gumbel": lambda: cg.random.gumbel((257,)),
}


def _drawn(f: Callable[[], cg.Tensor], g: Callable[[], cg.Tensor]) -> list[tuple[Any, Any]]:
    """Three draws of each, from the same seed, and the states of the generator after them."""
    found: list[list[Any]] = []
    for one in (f, g):
        cg.manual_seed(11)
        values: list[Any] = [one().numpy().copy() for _ in range(3)]
        found.append([*values, np.asarray(cg.random.default_generator.get_state())])
    return list(zip(*found, strict=True))


@pytest.mark.parametrize("name", DRAWS)
def test_random_numbers_are_those_of_eager(name: str) -> None:
    f = DRAWS[name]
    for eager, compiled in _drawn(f, cg.compile(f)):
        assert eager.dtype == compiled.dtype and eager.tobytes() == compiled.tobytes()


@pytest.mark.parametrize("name", ROUNDED)
def test_random_numbers_through_functions_are_those_of_eager(name: str) -> None:
    f = ROUNDED[name]
    for eager, compiled in _drawn(f, cg.compile(f)):
        assert eager.dtype == compiled.dtype
        if eager.dtype.kind == "f":
            rtol = 16 * float(np.finfo(eager.dtype).eps)
            np.testing.assert_allclose(compiled, eager, rtol=rtol, atol=rtol)
        else:
            np.testing.assert_array_equal(compiled, eager)
