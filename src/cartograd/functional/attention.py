"""Attention: softmax(q k^T / sqrt(d)) v, and the multi-head layer around it (Vaswani et al. 2017).

Masks follow PyTorch: for `scaled_dot_product_attention` a bool mask is True where attention is
allowed; for `multi_head_attention_forward` it is True where attention is forbidden. A float mask is
added to the scores. A query that may attend to nothing gets zeros, never NaN, and passes no
gradient.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..dtype import bool_, is_floating
from ..errors import DTypeError, ShapeError, UsageError
from ..graph import where_called
from ..random import Generator
from ..tensor import Tensor
from ._common import (
    as_tensor,
    require_floating,
    stop_gradient,
    widen,
)
from ._xp import xp
from .dropout import dropout
from .linear import linear

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]

_FORBIDDEN = float("-inf")


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """softmax(scale q k^T + mask) v over the last two axes.

    Query (..., L, E), key (..., S, E), value (..., S, Ev): the result is (..., L, Ev). `attn_mask`
    broadcasts to (..., L, S). `is_causal` lets query i attend to keys 0..i, and excludes a mask.
    `scale` is 1/sqrt(E) by default. With `enable_gqa`, the heads (axis -3) of key and value are
    repeated to the query's number.

    >>> import cartograd as cg
    >>> q, k, v = cg.zeros((1, 2)), cg.zeros((2, 2)), cg.asarray([[1.0], [3.0]])
    >>> cg.nn.functional.scaled_dot_product_attention(q, k, v).tolist()
    [[2.0]]
    """
    op = "scaled_dot_product_attention"
    q, k, v = as_tensor(query), as_tensor(key), as_tensor(value)
    for name, x in (("query", q), ("key", k), ("value", v)):
        require_floating(op, x, name)
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"{op}: query {tuple(q.shape)}, key {tuple(k.shape)} and value {tuple(v.shape)} do not "
            f"fit (..., L, E), (..., S, E), (..., S, Ev){where_called()}"
        )
    if enable_gqa:
        k, v = _repeat_heads(op, k, q), _repeat_heads(op, v, q)
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = xp.matmul(q * factor, k.mT)
    weights = _masked_softmax(scores, _attention_mask(op, scores, attn_mask, is_causal))
    if dropout_p > 0.0:
        weights = dropout(weights, dropout_p, generator=generator)
    return xp.matmul(weights, v)


def _repeat_heads(op: str, x: Tensor, query: Tensor) -> Tensor:
    if x.ndim < 3 or query.ndim < 3 or query.shape[-3] % x.shape[-3]:
        raise ShapeError(
            f"{op}: enable_gqa needs the heads of query {tuple(query.shape)} to be a multiple of "
            f"those of key and value {tuple(x.shape)}{where_called()}"
        )
    return xp.repeat(x, query.shape[-3] // x.shape[-3], axis=x.ndim - 3)


def _attention_mask(op: str, scores: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """A mask that broadcasts to the scores, or None."""
    if is_causal:
        if mask is not None:
            raise UsageError(f"{op}: give attn_mask or is_causal=True, not both{where_called()}")
        return xp.tril(xp.ones(scores.shape[-2:], dtype=bool_))
    if mask is None:
        return None
    mask = as_tensor(mask)
    if mask.dtype != bool_ and not is_floating(mask.dtype):
        raise DTypeError(
            f"{op}: attn_mask must be bool or floating, not {mask.dtype.name}{where_called()}"
        )
    if xp.broadcast_shapes(mask.shape, scores.shape) != tuple(scores.shape):
        raise ShapeError(
            f"{op}: attn_mask {tuple(mask.shape)} does not broadcast to the scores "
            f"{tuple(scores.shape)}{where_called()}"
        )
    return mask


def _masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """softmax over the last axis, zeros where everything is masked."""
    wide = widen(scores)
    if mask is not None:
        wide = xp.where(mask, wide, _FORBIDDEN) if mask.dtype == bool_ else wide + mask
    top = stop_gradient(xp.max(wide, axis=-1, keepdims=True))
    if mask is None:
        weights = xp.exp(wide - top)
        return (weights / xp.sum(weights, axis=-1, keepdims=True)).astype(scores.dtype)
    nothing = top == _FORBIDDEN
    weights = xp.exp(wide - xp.where(nothing, 0.0, top))
    total = xp.where(nothing, 1.0, xp.sum(weights, axis=-1, keepdims=True))
    return (weights / total).astype(scores.dtype)


class _Projected(NamedTuple):
    """Queries, keys and values, each (batch, heads, length, head width)."""

    q: Tensor
    k: Tensor
    v: Tensor


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The whole of `nn.MultiheadAttention` as a function of its weights.

    Query (L, N, E), key (S, N, Ek) and value (S, N, Ev), or without the batch axis N. Returns the
    output (L, N, E), and the attention weights (N, L, S), averaged over heads or (N, heads, L, S),
    if `need_weights`. `key_padding_mask` is (N, S), `attn_mask` (L, S) or (N heads, L, S): True, or
    -inf, where attention is forbidden. `is_causal` states that attn_mask is causal, and needs it.

    >>> import cartograd as cg
    >>> layer = cg.nn.MultiheadAttention(4, 2)
    >>> x = cg.zeros((3, 1, 4))
    >>> out, weights = layer(x, x, x)
    >>> out.shape, weights.shape
    ((3, 1, 4), (1, 3, 3))
    """
    op = "multi_head_attention"
    q, k, v = as_tensor(query), as_tensor(key), as_tensor(value)
    batched = q.ndim == 3
    if q.ndim not in (2, 3) or k.ndim != q.ndim or v.ndim != q.ndim:
        raise ShapeError(
            f"{op}: query {tuple(q.shape)}, key {tuple(k.shape)} and value {tuple(v.shape)} must "
            f"all be (length, batch, features), or all (length, features){where_called()}"
        )
    if is_causal and attn_mask is None:
        raise UsageError(f"{op}: is_causal=True needs the causal attn_mask too{where_called()}")
    if not batched:
        q, k, v = (xp.expand_dims(x, axis=1) for x in (q, k, v))
        if key_padding_mask is not None:
            key_padding_mask = xp.expand_dims(as_tensor(key_padding_mask), axis=0)
    length, batch, embed = q.shape
    if embed != embed_dim_to_check or embed % num_heads:
        raise ShapeError(
            f"{op}: the query has {embed} features, {embed_dim_to_check} are expected, and they "
            f"must divide into {num_heads} heads{where_called()}"
        )
    if k.shape[:2] != v.shape[:2] or k.shape[1] != batch:
        raise ShapeError(
            f"{op}: key {tuple(k.shape)} and value {tuple(v.shape)} differ in length, or in batch "
            f"from the query's {batch}{where_called()}"
        )
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    elif in_proj_weight is not None:
        weights = _thirds(in_proj_weight)
    else:
        weights = (None, None, None)
    biases = (None, None, None) if in_proj_bias is None else _thirds(in_proj_bias)
    if use_separate_proj_weight or k is not q or v is not q or in_proj_weight is None:
        q, k, v = (
            linear(x, _given(op, w), b) for x, w, b in zip((q, k, v), weights, biases, strict=True)
        )
    else:  # self-attention: one product for all three
        q, k, v = xp.split(linear(q, in_proj_weight, in_proj_bias), embed, axis=-1)
    extra = 0
    if bias_k is not None and bias_v is not None:
        rows = (1, batch, embed)
        k = xp.concat([k, xp.broadcast_to(bias_k, rows)], axis=0)
        v = xp.concat([v, xp.broadcast_to(bias_v, rows)], axis=0)
        extra += 1
    heads = _Projected(
        _to_heads(q, num_heads),
        _static(op, static_k, _to_heads(k, num_heads), batch, num_heads),
        _static(op, static_v, _to_heads(v, num_heads), batch, num_heads),
    )
    if add_zero_attn:
        zeros = xp.zeros((batch, num_heads, 1, embed // num_heads), dtype=q.dtype)
        heads = _Projected(
            heads.q, *(xp.concat([x, zeros.astype(x.dtype)], axis=2) for x in (heads.k, heads.v))
        )
        extra += 1
    mask = _merged_mask(
        op, attn_mask, key_padding_mask, (batch, num_heads, length, heads.k.shape[2]), extra
    )
    scores = xp.matmul(heads.q * (1.0 / math.sqrt(embed // num_heads)), heads.k.mT)
    attention = _masked_softmax(scores, mask)
    if training and dropout_p > 0.0:
        attention = dropout(attention, dropout_p, generator=generator)
    mixed = xp.permute_dims(xp.matmul(attention, heads.v), (2, 0, 1, 3))
    out = linear(xp.reshape(mixed, (length, batch, embed)), out_proj_weight, out_proj_bias)
    if not batched:
        out = xp.squeeze(out, axis=1)
    if not need_weights:
        return out, None
    shown = xp.mean(attention, axis=1) if average_attn_weights else attention
    return out, shown if batched else xp.squeeze(shown, axis=0)


def _thirds(packed: Tensor) -> tuple[Tensor, ...]:
    return xp.split(packed, packed.shape[0] // 3, axis=0)


def _given(op: str, weight: Tensor | None) -> Tensor:
    if weight is None:
        raise UsageError(f"{op}: a projection weight is missing{where_called()}")
    return weight


def _to_heads(x: Tensor, heads: int) -> Tensor:
    """(length, batch, heads * width) to (batch, heads, length, width)."""
    length, batch, width = x.shape
    split = xp.reshape(x, (length, batch, heads, width // heads))
    return xp.permute_dims(split, (1, 2, 0, 3))


def _static(op: str, static: Tensor | None, own: Tensor, batch: int, heads: int) -> Tensor:
    """A static key or value (batch * heads, length, width) in place of the projected one."""
    if static is None:
        return own
    if static.ndim != 3 or static.shape[0] != batch * heads or static.shape[2] != own.shape[3]:
        raise ShapeError(
            f"{op}: a static key or value must be ({batch * heads}, length, {own.shape[3]}), not "
            f"{tuple(static.shape)}{where_called()}"
        )
    return xp.reshape(static, (batch, heads, *static.shape[1:]))


def _forbidding(op: str, name: str, mask: Tensor) -> Tensor:
    """A mask as what is added to the scores."""
    if is_floating(mask.dtype):
        return mask
    if mask.dtype != bool_:
        raise DTypeError(
            f"{op}: {name} must be bool or floating, not {mask.dtype.name}{where_called()}"
        )
    return xp.where(mask, _FORBIDDEN, 0.0)


def _merged_mask(
    op: str,
    attn_mask: Tensor | None,
    padding: Tensor | None,
    shape: tuple[int, int, int, int],
    extra: int,
) -> Tensor | None:
    """Both masks as one that is added to scores of `shape`; `extra` keys at the end are free."""
    batch, heads, length, keys = shape
    own = keys - extra
    merged: Tensor | None = None
    if attn_mask is not None:
        mask = as_tensor(attn_mask)
        if tuple(mask.shape) == (length, own):
            mask = xp.reshape(mask, (1, 1, length, own))
        elif tuple(mask.shape) == (batch * heads, length, own):
            mask = xp.reshape(mask, (batch, heads, length, own))
        else:
            raise ShapeError(
                f"{op}: attn_mask {tuple(mask.shape)} is neither {(length, own)} nor "
                f"{(batch * heads, length, own)}{where_called()}"
            )
        merged = _forbidding(op, "attn_mask", mask)
    if padding is not None:
        mask = as_tensor(padding)
        if tuple(mask.shape) != (batch, own):
            raise ShapeError(
                f"{op}: key_padding_mask {tuple(mask.shape)} is not {(batch, own)}{where_called()}"
            )
        mask = _forbidding(op, "key_padding_mask", xp.reshape(mask, (batch, 1, 1, own)))
        merged = mask if merged is None else merged + mask
    if merged is not None and extra:
        merged = xp.pad(merged, ((0, 0), (0, 0), (0, 0), (0, extra)))
    return merged
