"""Recurrent layers: the scan of a layer is the loop of its cell."""

from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn

X = np.random.default_rng(0).standard_normal((6, 2, 3))


def cell_of(layer: Any, suffix: str) -> Any:
    kind = {"RNN": nn.RNNCell, "LSTM": nn.LSTMCell, "GRU": nn.GRUCell}[type(layer).__name__]
    width = layer.get_parameter(f"weight_ih{suffix}").shape[1]
    cell = kind(width, layer.hidden_size, dtype=cg.float64)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        cell.get_parameter(name).assign(layer.get_parameter(name + suffix).detach())
    return cell


def loop(cell: Any, xs: list[cg.Tensor]) -> list[cg.Tensor]:
    state, found = None, []
    for x in xs:
        state = cell(x, state)
        found.append(state[0] if isinstance(state, tuple) else state)
    return found


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_layer_is_the_loop_of_its_cell(kind: Any) -> None:
    layer = kind(3, 4, num_layers=2, bidirectional=True, dtype=cg.float64)
    x = cg.asarray(X)
    y, last = layer(x)
    steps = [x[t] for t in range(6)]
    for k in range(2):
        forward = loop(cell_of(layer, f"_l{k}"), steps)
        backward = loop(cell_of(layer, f"_l{k}_reverse"), steps[::-1])[::-1]
        steps = [cg.concat([a, b], axis=-1) for a, b in zip(forward, backward, strict=True)]
    np.testing.assert_allclose(y.numpy(), cg.stack(steps).numpy(), rtol=1e-10, atol=1e-12)
    hidden = last[0] if isinstance(last, tuple) else last
    np.testing.assert_allclose(hidden.numpy()[2], forward[-1].numpy(), rtol=1e-10)
    np.testing.assert_allclose(hidden.numpy()[3], backward[0].numpy(), rtol=1e-10)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_gradients_reach_every_weight_and_agree_with_differences(kind: Any) -> None:
    layer = kind(3, 4, dtype=cg.float64)
    params = {n: p.detach() for n, p in layer.named_parameters()}

    def f(p: Any, x: Any) -> cg.Tensor:
        return nn.functional_call(layer, p, (x,))[0]

    cg.testing.check_grads(f, [params, X], order=1, rtol=1e-6)
    layer(cg.asarray(X))[0].sum().backward()
    assert all(p.grad.numpy().any() for p in layer.parameters())


def test_layouts_and_states() -> None:
    layer = nn.LSTM(3, 4, batch_first=True, proj_size=2, dtype=cg.float64)
    y, (h, c) = layer(cg.asarray(X.swapaxes(0, 1)))
    assert (y.shape, h.shape, c.shape) == ((2, 6, 2), (1, 2, 2), (1, 2, 4))
    one, (h1, c1) = layer(cg.asarray(X[:, 0]))
    assert (one.shape, h1.shape, c1.shape) == ((6, 2), (1, 2), (1, 4))
    np.testing.assert_allclose(one.numpy(), y.numpy()[0], rtol=1e-12)
    rest, _ = layer(
        cg.asarray(X.swapaxes(0, 1))[:, 3:], layer(cg.asarray(X.swapaxes(0, 1))[:, :3])[1]
    )
    np.testing.assert_allclose(rest.numpy(), y.numpy()[:, 3:], rtol=1e-12)
    assert list(layer.state_dict()) == [
        "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0",
    ]  # fmt: skip


def test_dropout_between_layers_only_in_training() -> None:
    layer = nn.GRU(3, 4, num_layers=2, dropout=0.5, dtype=cg.float64)
    x = cg.asarray(X)
    assert (layer(x)[0].numpy() != layer(x)[0].numpy()).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())


def test_a_long_sequence_is_one_node() -> None:
    layer = nn.LSTM(1, 2)
    graph = cg.trace(lambda x: layer(x)[0])(cg.zeros((1000, 1, 1)))
    assert len(graph.find(op="scan")) == 1 and len(graph.nodes) < 100
    assert graph.find(scope="LSTM.l0")


def test_refusals() -> None:
    for call in (
        lambda: nn.RNN(3, 4)(cg.zeros((2, 5))),
        lambda: nn.RNN(3, 4)(cg.zeros(3)),
        lambda: nn.RNN(3, 4)(cg.zeros((2, 1, 3)), cg.zeros((2, 1, 4))),
        lambda: nn.GRUCell(3, 4)(cg.zeros((2, 3)), cg.zeros((1, 4))),
        lambda: nn.GRUCell(3, 4)(cg.zeros((2, 4))),
    ):
        with pytest.raises(cg.errors.ShapeError):
            call()
    for build in (
        lambda: nn.RNN(3, 4, nonlinearity="gelu"),
        lambda: nn.RNNCell(3, 4, nonlinearity="gelu"),
        lambda: nn.LSTM(3, 4, proj_size=4),
        lambda: nn.RNN(3, 0),
        lambda: nn.RNN(3, 4, dropout=2.0),
    ):
        with pytest.raises(cg.errors.UsageError):
            build()
