"""Module: what is registered under which name, what is called when, what is loaded and refused."""

import copy
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = cg.Parameter(cg.asarray([2.0, 3.0]))
        self.register_buffer("offset", cg.asarray([1.0, -1.0]))
        self.register_buffer("scratch", cg.zeros(2), persistent=False)
        self.note = "plain"

    def forward(self, x: cg.Tensor) -> cg.Tensor:
        return self.linear(x) * self.scale + self.offset


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Block()
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.heads = nn.ModuleDict({"a": nn.Linear(2, 1)})

    def forward(self, x: cg.Tensor) -> cg.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.heads["a"](x)


def test_names_of_everything_registered() -> None:
    model = Model()
    assert [n for n, _ in model.named_parameters()] == [
        "first.scale",
        "first.linear.weight",
        "first.linear.bias",
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.weight",
        "layers.1.bias",
        "heads.a.weight",
        "heads.a.bias",
    ]
    assert [n for n, _ in model.named_buffers()] == ["first.offset", "first.scratch"]
    assert [n for n, _ in model.named_children()] == ["first", "layers", "heads"]
    assert "first.scratch" not in model.state_dict()
    assert "first.offset" in model.state_dict()
    assert [n for n, _ in model.named_modules()][:3] == ["", "first", "first.linear"]
    assert len(list(model.parameters())) == 9 and len(list(model.first.parameters(False))) == 1
    assert next(n for n, _ in model.first.named_parameters(prefix="p")) == "p.scale"


def test_a_shared_part_is_listed_once_and_saved_twice() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, shared)
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert len(list(model.named_parameters(remove_duplicate=False))) == 4
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_getters() -> None:
    model = Model()
    assert model.get_submodule("layers.1") is model.layers[1]
    assert model.get_submodule("") is model
    assert model.get_parameter("first.scale") is model.first.scale
    assert model.get_buffer("first.offset") is model.first.offset
    with pytest.raises(AttributeError, match=r"no sub-module 'x'.*first, layers, heads"):
        model.get_submodule("x.y")
    with pytest.raises(AttributeError, match="no Parameter"):
        model.get_parameter("first.offset")
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = model.absent


def test_attributes_move_between_kinds() -> None:
    block = Block()
    block.note = cg.Parameter(cg.zeros(1))
    assert "note" in dict(block.named_parameters()) and "note" not in block.__dict__
    block.note = nn.ReLU()
    assert "note" not in dict(block.named_parameters()) and "note" in dict(block.named_children())
    del block.note
    assert not hasattr(block, "note")
    block.linear = None
    assert block.linear is None and "linear" not in dict(block.named_children())
    block.scale = None
    assert "scale" not in dict(block.named_parameters())
    assert "offset" in dir(block)


def test_a_tensor_set_on_a_buffer_is_assigned_to_it() -> None:
    block = Block()
    before = block.offset
    block.offset = block.offset * 2.0
    assert block.offset is before and before.tolist() == [2.0, -2.0]
    block.offset = cg.zeros(3)
    assert isinstance(block.offset, cg.Buffer) and block.offset.shape == (3,)
    block.offset = None
    assert block.offset is None


def test_what_cannot_be_registered() -> None:
    block = Block()
    with pytest.raises(cg.errors.UsageError, match=r"scale is a Parameter.*assign"):
        block.scale = cg.zeros(2)
    with pytest.raises(cg.errors.UsageError, match="linear is a Module"):
        block.linear = cg.zeros(2)
    with pytest.raises(cg.errors.UsageError, match="offset is a Buffer"):
        block.offset = 3.0
    with pytest.raises(cg.errors.UsageError, match="without dots"):
        block.add_module("a.b", nn.ReLU())
    with pytest.raises(cg.errors.UsageError, match="already has an attribute 'forward'"):
        block.register_buffer("forward", cg.zeros(1))
    with pytest.raises(cg.errors.UsageError, match=r"must be a cg\.Parameter"):
        block.register_parameter("w", cg.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(cg.errors.UsageError, match="must be a Module"):
        block.add_module("m", 3)  # type: ignore[arg-type]
    with pytest.raises(cg.errors.UsageError, match="must be a Tensor"):
        block.register_buffer("b", [1.0])  # type: ignore[arg-type]

    class Early(nn.Module):
        def __init__(self) -> None:
            self.w = cg.Parameter(cg.zeros(1))

    with pytest.raises(cg.errors.UsageError, match=r"super\(\).__init__"):
        Early()
    with pytest.raises(cg.errors.UnsupportedError, match="has no forward"):
        nn.Module()(1)
    with pytest.raises(cg.errors.UsageError, match="True or False"):
        block.train("yes")  # type: ignore[arg-type]


def test_modes_and_gradients() -> None:
    model = Model()
    assert model.eval() is model and not any(m.training for m in model.modules())
    model.train()
    assert all(m.training for m in model.modules())
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    model.requires_grad_()
    model(cg.ones((4, 3))).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad(set_to_none=False)
    assert all(not p.grad.numpy().any() for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_apply_visits_those_below_first() -> None:
    seen: list[str] = []
    Model().apply(lambda m: seen.append(type(m).__name__))
    assert seen == [
        "Linear", "Block", "Linear", "Linear", "ModuleList", "Linear", "ModuleDict", "Model",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "float32"])
def test_conversion_keeps_the_objects(dtype: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = list(model.parameters())
    names = {"float64": "double", "bfloat16": "bfloat16", "float16": "half", "float32": "float"}
    assert getattr(model, names[dtype])() is model
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert {p.dtype.name for p in model.parameters()} == {dtype}
    assert model[1].running_mean.dtype.name == dtype
    assert model[1].num_batches_tracked.dtype.name == "int64"
    assert all(p.requires_grad for p in model.parameters())
    assert not model[1].running_mean.requires_grad
    assert model(cg.ones((3, 2)).astype(dtype)).dtype.name == dtype
    assert model.to(cg.float64)[0].weight.dtype.name == "float64"
    assert model.to("cpu", dtype=cg.float32)[0].weight.dtype.name == "float32"
    assert model.to(cg.zeros(1, dtype=cg.float64))[0].weight.dtype.name == "float64"
    with pytest.raises(cg.errors.UsageError, match="floating dtype only"):
        model.to(cg.int32)
    with pytest.raises(cg.errors.UsageError, match="no device"):
        model.to(device="cuda")


def test_state_dict_holds_the_values_of_its_moment() -> None:
    model = nn.Linear(2, 1)
    state = model.state_dict()
    before = state["weight"].numpy().copy()
    model.weight.assign(model.weight.detach() + 1.0)
    np.testing.assert_array_equal(state["weight"].numpy(), before)
    assert not state["weight"].requires_grad
    assert model.state_dict(keep_vars=True)["weight"] is model.weight
    assert list(model.state_dict(prefix="x")) == ["x.weight", "x.bias"]
    result = model.load_state_dict(state)
    assert result == ([], [])
    np.testing.assert_array_equal(model.weight.numpy(), before)


def test_loading_converts_dtypes_and_takes_arrays() -> None:
    model = nn.Linear(2, 1)
    weight = model.weight
    model.load_state_dict({"weight": np.ones((1, 2)), "bias": cg.zeros(1, dtype=cg.float64)})
    assert model.weight is weight and weight.dtype == cg.float32 and weight.tolist() == [[1.0, 1.0]]
    model.load_state_dict({"weight": np.ones((1, 2)), "bias": np.zeros(1)}, assign=True)
    assert model.weight is weight and weight.dtype == cg.float64 and weight.requires_grad


def test_loading_names_every_problem_and_then_changes_nothing() -> None:
    model = Model()
    state = {k: np.asarray(v.numpy()) + 1.0 for k, v in model.state_dict().items()}
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    del state["first.scale"]
    state["extra"] = np.zeros(1)
    state["layers.0.weight"] = np.zeros((5, 5))
    with pytest.raises(cg.errors.ShapeError) as caught:
        model.load_state_dict(state)
    for part in ("missing: first.scale", "unexpected: extra", "layers.0.weight: (5, 5)", "(2, 2)"):
        assert part in str(caught.value)
    for k, v in model.state_dict().items():
        np.testing.assert_array_equal(v.numpy(), before[k])
    del state["layers.0.weight"]
    with pytest.raises(cg.errors.UsageError, match="changed nothing"):
        model.load_state_dict(state)
    found = model.load_state_dict(state, strict=False)
    assert found.missing_keys == ["first.scale", "layers.0.weight"]
    assert found.unexpected_keys == ["extra"]
    np.testing.assert_array_equal(model.heads["a"].bias.numpy(), before["heads.a.bias"] + 1.0)
    with pytest.raises(cg.errors.UsageError, match="weight is a str"):
        nn.Linear(1, 1).load_state_dict({"weight": "x", "bias": np.zeros(1)})


def test_old_batch_norm_states_lack_the_count() -> None:
    layer = nn.BatchNorm1d(2)
    state = layer.state_dict()
    del state["num_batches_tracked"]
    assert layer.load_state_dict(state) == ([], [])


def test_deepcopy_is_independent_and_keeps_ties() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    other = copy.deepcopy(model)
    assert other[0].weight is other[1].weight and other[0].weight is not model[0].weight
    other[0].weight.assign(cg.zeros((2, 2)))
    assert model[0].weight.numpy().any()


def test_nodes_know_their_layer() -> None:
    graph = cg.trace(Model())(cg.ones((1, 3)))
    scopes = {node.origin.scope for node in graph.nodes if node.op.name == "matmul"}
    if not scopes:
        scopes = {node.origin.scope for node in graph.nodes}
    assert {
        "Model.first.linear",
        "Model.layers.0",
        "Model.layers.1",
        "Model.heads.a",
    } <= scopes
    assert graph.find(scope="Model.layers.0")


def test_scope_of_lists_filled_later_and_nested() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.grid = nn.ModuleList()
            row = nn.ModuleList()
            self.grid.append(row)
            row.append(nn.ReLU())

        def forward(self, x: cg.Tensor) -> cg.Tensor:
            return self.grid[0][0](x)

    graph = cg.trace(Deep())(cg.ones(2))
    assert graph.outputs[0].origin.scope == "Deep.grid.0.0"


def test_forward_hooks() -> None:
    layer, seen = nn.Linear(2, 2), []
    x = cg.ones((1, 2))

    def record(module: nn.Module, args: Any, out: Any) -> None:
        seen.append((module, args[0] is x, out.shape))

    with layer.register_forward_hook(record):
        layer(x)
    layer(x)
    assert seen == [(layer, True, (1, 2))]
    layer.register_forward_pre_hook(lambda m, args: args[0] * 0.0)
    last = layer.register_forward_hook(lambda m, args, out: out + 1.0)
    layer.register_forward_hook(lambda m, args, out: out * 0.0, prepend=True)
    assert layer(x).tolist() == [[1.0, 1.0]]
    last.remove()
    last.remove()
    assert layer(x).tolist() == [[0.0, 0.0]]


def test_hooks_with_keyword_arguments() -> None:
    class Scaled(nn.Module):
        def forward(self, x: cg.Tensor, *, by: float) -> cg.Tensor:
            return x * by

    layer = Scaled()
    layer.register_forward_pre_hook(
        lambda m, args, kwargs: (args, {"by": kwargs["by"] * 10}), with_kwargs=True
    )
    layer.register_forward_hook(lambda m, args, kwargs, out: out + kwargs["by"], with_kwargs=True)
    assert layer(cg.asarray(1.0), by=2.0).item() == 40.0


def test_backward_hooks_see_and_replace_gradients() -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.assign(cg.asarray([[3.0, 5.0]]))
    seen: list[Any] = []

    def see(module: nn.Module, grad_input: Any, grad_output: Any) -> Any:
        seen.append((grad_input[0].tolist(), grad_output[0].tolist()))
        return (grad_input[0] * 2.0,)

    x = cg.asarray([[1.0, 1.0]], requires_grad=True)
    handle = layer.register_full_backward_hook(see)
    (layer(x) * 7.0 + x.sum()).sum().backward()  # the other use of x is not counted
    assert seen == [([[21.0, 35.0]], [[7.0]])]
    assert x.grad.tolist() == [[43.0, 71.0]]
    handle.remove()
    layer.register_full_backward_pre_hook(lambda m, grad: (grad[0] * 10.0,))
    x.grad = None
    layer(x).sum().backward()
    assert x.grad.tolist() == [[30.0, 50.0]]


def test_backward_hook_of_a_first_layer_and_of_two_inputs() -> None:
    first, seen = nn.Linear(2, 1), []
    first.register_full_backward_hook(lambda m, i, o: seen.append((i, o[0].tolist())))
    first(cg.ones((1, 2))).sum().backward()
    assert seen == [((None,), [[1.0]])]
    pair = nn.Bilinear(1, 1, 1)
    pair.register_full_backward_hook(lambda m, i, o: seen.append([g.shape for g in i]))
    a, b = (cg.asarray([[2.0]], requires_grad=True) for _ in range(2))
    pair(a, b).sum().backward()
    assert seen[-1] == [(1, 1), (1, 1)]
    pair.register_full_backward_hook(lambda m, i, o: (i[0], i[1]))
    with pytest.raises(cg.errors.UsageError, match="one differentiable input"):
        pair(a, b).sum().backward()


def test_repr_of_modules() -> None:
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.ReLU())) == (
        "Sequential(\n  (0): Linear(in_features=2, out_features=3, bias=True)\n  (1): ReLU()\n)"
    )


# --- trees and functional calls ------------------------------------------------------------------


def test_a_module_is_a_tree_of_its_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    x = cg.ones((3, 2))
    leaves, structure = cg.tree.flatten(model)
    assert [leaf is p for leaf, p in zip(leaves, model.parameters(), strict=True)]
    doubled = cg.tree.map(lambda p: p.detach() * 2.0, model)
    assert isinstance(doubled, nn.Sequential) and doubled is not model
    assert doubled[1].running_mean is model[1].running_mean
    np.testing.assert_array_equal(doubled[0].weight.numpy(), 2 * model[0].weight.numpy())
    assert cg.tree.structure(copy.deepcopy(model)) == structure
    assert cg.tree.structure(nn.Sequential(nn.Linear(2, 2))) != structure
    total = cg.tree.map(lambda a, b: a.detach() + b, model, doubled)
    np.testing.assert_allclose(total[2].bias.numpy(), 3 * model[2].bias.numpy())
    assert doubled(x).shape == (3, 1)


def test_grad_takes_a_module_and_gives_one() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    x = cg.asarray([[1.0, 2.0], [3.0, -1.0]])

    def loss(m: nn.Module) -> cg.Tensor:
        return (m(x) ** 2).sum()

    value, grads = cg.value_and_grad(loss)(model)
    loss(model).backward()
    assert value.item() == pytest.approx(loss(model).item())
    assert isinstance(grads, nn.Sequential)
    for (name, p), (other, g) in zip(
        model.named_parameters(), grads.named_parameters(), strict=True
    ):
        assert name == other
        np.testing.assert_allclose(g.numpy(), p.grad.numpy(), rtol=1e-6)


def test_a_tied_parameter_is_one_leaf() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    assert len(cg.tree.leaves(model)) == 1
    x = cg.ones((1, 2))
    grads = cg.grad(lambda m: m(x).sum())(model)
    assert grads[0].weight is grads[1].weight
    model(x).sum().backward()
    np.testing.assert_allclose(grads[0].weight.numpy(), model[0].weight.grad.numpy(), rtol=1e-6)


def test_functional_call_restores_also_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    before = dict(model.named_parameters())
    zeros = {name: cg.zeros(p.shape) for name, p in before.items()}
    x = cg.ones((1, 2))
    assert nn.functional_call(model, zeros, x).tolist() == [[0.0]]
    assert nn.functional_call(model, zeros, (x,)).tolist() == [[0.0]]
    assert nn.functional_call(model, [zeros], None, {"input": x}).tolist() == [[0.0]]
    with pytest.raises(cg.errors.ShapeError):
        nn.functional_call(model, zeros, cg.ones((1, 5)))
    assert all(p is before[name] for name, p in model.named_parameters())
    with pytest.raises(cg.errors.UsageError, match=r"no such parameter or buffer: 5\.weight"):
        nn.functional_call(model, {"5.weight": x}, x)
    with pytest.raises(cg.errors.UsageError, match="not given, though strict"):
        nn.functional_call(model, {"0.weight": zeros["0.weight"]}, x, strict=True)
    with pytest.raises(cg.errors.UsageError, match="given twice"):
        nn.functional_call(model, [zeros, zeros], x)
    with pytest.raises(cg.errors.ShapeError, match=r"0\.weight has shape"):
        nn.functional_call(model, {"0.weight": cg.zeros(3)}, x)


def test_functional_call_with_buffers() -> None:
    model = nn.BatchNorm1d(1, momentum=0.5)
    x = cg.asarray([[1.0], [3.0]])
    plain = {name: b.detach() for name, b in model.named_buffers()}
    nn.functional_call(model, plain, x)
    assert model.running_mean.tolist() == [0.0] and plain["running_mean"].tolist() == [0.0]
    own = {name: cg.Buffer(b) for name, b in plain.items()}
    nn.functional_call(model, own, x)
    assert own["running_mean"].tolist() == [1.0] and own["num_batches_tracked"].item() == 1
    assert model.running_mean.tolist() == [0.0] and model.num_batches_tracked.item() == 0


def test_gradients_for_each_example_by_vmap() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    params = {name: p.detach() for name, p in model.named_parameters()}
    rng = np.random.default_rng(0)
    xs, ys = cg.asarray(rng.standard_normal((5, 3)).astype("f4")), cg.asarray([0, 1, 1, 0, 1])

    def loss(p: Any, x: Any, y: Any) -> cg.Tensor:
        return nn.functional.cross_entropy(nn.functional_call(model, p, x), y)

    together = cg.vmap(cg.grad(loss), in_axes=(None, 0, 0))(params, xs, ys)
    for k in range(5):
        one = cg.grad(loss)(params, xs[k], ys[k])
        for name, value in one.items():
            np.testing.assert_allclose(
                together[name].numpy()[k], value.numpy(), rtol=1e-5, atol=1e-6
            )
