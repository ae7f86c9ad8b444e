"""Attention against its definition; masks; causality; the Transformer layers."""

from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn

F = nn.functional
RNG = np.random.default_rng(0)
Q, K, V = (RNG.standard_normal(s) for s in ((2, 3, 4), (2, 5, 4), (2, 5, 6)))


def reference(q: Any, k: Any, v: Any, allowed: Any = True) -> np.ndarray:
    scores = np.where(allowed, q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]), -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


def test_definition_and_masks() -> None:
    q, k, v = map(cg.asarray, (Q, K, V))
    f = F.scaled_dot_product_attention
    np.testing.assert_allclose(f(q, k, v).numpy(), reference(Q, K, V), rtol=1e-12)
    # 1/sqrt(4) is 0.5: a scale of 1 is that of queries twice as long
    np.testing.assert_allclose(f(q, k, v, scale=1.0).numpy(), reference(2 * Q, K, V), rtol=1e-12)
    mask = RNG.random((3, 5)) < 0.6
    mask[:, 0] = True
    expected = reference(Q, K, V, mask)
    np.testing.assert_allclose(f(q, k, v, cg.asarray(mask)).numpy(), expected, rtol=1e-12)
    added = cg.asarray(np.where(mask, 0.0, -np.inf))
    np.testing.assert_allclose(f(q, k, v, added).numpy(), expected, rtol=1e-12)
    causal = np.tril(np.ones((3, 5), bool))
    np.testing.assert_allclose(
        f(q, k, v, is_causal=True).numpy(), reference(Q, K, V, causal), rtol=1e-12
    )


def test_a_query_that_may_attend_to_nothing() -> None:
    q, k, v = map(cg.asarray, (Q, K, V))
    mask = np.ones((3, 5), bool)
    mask[1] = False
    y = F.scaled_dot_product_attention(q, k, v, cg.asarray(mask))
    assert not y.numpy()[:, 1].any() and np.isfinite(y.numpy()).all()
    for argnum in range(3):
        grads = cg.grad(
            lambda *a: (F.scaled_dot_product_attention(*a, cg.asarray(mask)) ** 2).sum(), argnum
        )(q, k, v)
        assert np.isfinite(grads.numpy()).all()
        if argnum == 0:
            assert not grads.numpy()[:, 1].any()


def test_derivatives_through_a_mask() -> None:
    mask = cg.asarray(np.tril(np.ones((3, 5), bool)))
    cg.testing.check_grads(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask), [Q, K, V], order=2, rtol=1e-5
    )


def test_grouped_queries() -> None:
    q, k, v = (
        RNG.standard_normal((4, 3, 2)),
        RNG.standard_normal((2, 5, 2)),
        RNG.standard_normal((2, 5, 3)),
    )
    y = F.scaled_dot_product_attention(*map(cg.asarray, (q, k, v)), enable_gqa=True)
    expected = reference(q, np.repeat(k, 2, 0), np.repeat(v, 2, 0))
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12)


def test_dropout_acts_on_the_weights() -> None:
    cg.manual_seed(0)
    q, k = cg.zeros((1000, 4)), cg.zeros((8, 4))
    y = F.scaled_dot_product_attention(q, k, cg.ones((8, 1)), dropout_p=0.5).numpy()
    assert y.std() > 0.1 and abs(y.mean() - 1) < 0.05
    layer = nn.MultiheadAttention(4, 2, dropout=0.5)
    x = cg.random.normal((5, 1, 4))
    assert (layer(x, x, x)[0].numpy() != layer(x, x, x)[0].numpy()).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x, x, x)[0].numpy(), layer(x, x, x)[0].numpy())


def test_refusals() -> None:
    q, k, v = map(cg.asarray, (Q, K, V))
    f = F.scaled_dot_product_attention
    for call in (
        lambda: f(q, cg.asarray(K[..., :3]), v),
        lambda: f(q, k, cg.asarray(V[:, :4])),
        lambda: f(q[0, 0], k, v),
        lambda: f(q, k, v, cg.ones((4, 5), dtype=cg.bool)),
        lambda: f(q, k, v, cg.ones((3, 2, 3, 5), dtype=cg.bool)),
        lambda: f(q, cg.ones((3, 5, 4)), cg.ones((3, 5, 4)), enable_gqa=True),
        lambda: nn.MultiheadAttention(4, 2)(q, cg.ones((5, 1, 4)), cg.ones((5, 1, 4))),
        lambda: nn.MultiheadAttention(4, 2)(cg.ones(4), cg.ones(4), cg.ones(4)),
        lambda: nn.MultiheadAttention(4, 2)(cg.ones((3, 4)), cg.ones((3, 4)), cg.ones((2, 4))),
        lambda: nn.MultiheadAttention(4, 2)(*[cg.ones((3, 6))] * 3),
        lambda: nn.MultiheadAttention(4, 2)(*[cg.ones((3, 4))] * 3, attn_mask=cg.ones((2, 3))),
        lambda: nn.MultiheadAttention(4, 2)(*[cg.ones((3, 4))] * 3, key_padding_mask=cg.ones(2)),
        lambda: nn.Transformer(4, 2, 1, 1, 8)(cg.ones((3, 1, 5)), cg.ones((3, 1, 4))),
    ):  # fmt: skip
        with pytest.raises(cg.errors.ShapeError):
            call()
    with pytest.raises(cg.errors.UsageError, match="not both"):
        f(q, k, v, cg.ones((3, 5)), is_causal=True)
    with pytest.raises(cg.errors.UsageError, match="needs the causal attn_mask"):
        nn.MultiheadAttention(4, 2)(*[cg.ones((3, 4))] * 3, is_causal=True)
    with pytest.raises(cg.errors.DTypeError):
        f(q, k, v, cg.ones((3, 5), dtype=cg.int64))
    with pytest.raises(cg.errors.DTypeError):
        nn.MultiheadAttention(4, 2)(
            *[cg.ones((3, 4))] * 3, attn_mask=cg.ones((3, 3), dtype=cg.int64)
        )
    with pytest.raises(cg.errors.UsageError, match="does not divide"):
        nn.MultiheadAttention(5, 2)
    with pytest.raises(cg.errors.UsageError, match="activation"):
        nn.TransformerEncoderLayer(4, 2, activation="tanh")


def test_a_causal_encoder_does_not_look_ahead() -> None:
    cg.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8))
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    x = cg.random.normal((1, 5, 8))
    changed = x.at[0, 3].set(cg.zeros(8))
    a = model(x, mask, is_causal=True).numpy()
    b = model(changed, mask, is_causal=True).numpy()
    np.testing.assert_array_equal(a[:, :3], b[:, :3])
    assert (a[:, 3:] != b[:, 3:]).all(-1).all()
    first = model.layers[0].linear1.weight
    assert first is not model.layers[1].linear1.weight
    np.testing.assert_array_equal(first.numpy(), model.layers[1].linear1.weight.numpy())
