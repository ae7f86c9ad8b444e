"""A kernel in words and numbers, for looking: its loops, its nodes, its FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Container
from math import prod

from ..graph import Node
from .kernel import Nest, Opaque
from .tape import Apply, Cast, Load, Tape

__all__ = ["nest_flops", "nest_nodes", "nest_shape", "opaque_bytes", "opaque_flops", "opaque_nodes"]


def nest_nodes(nest: Nest) -> tuple[Node, ...]:
    """The nodes that a nest computes."""
    found: dict[Node, None] = {}
    for stage in nest.stages:
        found.update(dict.fromkeys(stage.tape.nodes))
        found.update(dict.fromkeys(r.node for r in stage.roots))
    return tuple(found)


def nest_shape(nest: Nest) -> str:
    """The loops of a nest in words: those that are shared, then each stage's own.

    "+" is before the loops of a reduction: `768 x (+128, +128, 128)` is a layer norm of 768 rows.
    """
    stages: list[str] = []
    for stage in nest.stages:
        reduced = stage.kept if any(r.reducer is not None for r in stage.roots) else None
        own = [
            f"{'+' if reduced is not None and k >= reduced else ''}{n}"
            for k, n in enumerate(stage.extents)
        ]
        stages.append(" x ".join(own[nest.outer :]))
    outer = " x ".join(str(n) for n in nest.stages[0].extents[: nest.outer])
    if not any(stages):
        return outer or "1"
    if len(stages) == 1:
        return " x ".join(part for part in (outer, *stages) if part)
    inner = ", ".join(stage or "1" for stage in stages)
    return f"{outer} x ({inner})" if outer else f"({inner})"


def nest_flops(nest: Nest) -> int:
    """The FLOPs of a nest: of each element's ops, and of its reductions."""
    total = 0
    for stage in nest.stages:
        count = prod(stage.extents)
        reducing = sum(r.reducer is not None for r in stage.roots)
        total += _tape_flops(stage.tape, count) + reducing * count
    return total


def _tape_flops(tape: Tape, count: int) -> int:
    """The FLOPs of a tape for so many elements; what is the same for all is done once."""
    varies: list[bool] = []
    total = 0
    for step in tape.steps:
        if isinstance(step, Load):
            varies.append(bool(step.offset.terms))
        elif isinstance(step, Apply):
            varies.append(any(varies[k] for k in step.args))
            total += step.op.flops * (count if varies[-1] else 1)
        else:
            varies.append(isinstance(step, Cast) and varies[step.arg])
    return total


def opaque_nodes(kernel: Opaque) -> tuple[Node, ...]:
    """The nodes that a kernel of its own kind computes, its epilogue's among them."""
    return (kernel.node, *(kernel.epilogue.tape.nodes if kernel.epilogue else ()))


def opaque_flops(kernel: Opaque) -> int:
    """The FLOPs of a kernel with its epilogue."""
    behind = kernel.epilogue
    return kernel.flops + (_tape_flops(behind.tape, kernel.outputs[0].size) if behind else 0)


def opaque_bytes(kernel: Opaque, local: Container[Node]) -> int:
    """The bytes that a kernel reads and writes, but for values in `local`, which it keeps."""
    if kernel.epilogue is None:
        return kernel.bytes
    result = kernel.outputs[0]
    more = {*kernel.beside(), *(r.buffer for r in kernel.epilogue.roots)}
    total = kernel.bytes - (_bytes(result) if result in local else 0)
    return total + sum(_bytes(node) for node in more if node not in local)


def _bytes(node: Node) -> int:
    return node.size * node.dtype.itemsize
