"""A training step in PyTorch and in Cartograd: the same text, since the names are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .spec import Array, Workload


def torch_step(
    workload: Workload, weights: dict[str, Array], batch: tuple[Array, ...], options: Any
) -> Callable[[], Any]:
    """One step in PyTorch, eager or (options.library == "torch.compile") compiled."""
    import torch

    torch.set_num_threads(options.threads)
    assert workload.modules is not None
    model, loss = workload.modules(torch)
    if weights:
        state = {name: torch.from_numpy(value.copy()) for name, value in weights.items()}
        _load(model, state)
    opt = _torch_optimizer(torch, workload, list(model.parameters()))

    def value(*batch: Any) -> Any:
        return loss(model, *batch)

    if options.library == "torch.compile":
        value = torch.compile(value)
    inputs = [torch.from_numpy(a.copy()) for a in batch]

    def step() -> Any:
        opt.zero_grad()
        y = value(*inputs)
        y.backward()
        opt.step()
        return y

    return step


def _torch_optimizer(torch: Any, workload: Workload, parameters: list[Any]) -> Any:
    # fused=True is the fastest of the three implementations on a CPU, for every workload here.
    if workload.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=workload.rate, momentum=0.9, fused=True)
    return torch.optim.Adam(parameters, lr=workload.rate, fused=True)


def cartograd_step(
    workload: Workload, weights: dict[str, Array], batch: tuple[Array, ...], options: Any
) -> Callable[[], Any]:
    """One step in Cartograd, compiled or (options.eager) eager."""
    import cartograd as cg

    assert workload.modules is not None
    model, loss = workload.modules(cg)
    _load(model, {name: cg.asarray(value) for name, value in weights.items()})
    parameters = list(model.parameters())
    if workload.optimizer == "sgd":
        opt: Any = cg.optim.SGD(parameters, lr=workload.rate, momentum=0.9)
    else:
        opt = cg.optim.Adam(parameters, lr=workload.rate)

    def step(*batch: Any) -> Any:
        y = loss(model, *batch)
        y.backward()
        opt.step()
        opt.zero_grad()
        return y

    run = compiled(cg, step, options)
    inputs = [cg.asarray(a) for a in batch]
    return lambda: run(*inputs)


def compiled(cg: Any, f: Callable[..., Any], options: Any, donate: Any = ()) -> Callable[..., Any]:
    """cg.compile(f), or f itself when eager."""
    return f if options.eager else cg.compile(f, donate=donate)


def _load(model: Any, state: dict[str, Any]) -> None:
    result = model.load_state_dict(state, strict=False)
    missing = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"weights do not fit: missing {missing}, unexpected {result.unexpected_keys}"
        )
