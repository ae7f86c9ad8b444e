"""Derivatives and vmap as functions of functions, over trees.

Each runs the function once, on its arguments marked with fresh nodes, then walks the graph that
this recorded. Values stay at hand while they run eagerly, so Python branches work; inside a traced
function the same code builds the graph. Nesting is safe to any depth and in any order, since
derivatives are taken with respect to nodes, of which each transform makes its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, cast

from . import tree
from .autodiff import forward, reverse
from .batching import batch
from .errors import GradientError, ShapeError, UsageError
from .graph import (
    MODE,
    NO_PARAMS,
    Node,
    Shape,
    require_floating,
    set_mode,
    user_origin,
    where_called,
)
from .namespace.coerce import array_node, axis_of, broadcast_node
from .namespace.creation import eye
from .ops.movement import permute, reshape, stop_gradient
from .ops.op import REGISTRY, input_node, is_float_node, like
from .tensor import Tensor, wrap
from .trace import pair, to_nodes

__all__ = [
    "grad",
    "hessian",
    "hvp",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "linearize",
    "value_and_grad",
    "vjp",
    "vmap",
]

IDENTITY = REGISTRY["identity"]


class _Level:
    """One differentiation in progress: a bit of its own among a node's `tracked`."""

    def __init__(self) -> None:
        mode = MODE.get()
        self.depth = mode.depth + 1
        self.bit = 1 << self.depth
        self.was_recording = mode.recording

    def mark(self, node: Node) -> Node:
        """A node of the same value from which derivatives are taken."""
        return Node(
            IDENTITY, (node,), NO_PARAMS, node.shape, node.dtype, node.value,
            node.tracked | self.bit, user_origin(MODE.get().scope),
        )  # fmt: skip

    def run(self, f: Callable[..., Any], args: Sequence[Any]) -> Any:
        """Call f with this level's history recorded."""
        active = MODE.get().active | self.bit
        with set_mode(recording=True, depth=self.depth, active=active):
            return f(*args)

    def release(self, node: Node) -> Node:
        """A node as seen from outside: without this level, and without history if it had none."""
        left = node.tracked & ~self.bit
        if left == node.tracked and (left == 0 or self.was_recording):
            return node
        if not self.was_recording or (left == 0 and node.value is not None):
            return stop_gradient(node)
        return Node(
            IDENTITY, (node,), NO_PARAMS, node.shape, node.dtype, node.value, left, node.origin
        )


def _positions(argnums: Any, count: int, name: str) -> tuple[int, ...]:
    several = isinstance(argnums, (tuple, list))
    found: list[int] = []
    for k in cast("Sequence[Any]", argnums) if several else (argnums,):
        if not isinstance(k, int) or not -count <= k < count:
            raise UsageError(
                f"{name}: argnums {argnums} for a function called with {count} positional "
                f"arguments{where_called()}"
            )
        found.append(k % count)
    if len(set(found)) != len(found):
        raise UsageError(f"{name}: an argument is named twice in argnums {argnums}{where_called()}")
    return tuple(found)


def _marked(level: _Level, trees: Sequence[Any], name: str) -> tuple[list[Any], list[Node]]:
    """Trees with each leaf marked, and the marked nodes."""
    marked: list[Any] = []
    nodes: list[Node] = []
    for part in trees:
        leaves, structure = tree.flatten(part)
        own: list[Node] = []
        for node in to_nodes(leaves, f"the arguments of {name}"):
            require_floating(node, f"an argument of {name}")
            own.append(level.mark(node))
        nodes += own
        marked.append(tree.unflatten(structure, [wrap(node) for node in own]))
    return marked, nodes


def _zero(node: Node) -> Node:
    return like(node, 0.0)


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The function (args) -> (f(args), gradient): the gradient has the tree of the argument.

    f returns a scalar Tensor, or (scalar, aux) with `has_aux`; `argnums` says with respect to which
    positional arguments (a sequence gives a tuple of gradients).

    >>> import cartograd as cg
    >>> value, grad = cg.value_and_grad(lambda p: (p["w"] ** 2).sum())(
    ...     {"w": cg.asarray([1.0, 2.0])}
    ... )
    >>> value.item(), grad["w"].tolist()
    (5.0, [2.0, 4.0])
    """

    @wraps(f)
    def gradient(*args: Any, **options: Any) -> Any:
        positions = _positions(argnums, len(args), "grad")
        level = _Level()
        chosen = [args[k] for k in positions]
        marked, nodes = _marked(level, chosen, "grad")
        full = list(args)
        for k, part in zip(positions, marked, strict=True):
            full[k] = part
        result = level.run(lambda *a: f(*a, **options), full)
        aux: Any = None
        if has_aux:
            result, aux = pair(result, "grad: with has_aux, f returns (value, aux)")
        node = _scalar(result)
        found = reverse([node], [like(node, 1.0)], nodes, tracked=level.bit)
        grads = [wrap(level.release(found[n] if n in found else _zero(n))) for n in nodes]
        parts: list[Any] = []
        for part in chosen:
            leaves, structure = tree.flatten(part)
            parts.append(tree.unflatten(structure, grads[: len(leaves)]))
            grads = grads[len(leaves) :]
        value = wrap(level.release(node))
        if has_aux:
            value = (value, _released(level, aux))
        single = not isinstance(argnums, (tuple, list))
        return value, parts[0] if single else tuple(parts)

    return gradient


def _released(level: _Level, part: Any) -> Any:
    def released(leaf: Any) -> Any:
        return wrap(level.release(leaf.node)) if isinstance(leaf, Tensor) else leaf

    return tree.map(released, part)


def _scalar(result: Any) -> Node:
    node = array_node(result, "grad")
    if node.shape != ():
        raise GradientError(
            f"grad: f must return a scalar, not shape {node.shape}{where_called()}; reduce it with "
            "sum() or mean(), or use vjp or jacobian"
        )
    require_floating(node, "the result of f")
    return node


def grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The function that computes the gradient of a scalar function: see `value_and_grad`.

    With `has_aux` it returns (gradient, aux).

    >>> import cartograd as cg
    >>> cg.grad(lambda x: x * x)(3.0).item()
    6.0
    >>> cg.grad(cg.grad(cg.tanh))(0.5).item()
    -0.7268620133399963
    """
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f)
    def gradient(*args: Any, **options: Any) -> Any:
        value, found = both(*args, **options)
        return (found, value[1]) if has_aux else found

    return gradient


def vjp(f: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], Any]]:
    """f(*args), and the function from a cotangent of the result to those of the arguments.

    >>> import cartograd as cg
    >>> y, pull = cg.vjp(lambda x: x * x, cg.asarray([1.0, 2.0]))
    >>> pull(cg.asarray([1.0, 10.0]))[0].tolist()
    [2.0, 40.0]
    """
    level = _Level()
    marked, nodes = _marked(level, args, "vjp")
    result = level.run(f, marked)
    outs, out_structure = tree.flatten(result)
    outputs = to_nodes(outs, "the results of f")
    structure = tree.structure(args)

    def pull(ct: Any) -> Any:
        given, ct_structure = tree.flatten(ct)
        if ct_structure != out_structure:
            raise UsageError(
                f"vjp: the result is like {out_structure}, the cotangent like {ct_structure}"
                f"{where_called()}"
            )
        cts = [
            _like_node(node, y, "the cotangent") if is_float_node(y) else None
            for node, y in zip(to_nodes(given, "the cotangent"), outputs, strict=True)
        ]
        found = reverse(outputs, cts, nodes, tracked=level.bit)
        return tree.unflatten(
            structure,
            [wrap(level.release(found[n] if n in found else _zero(n))) for n in nodes],
        )

    return tree.unflatten(out_structure, [wrap(level.release(n)) for n in outputs]), pull


def _like_node(node: Node, model: Node, what: str) -> Node:
    """A node checked to have the shape and dtype of another (numbers are cast)."""
    if node.shape == model.shape and node.dtype == model.dtype:
        return node
    if node.shape == () == model.shape:
        return REGISTRY["cast"](node, dtype=model.dtype)
    raise ShapeError(f"{what} must be {model.aval}, not {node.aval}{where_called()}")


def jvp(f: Callable[..., Any], args: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """f(*args), and its derivative along `tangents` (trees like the arguments): forward mode.

    >>> import cartograd as cg
    >>> y, t = cg.jvp(cg.sin, (cg.asarray(0.0),), (cg.asarray(2.0),))
    >>> t.item()
    2.0
    """
    if not all(isinstance(x, (tuple, list)) for x in (args, tangents)):
        raise UsageError(f"jvp: args and tangents are tuples{where_called()}")
    result, push = linearize(f, *args)
    return result, push(*tangents)


def linearize(f: Callable[..., Any], *args: Any) -> tuple[Any, Callable[..., Any]]:
    """f(*args), and the linear function from tangents of the arguments to that of the result.

    >>> import cartograd as cg
    >>> y, push = cg.linearize(lambda x: x * x, cg.asarray(3.0))
    >>> push(1.0).item(), push(10.0).item()
    (6.0, 60.0)
    """
    level = _Level()
    marked, nodes = _marked(level, args, "jvp")
    result = level.run(f, marked)
    outs, out_structure = tree.flatten(result)
    outputs = to_nodes(outs, "the results of f")
    structure = tree.structure(tuple(args))

    def push(*tangents: Any) -> Any:
        given, t_structure = tree.flatten(tuple(tangents))
        if t_structure != structure:
            raise UsageError(
                f"jvp: the arguments are like {structure}, the tangents like {t_structure}"
                f"{where_called()}"
            )
        ts = {
            node: _like_node(t, node, "the tangent")
            for node, t in zip(nodes, to_nodes(given, "the tangents"), strict=True)
        }
        found = forward(outputs, ts, tracked=level.bit)
        parts = [
            wrap(level.release(t if t is not None else _zero_tangent(y)))
            for y, t in zip(outputs, found, strict=True)
        ]
        return tree.unflatten(out_structure, parts)

    return tree.unflatten(out_structure, [wrap(level.release(n)) for n in outputs]), push


def _zero_tangent(y: Node) -> Node:
    return like(y, 0.0 if is_float_node(y) else False if y.dtype.kind == "b" else 0)


@dataclass(slots=True)
class _Batch:
    """A vmap in progress: how many elements, and what stands for one of them."""

    size: int
    fronts: dict[Node, Node]
    randomness: str


def vmap(
    f: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    randomness: str = "error",
) -> Callable[..., Any]:
    """f applied to each element along an axis of its arguments, as one batched computation.

    `in_axes` is an axis, None (the same for every element), or a tuple or tree of these matching
    the arguments; `out_axes` likewise for the results. Inside, f sees one element: a Tensor with a
    shape and no value. A random draw inside raises TraceError, unless `randomness` is "same" (for
    all elements) or "different".

    >>> import cartograd as cg
    >>> cg.vmap(cg.dot)(cg.ones((5, 3)), cg.ones((5, 3))).shape
    (5,)
    """

    if randomness not in ("error", "same", "different"):
        raise UsageError(
            f"vmap: randomness is 'error', 'same' or 'different', not {randomness!r}"
            f"{where_called()}"
        )

    @wraps(f)
    def batched(*args: Any, **options: Any) -> Any:
        leaves, structure = tree.flatten(args)
        axes = _spread_axes(in_axes, args, "in_axes")
        given = to_nodes(leaves, "the arguments of vmap")
        size = axis_size
        fronts: dict[Node, Node] = {}
        inside: list[Node] = []
        for node, axis in zip(given, axes, strict=True):
            if axis is None:
                inside.append(node)
                continue
            if not node.shape:
                raise ShapeError(f"vmap: a 0-d argument has no axis {axis}{where_called()}")
            k = axis_of(axis, node.ndim, "vmap")
            if size is not None and node.shape[k] != size:
                raise ShapeError(
                    f"vmap: arguments have {size} and {node.shape[k]} elements along their mapped "
                    f"axes{where_called()}"
                )
            size = node.shape[k]
            front = _move(node, k, 0)
            one = input_node(front.shape[1:], front.dtype, front.tracked)
            fronts[one] = front
            inside.append(one)
        if size is None:
            raise UsageError(f"vmap: no argument is mapped: give axis_size{where_called()}")
        own = (*MODE.get().batches, _Batch(size, fronts, randomness))
        with set_mode(batches=own):
            result = f(*tree.unflatten(structure, [wrap(n) for n in inside]), **options)
        outs, out_structure = tree.flatten(result)
        found = batch(to_nodes(outs, "the results of vmap"), fronts, size)
        targets = _spread_axes(out_axes, result, "out_axes")
        parts: list[Tensor] = []
        for (node, is_batched), axis in zip(found, targets, strict=True):
            if axis is None:
                if is_batched:
                    raise UsageError(
                        f"vmap: out_axes is None for a result that differs between elements"
                        f"{where_called()}"
                    )
                parts.append(wrap(node))
                continue
            if not is_batched:
                node = broadcast_node(reshape(node, shape=(1, *node.shape)), (size, *node.shape))
            parts.append(wrap(_move(node, 0, axis_of(axis, node.ndim, "vmap"))))
        return tree.unflatten(out_structure, parts)

    return batched


def _move(node: Node, source: int, target: int) -> Node:
    if source == target:
        return node
    order = [k for k in range(node.ndim) if k != source]
    order.insert(target, source)
    return permute(node, axes=tuple(order))


def _spread_axes(axes: Any, args: Any, name: str) -> list[int | None]:
    """One axis (or None) for each leaf, from an axis or a prefix of the tree."""
    if axes is None or isinstance(axes, int):
        return [axes] * len(tree.leaves(args))
    pairs: list[tuple[Any, Any]]
    if isinstance(axes, (tuple, list)) and isinstance(args, (tuple, list)):
        specs, parts = cast("Sequence[Any]", axes), cast("Sequence[Any]", args)
        if len(specs) != len(parts):
            raise UsageError(
                f"vmap: {name} has {len(specs)} entries for {len(parts)} values{where_called()}"
            )
        pairs = list(zip(specs, parts, strict=True))
    elif isinstance(axes, dict) and isinstance(args, dict):
        of = cast("dict[Any, Any]", axes)
        pairs = [(of.get(key, 0), value) for key, value in cast("dict[Any, Any]", args).items()]
    else:
        raise UsageError(
            f"vmap: {name} {axes!r} does not fit {type(args).__name__}{where_called()}"
        )
    return [axis for spec, part in pairs for axis in _spread_axes(spec, part, name)]


# --- matrices of derivatives ---------------------------------------------------------------------


def jacrev(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The Jacobian by reverse mode: for each result and argument, shape result + argument.

    >>> import cartograd as cg
    >>> cg.jacrev(lambda x: x * x)(cg.asarray([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """

    @wraps(f)
    def jacobian(*args: Any, **options: Any) -> Any:
        positions = _positions(argnums, len(args), "jacrev")
        kept: list[Any] = []

        def of_chosen(*chosen: Any) -> Any:
            full = list(args)
            for k, part in zip(positions, chosen, strict=True):
                full[k] = part
            result = f(*full, **options)
            if has_aux:
                result, aux = pair(result, "jacrev: with has_aux, f returns (value, aux)")
                kept.append(aux)
            return result

        y, pull = vjp(of_chosen, *(args[k] for k in positions))
        outs, out_structure = tree.flatten(y)
        rows: list[Any] = []
        for position, out in enumerate(outs):

            def one(ct: Tensor, at: int = position) -> Any:
                cts = [ct if k == at else wrap(_zero_tangent(o.node)) for k, o in enumerate(outs)]
                return pull(tree.unflatten(out_structure, cts))

            many = vmap(one)(basis(out))
            rows.append(tree.map(_first_axis_as(out.shape), many))
        single = not isinstance(argnums, (tuple, list))
        picked = [row[0] if single else row for row in rows]
        found = tree.unflatten(out_structure, picked)
        return (found, kept[0]) if has_aux else found

    return jacobian


def _first_axis_as(shape: Shape) -> Callable[[Tensor], Tensor]:
    def reshaped(g: Tensor) -> Tensor:
        return g.reshape((*shape, *g.shape[1:]))

    return reshaped


def _last_axis_as(shape: Shape) -> Callable[[Tensor], Tensor]:
    def reshaped(g: Tensor) -> Tensor:
        return g.reshape((*g.shape[:-1], *shape))

    return reshaped


def basis(x: Tensor) -> Tensor:
    """The unit Tensors of a shape, stacked along a new first axis."""
    n = x.size
    return eye(n, dtype=x.dtype).reshape((n, *x.shape))


def jacfwd(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The Jacobian by forward mode: for each result and argument, shape result + argument.

    >>> import cartograd as cg
    >>> cg.jacfwd(lambda x: x * x)(cg.asarray([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """

    @wraps(f)
    def jacobian(*args: Any, **options: Any) -> Any:
        positions = _positions(argnums, len(args), "jacfwd")
        kept: list[Any] = []

        def of_leaves(*leaves: Any) -> Any:
            full = list(args)
            for k, part in zip(positions, tree.unflatten(structure, leaves), strict=True):
                full[k] = part
            result = f(*full, **options)
            if has_aux:
                result, aux = pair(result, "jacfwd: with has_aux, f returns (value, aux)")
                kept.append(aux)
            return result

        chosen = tuple(args[k] for k in positions)
        given, structure = tree.flatten(chosen)
        given = [wrap(node) for node in to_nodes(given, "the arguments of jacfwd")]
        y, push = linearize(of_leaves, *given)
        zeros = [wrap(_zero(x.node)) for x in given]
        columns: list[Any] = []
        for position, x in enumerate(given):

            def one(t: Tensor, at: int = position) -> Any:
                return push(*(t if k == at else zero for k, zero in enumerate(zeros)))

            many = vmap(one, out_axes=-1)(basis(x))
            columns.append(tree.map(_last_axis_as(x.shape), many))
        single = not isinstance(argnums, (tuple, list))

        def gather(*parts: Any) -> Any:
            picked = tree.unflatten(structure, parts)
            return picked[0] if single else picked

        outs, out_structure = tree.flatten(y)
        flat = [tree.leaves(column) for column in columns]
        rows = [gather(*(column[k] for column in flat)) for k in range(len(outs))]
        found = tree.unflatten(out_structure, rows)
        return (found, kept[0]) if has_aux else found

    return jacobian


jacobian = jacrev


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The matrix of second derivatives of a scalar function, forward over reverse.

    >>> import cartograd as cg
    >>> cg.hessian(lambda x: (x**3).sum())(cg.asarray([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacfwd(jacrev(f, argnums), argnums)


def hvp(f: Callable[..., Any], args: Sequence[Any], vectors: Sequence[Any]) -> Any:
    """The Hessian of a scalar function times vectors, without the matrix: forward over reverse.

    Returns a tree like `args` (for one argument, like that argument).

    >>> import cartograd as cg
    >>> cg.hvp(
    ...     lambda x: (x**3).sum(), (cg.asarray([1.0, 2.0]),), (cg.asarray([1.0, 0.0]),)
    ... ).tolist()
    [6.0, 0.0]
    """
    argnums: Any = 0 if len(args) == 1 else tuple(range(len(args)))
    return jvp(grad(f, argnums), args, vectors)[1]
