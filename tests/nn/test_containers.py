"""Sequential, ModuleList, ModuleDict, ParameterList and ParameterDict."""

from collections import OrderedDict

import pytest

import cartograd as cg
from cartograd import nn


def test_sequential_is_a_list_of_layers() -> None:
    a, b, c = nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)
    model = nn.Sequential(a, b)
    assert model.append(c) is model and list(model) == [a, b, c] and len(model) == 3
    assert model[-1] is c and model[1] is b and b in model
    assert isinstance(model[:2], nn.Sequential) and list(model[:2]) == [a, b]
    model[1] = nn.Tanh()
    assert repr(model[1]) == "Tanh()"
    del model[0]
    assert list(model.state_dict()) == ["1.weight", "1.bias"]
    model.insert(0, a)
    assert model[0] is a and next(iter(model.state_dict())) == "0.weight"
    assert model.pop() is c and len(model) == 2
    assert len(model + nn.Sequential(b)) == 3
    assert len(model.extend([b, c])) == 4
    del model[1:3]
    assert list(model) == [a, c]
    with pytest.raises(IndexError, match="Sequential has 2 entries, no number 2"):
        _ = model[2]
    with pytest.raises(cg.errors.UsageError, match="must be a Module"):
        nn.Sequential(3)


def test_sequential_with_names() -> None:
    model = nn.Sequential(OrderedDict([("one", nn.Linear(2, 2)), ("act", nn.ReLU())]))
    assert list(model.state_dict()) == ["one.weight", "one.bias"]
    assert model.act is model[1] and list(dict(model[:1].named_children())) == ["one"]
    assert model(cg.ones((1, 2))).shape == (1, 2)


def test_module_list() -> None:
    layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(2))
    layers += [nn.ReLU()]
    assert len([*layers, nn.Tanh()]) == 4 and len(layers) == 3
    assert len(list(layers.parameters())) == 4
    with pytest.raises(cg.errors.UnsupportedError, match="no forward"):
        layers(cg.ones(1))


def test_module_dict_takes_any_name_without_dots() -> None:
    heads = nn.ModuleDict({"train": nn.Linear(1, 1), "b": nn.ReLU()})
    assert list(heads) == list(heads.keys()) == ["train", "b"] and "b" in heads and len(heads) == 2
    assert [n for n, _ in heads.items()] == ["train", "b"] and len(list(heads.values())) == 2
    assert heads.train(False) is heads  # still the method
    assert isinstance(heads["train"], nn.Linear)
    heads["c"] = nn.Tanh()
    del heads["b"]
    assert isinstance(heads.pop("c"), nn.Tanh)
    heads.update([("d", nn.ReLU())])
    assert list(heads) == ["train", "d"]
    heads.clear()
    assert len(heads) == 0
    with pytest.raises(cg.errors.UsageError, match="without dots"):
        heads["a.b"] = nn.ReLU()


def test_parameter_list_and_dict() -> None:
    weights = nn.ParameterList([cg.zeros(2), cg.Parameter(cg.ones(1))])
    assert weights[0].requires_grad and weights[-1].tolist() == [1.0] and len(weights) == 2
    weights += [cg.zeros(3)]
    weights[0] = cg.ones(4)
    assert [w.shape for w in weights] == [(4,), (1,), (3,)] and len(weights[1:]) == 2
    assert list(weights.state_dict()) == ["0", "1", "2"]
    assert "(0): Parameter of shape (4,), float32" in repr(weights)
    named = nn.ParameterDict({"keys": cg.zeros(2)})
    named["b"] = cg.ones(1)
    assert list(named.keys()) == list(named) == ["keys", "b"] and "b" in named and len(named) == 2
    assert [n for n, _ in named.items()] == ["keys", "b"] and len(list(named.values())) == 2
    del named["b"]
    assert list(named.state_dict()) == ["keys"] and repr(nn.ParameterDict()) == "ParameterDict()"
