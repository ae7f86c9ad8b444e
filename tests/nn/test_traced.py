"""Every layer and loss in a traced function: the graph computes what the eager call does.

Nothing here may look at a value while it is traced, so a layer that branched on one would raise.
"""

from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn

F = nn.functional
RNG = np.random.default_rng(0)


def x(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype("f4")


MASK = np.tril(np.ones((3, 3), bool))
LAYERS: list[tuple[Any, tuple[Any, ...]]] = [
    (lambda: nn.Linear(3, 2), (x(4, 3),)),
    (lambda: nn.Bilinear(3, 2, 2), (x(4, 3), x(4, 2))),
    (lambda: nn.Conv1d(2, 3, 3, padding="same"), (x(1, 2, 5),)),
    (lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect", groups=2), (x(1, 2, 5, 4),)),
    (lambda: nn.ConvTranspose2d(2, 3, 2, stride=2), (x(1, 2, 3, 3),)),
    (lambda: nn.MaxPool2d(2), (x(1, 2, 4, 4),)),
    (lambda: nn.AvgPool2d(2), (x(1, 2, 4, 4),)),
    (lambda: nn.LPPool1d(2, 2), (x(1, 2, 4),)),
    (lambda: nn.AdaptiveAvgPool2d(2), (x(1, 2, 5, 4),)),
    (lambda: nn.AdaptiveMaxPool1d(2), (x(1, 2, 5),)),
    (lambda: nn.BatchNorm2d(2).eval(), (x(3, 2, 4, 4),)),
    (lambda: nn.InstanceNorm1d(2), (x(3, 2, 4),)),
    (lambda: nn.LayerNorm(4), (x(3, 4),)),
    (lambda: nn.GroupNorm(2, 4), (x(3, 4),)),
    (lambda: nn.RMSNorm(4), (x(3, 4),)),
    (lambda: nn.LocalResponseNorm(2), (x(3, 4, 2),)),
    (lambda: nn.Dropout().eval(), (x(3),)),
    (lambda: nn.Embedding(5, 3, padding_idx=0), (np.array([[0, 4]]),)),
    (lambda: nn.EmbeddingBag(5, 3, mode="max"), (np.array([[0, 4]]),)),
    (lambda: nn.EmbeddingBag(5, 3), (np.array([0, 4, 2]), np.array([0, 1]))),
    (lambda: nn.RNN(3, 2, bidirectional=True), (x(4, 1, 3),)),
    (lambda: nn.LSTM(3, 4, num_layers=2, proj_size=2, batch_first=True), (x(1, 4, 3),)),
    (lambda: nn.GRU(3, 2), (x(4, 3),)),
    (lambda: nn.LSTMCell(3, 2), (x(4, 3),)),
    (lambda: nn.MultiheadAttention(4, 2), (x(3, 1, 4), x(5, 1, 4), x(5, 1, 4))),
    (lambda: nn.TransformerEncoderLayer(4, 2, 8, 0.0), (x(3, 1, 4), ~MASK)),
    (lambda: nn.Transformer(4, 2, 1, 1, 8, 0.0), (x(3, 1, 4), x(2, 1, 4))),
    (lambda: nn.Flatten(), (x(3, 2, 2),)),
    (lambda: nn.Unflatten(1, (2, -1)), (x(3, 4),)),
    (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (x(1, 1, 2, 3),)),
    (lambda: nn.ReflectionPad2d(1), (x(1, 1, 2, 3),)),
    (lambda: nn.PixelShuffle(2), (x(1, 4, 2, 3),)),
    (lambda: nn.PReLU(), (x(3),)),
    *[(getattr(nn, name), (x(3, 4),)) for name in (
        "ReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Sigmoid", "Tanh", "Softplus",
        "Softsign", "Hardtanh", "ReLU6", "Hardswish", "Hardsigmoid", "LogSigmoid", "Softmax",
        "LogSoftmax", "Softmin", "GLU", "Hardshrink", "Softshrink", "Tanhshrink", "LeakyReLU",
    )],
    *[(getattr(nn, name), (x(3, 4), abs(x(3, 4)))) for name in (
        "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "KLDivLoss", "PoissonNLLLoss",
        "BCEWithLogitsLoss", "SoftMarginLoss", "MultiLabelSoftMarginLoss", "CosineSimilarity",
        "HingeEmbeddingLoss", "PairwiseDistance",
    )],
    (nn.BCELoss, (1 / (1 + np.exp(-x(3))), np.ones(3, "f4"))),
    (nn.CrossEntropyLoss, (x(3, 4), np.array([0, 3, -100]))),
    (lambda: nn.CrossEntropyLoss(cg.ones(4), label_smoothing=0.1), (x(3, 4), np.array([0, 3, 1]))),
    (nn.NLLLoss, (x(3, 4), np.array([0, 3, 1]))),
    (nn.MultiMarginLoss, (x(3, 4), np.array([0, 3, 1]))),
    (nn.MultiLabelMarginLoss, (x(1, 4), np.array([[0, 3, -1, 1]]))),
    (nn.GaussianNLLLoss, (x(3), x(3), abs(x(3)))),
    (nn.MarginRankingLoss, (x(3), x(3), np.ones(3, "f4"))),
    (nn.TripletMarginLoss, (x(3, 2), x(3, 2), x(3, 2))),
    (nn.CosineEmbeddingLoss, (x(3, 2), x(3, 2), np.array([1, -1, 1]))),
]  # fmt: skip


@pytest.mark.parametrize(("build", "args"), LAYERS, ids=lambda v: "")
def test_traced_is_eager(build: Any, args: Any) -> None:
    cg.manual_seed(0)
    layer = build()
    tensors = [cg.asarray(a) for a in args]
    eager = [leaf.numpy() for leaf in cg.tree.leaves(layer(*tensors))]
    graph = cg.trace(layer)(*tensors)
    graph.verify()
    result = cg.tree.leaves(graph(*tensors))
    assert len(result) == len(eager)
    for a, b in zip(result, eager, strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)


def test_running_statistics_and_masks_in_a_trace() -> None:
    layer = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    graph = cg.trace(layer)(cg.ones((4, 3)))
    assert layer[0].num_batches_tracked.item() == 0  # undone: a compiled step carries it out
    assert not layer[0].running_mean.numpy().any()
    assert graph.outputs[0].shape == (4, 3)


def test_a_whole_step_is_traced() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    )

    def step(images: Any, labels: Any) -> Any:
        model.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for p in model.parameters():
            p.assign(p.detach() - 0.1 * p.grad)
        return loss

    images, labels = cg.asarray(x(2, 1, 4, 4)), cg.asarray([0, 2])
    before = {n: v.numpy().copy() for n, v in model.state_dict().items()}
    graph = cg.trace(step)(images, labels)
    for n, v in model.state_dict().items():
        np.testing.assert_array_equal(v.numpy(), before[n])
    expected = F.cross_entropy(model(images), labels)
    np.testing.assert_allclose(np.asarray(graph(images, labels)), expected.numpy(), rtol=1e-6)
    step(images, labels)
    assert (model[0].weight.numpy() != before["0.weight"]).any()


@pytest.mark.parametrize("axis", [0, 1])
def test_vmap_of_layers(axis: int) -> None:
    cg.manual_seed(0)
    layer = nn.Sequential(
        nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2), nn.Softmax(-1)
    )
    xs = x(5, 5, 3)
    found = cg.vmap(layer, in_axes=axis)(cg.asarray(xs)).numpy()
    expected = np.stack([layer(cg.asarray(np.take(xs, k, axis))).numpy() for k in range(5)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_vmap_of_recurrence_convolution_and_attention() -> None:
    cg.manual_seed(0)
    gru, conv, attention = nn.GRU(3, 2), nn.Conv1d(2, 2, 3), nn.MultiheadAttention(4, 2)
    for f, xs in (
        (lambda v: gru(v)[0], x(3, 4, 1, 3)),
        (conv, x(3, 1, 2, 6)),
        (lambda v: attention(v, v, v)[0], x(3, 5, 1, 4)),
    ):
        found = cg.vmap(f)(cg.asarray(xs)).numpy()
        expected = np.stack([f(cg.asarray(row)).numpy() for row in xs])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
