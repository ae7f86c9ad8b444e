"""Graphs: traced, printed, walked, searched, compared, verified, saved, loaded, and immutable."""

import contextlib
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cartograd as cg
from cartograd.errors import FileFormatError, ShapeError, TraceError, UsageError
from cartograd.graph import scope, toposort

W = cg.Parameter(cg.asarray([[1.0, 2.0], [3.0, 4.0]]))


def network(x, b):
    with scope("layer"):
        h = cg.tanh(x @ W + b)  # the line that the nodes remember
    return (h * h).sum()


def traced():
    return cg.trace(network)(cg.ones((3, 2)), cg.zeros(2))


def test_nodes_have_shapes_origins_and_scopes():
    graph = traced()
    assert [n.op.name for n in graph.inputs] == ["input", "input"] and graph.names == ("x", "b")
    (tanh,) = graph.find("tanh")
    assert tanh.shape == (3, 2) and tanh.dtype == cg.float32 and tanh.value is None
    assert Path(tanh.origin.file).name == "test_graph.py" and tanh.origin.scope == "layer"
    source = Path(__file__).read_text().splitlines()
    assert "the line that the nodes remember" in source[tanh.origin.line - 1]
    assert tanh.origin.function.endswith("network")
    assert [n.op.name for n in graph.find(scope="layer")][-1] == "tanh"
    assert graph.find(line=tanh.origin.line) == graph.find(scope="layer")


def test_walking():
    graph = traced()
    assert graph.captured == (W.node,)
    places = {node: k for k, node in enumerate(graph.nodes)}
    assert all(places[e.producer] < places[e.consumer] for e in graph.edges)
    (tanh,) = graph.find("tanh")
    uses = graph.consumers(tanh)
    assert [(e.consumer.op.name, e.argument) for e in uses] == [("multiply", 0), ("multiply", 1)]


def test_printing_shows_every_node_its_type_and_its_line():
    text = str(traced())
    assert text.startswith("graph(x: float32[3, 2], b: float32[2]):")
    assert "tanh(" in text and "test_graph.py:" in text and "(layer)" in text
    assert text.splitlines()[-1].strip().startswith("return %")
    loop = cg.trace(lambda xs: cg.scan(lambda c, x: (c + x, None), cg.asarray(0.0), xs)[0])(
        cg.ones(3)
    )
    assert "body: graph(" in str(loop)


def test_calling_with_arrays_and_tensors():
    graph = traced()
    x, b = np.ones((3, 2), np.float32), np.zeros(2, np.float32)
    truth = (np.tanh(x @ W.numpy() + b) ** 2).sum()
    assert graph(x, b) == pytest.approx(truth, rel=1e-6) and isinstance(graph(x, b), np.ndarray)
    y = graph(cg.asarray(x), cg.asarray(b, requires_grad=True))
    assert isinstance(y, cg.Tensor) and y.requires_grad
    with pytest.raises(ShapeError, match="input b"):
        graph(x, np.zeros(3, np.float32))
    with pytest.raises(UsageError, match="arguments like"):
        graph(x)


def test_equal_graphs_have_one_fingerprint_whatever_their_lines():
    other = cg.trace(lambda x, b: (cg.tanh(x @ W + b) ** 1 * cg.tanh(x @ W + b)).sum())
    assert traced().equals(traced())
    assert not traced().equals(other(cg.ones((3, 2)), cg.zeros(2)))
    assert not traced().equals(cg.trace(network)(cg.ones((4, 2)), cg.zeros(2)))
    plus, minus = (cg.trace(lambda x, z=z: x * z)(1.0) for z in (0.0, -0.0))
    assert not plus.equals(minus)


def test_nodes_are_immutable():
    node = traced().outputs[0]
    for name in ("shape", "value", "inputs", "new"):
        with pytest.raises(UsageError, match="immutable"):
            setattr(node, name, None)
    with pytest.raises(UsageError, match="immutable"):
        del node.shape


def test_verify_accepts_what_was_traced():
    traced().verify()
    traced().backward().verify()
    traced().jvp().verify()


def test_tracing_uses_no_values_and_undoes_assignments():
    p = cg.Parameter(2.0)

    def step(x):
        loss = (p * x) ** 2
        loss.backward()
        with cg.no_grad():
            p.assign(p - 0.1 * p.grad)
        return loss

    graph = cg.trace(step)(cg.asarray(3.0))
    assert p.item() == 2.0 and p.grad is None and p.is_leaf
    assert graph.captured == (p.node,)
    for bad in (float, bool, int, lambda x: x.numpy(), lambda x: x.tolist()):
        with pytest.raises(TraceError, match=r"test_graph\.py"):
            cg.trace(bad)(cg.asarray(3.0))
    with pytest.raises(TraceError):
        cg.trace(lambda x: x * p.item())(cg.asarray(3.0))


def test_jvp_graph():
    graph = cg.trace(lambda x, y: x * y)(cg.asarray(2.0), cg.asarray(3.0))
    y, t = graph.jvp()(*(np.float32(v) for v in (2.0, 3.0, 1.0, 10.0)))
    assert (float(y), float(t)) == (6.0, 23.0)


# --- saved and loaded ----------------------------------------------------------------------------


GRAPHS = {
    "network": traced,
    "backward": lambda: traced().backward(),
    "scan": lambda: cg.trace(
        lambda xs: cg.scan(lambda c, x: (cg.sin(c) * x, c), cg.asarray(1.0), xs)[1]
    )(cg.ones(3)),
    "cond": lambda: cg.trace(lambda x: cg.cond(x > 0, cg.sin, cg.cos, x))(cg.asarray(1.0)),
    "tree": lambda: cg.trace(lambda d: [d["a"], (d["b"] * 2, None)])(
        {"a": cg.ones(2), "b": cg.asarray(1.0)}
    ),
    "dtypes": lambda: cg.trace(
        lambda x: x.astype(cg.bfloat16) + cg.asarray([1, np.nan]).astype(cg.bfloat16)
    )(cg.ones(2)),
    "indexing": lambda: cg.trace(lambda x: x[::2, cg.asarray([0, 1])].at[0].add(1.0))(
        cg.ones((4, 2))
    ),
}


def tags(graph):
    """Line, scope and, where the forward node is in the graph too, what each node derives from."""
    places = {node: k for k, node in enumerate(graph.nodes)}
    return [
        (n.origin.line, n.origin.scope, n.origin.backward, places.get(n.derives_from))
        for n in graph.nodes
        if n.inputs
    ]


@pytest.mark.parametrize("name", GRAPHS)
def test_json_round_trip(name, tmp_path):
    graph = GRAPHS[name]()
    path = tmp_path / "graph.json"
    graph.save(path)
    loaded = cg.Graph.load(path)
    loaded.verify()
    assert loaded.equals(graph)
    assert cg.Graph.from_json(loaded.to_json()).equals(graph)
    assert str(Path(__file__).parent) not in path.read_text()
    rng = np.random.default_rng(0)
    args = [rng.standard_normal(n.shape).astype(n.dtype) for n in graph.inputs]
    for a, b in zip(cg.tree.leaves(graph(*args)), cg.tree.leaves(loaded(*args)), strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))
    assert tags(graph) == tags(loaded)


def broken(change):
    data = json.loads(traced().to_json())
    change(data)
    return json.dumps(data)


def op_node(data, name):
    return next(node for node in data["nodes"] if node["op"] == name)


DAMAGE = {
    "not json": lambda d: None,
    "format": lambda d: d.update(format="other"),
    "version": lambda d: d.update(version=99),
    "no nodes": lambda d: d.pop("nodes"),
    "unknown op": lambda d: op_node(d, "tanh").update(op="os.system"),
    "forward reference": lambda d: op_node(d, "tanh").update(inputs=[99]),
    "negative reference": lambda d: op_node(d, "tanh").update(inputs=[-1]),
    "bool reference": lambda d: op_node(d, "tanh").update(inputs=["0"]),
    "wrong shape": lambda d: op_node(d, "tanh").update(avals=[[[9, 9], "float32"]]),
    "wrong dtype": lambda d: op_node(d, "tanh").update(avals=[[[3, 2], "float64"]]),
    "huge shape": lambda d: d["nodes"][0].update(avals=[[[2**60], "float32"]]),
    "negative shape": lambda d: d["nodes"][0].update(avals=[[[-1], "float32"]]),
    "complex": lambda d: d["nodes"][0].update(avals=[[[1], "complex64"]]),
    "bad data": lambda d: op_node(d, "parameter")["values"][0].update(data="!!!"),
    "short data": lambda d: op_node(d, "parameter")["values"][0].update(data="AAAA"),
    "bad params": lambda d: op_node(d, "sum").update(params={"axes": {"code": "x"}}),
    "missing params": lambda d: op_node(d, "sum").update(params={}),
    "extra params": lambda d: op_node(d, "tanh").update(params={"x": 1}),
    "outputs": lambda d: d.update(outputs=[10**9]),
    "names": lambda d: d.update(names=["x"]),
    "inputs": lambda d: d.update(inputs=[len(d["nodes"]) - 1, 0]),
    "origin": lambda d: op_node(d, "tanh").update(origin=[1, 2, 3]),
    "structure": lambda d: d.update(in_structure={"kind": "dict", "children": ["*"], "keys": []}),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_refused(name):
    text = "{" if name == "not json" else broken(DAMAGE[name])
    with pytest.raises(FileFormatError, match="not a graph"):
        cg.Graph.from_json(text)


def test_files_that_are_not_text_or_nested_too_deep(tmp_path):
    path = tmp_path / "graph.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match=r"graph\.json"):
        cg.Graph.load(path)
    with pytest.raises(FileFormatError):
        cg.Graph.from_json("[" * 100_000)


@given(st.data())
def test_truncated_and_flipped_text_never_crashes(data):
    text = traced().to_json()
    cut = data.draw(st.integers(0, len(text) - 1))
    flip = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="ascii"))
    for damaged in (text[:cut], text[:flip] + letter + text[flip + 1 :]):
        with contextlib.suppress(FileFormatError):
            cg.Graph.from_json(damaged)


# --- depth ----------------------------------------------------------------------------------------


def in_small_thread(f):
    """Run f on a 256 KiB stack, and return what it returned or raise what it raised."""
    found = []
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=lambda: found.append(f()))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert found, "the thread died"
    return found[0]


def test_a_deep_chain_on_a_small_stack():
    def chain():
        x = cg.asarray(1.0, requires_grad=True)
        y = x
        for _ in range(20_000):
            y = y + x
        y.backward()
        return x.grad.item()

    assert in_small_thread(chain) == 20_001.0


def test_a_deep_traced_chain_prints_saves_and_differentiates_on_a_small_stack():
    def deep(x):
        for _ in range(3000):
            x = cg.sin(x)
        return x

    def whole():
        graph = cg.trace(deep)(cg.asarray(1.0))
        back = graph.backward()
        again = cg.Graph.from_json(back.to_json())
        return len(str(graph).splitlines()), again.equals(back), len(toposort(back.outputs))

    lines, same, count = in_small_thread(whole)
    assert lines == 3002 and same and count > 6000


def test_a_ladder_of_doubling():
    x = cg.asarray(1.0, requires_grad=True, dtype=cg.float64)
    y = x
    for _ in range(1000):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**1000


def test_a_wide_fan_in():
    x = cg.asarray(1.0, requires_grad=True)
    cg.concat([x.reshape(1) for _ in range(20000)]).sum().backward()
    assert x.grad.item() == 20000.0


def test_the_pieces_of_a_concat_that_were_not_chosen_stay_zero():
    x = cg.asarray(0.0, requires_grad=True)
    roots = cg.concat([cg.sqrt(x.reshape(1)) for _ in range(3)])
    cg.where(cg.asarray([False, False, False]), roots, 1.0).sum().backward()
    assert x.grad.item() == 0.0
    y = cg.asarray(0.0, requires_grad=True)
    mixed = cg.concat([cg.sqrt(y.reshape(1)), y.reshape(1) * 5])
    cg.where(cg.asarray([False, True]), mixed, 1.0).sum().backward()
    assert y.grad.item() == 5.0
