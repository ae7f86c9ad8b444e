"""Sequences: a small GPT, an encoder, an LSTM and a GRU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import in_jax
from .spec import Shapes, Workload, integers, linear, norm, normal, product, together

# ---- gpt ---------------------------------------------------------------------------------------

LAYERS, WIDTH, HEADS, CONTEXT, BATCH, VOCABULARY = 4, 128, 4, 64, 12, 65


def _gpt(lib: Any) -> Any:
    nn = lib.nn
    F = nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            b, t, d = x.shape
            y = self.qkv(self.norm1(x)).reshape(b, t, 3, HEADS, d // HEADS)
            if lib.__name__ == "torch":
                q, k, v = y.permute(2, 0, 3, 1, 4)
            else:
                q, k, v = lib.unstack(lib.permute_dims(y, (2, 0, 3, 1, 4)))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(y.swapaxes(1, 2).reshape(b, t, d))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, WIDTH)
            self.positions = nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
            self.norm = nn.LayerNorm(WIDTH)
            self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

        def forward(self, x: Any) -> Any:
            x = self.tokens(x) + self.positions.weight
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    def loss(model: Any, x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x).reshape(-1, VOCABULARY), y.reshape(-1))

    return GPT(), loss


def _gpt_jax(p: Any, x: Any, y: Any) -> Any:
    import jax

    def block(name: str, x: Any) -> Any:
        qkv = in_jax.dense(p, f"{name}.qkv", in_jax.layer_norm(p, f"{name}.norm1", x))
        z = _attend_jax(qkv, HEADS, causal=True)
        x = x + in_jax.dense(p, f"{name}.proj", z)
        h = in_jax.dense(p, f"{name}.up", in_jax.layer_norm(p, f"{name}.norm2", x))
        return x + in_jax.dense(p, f"{name}.down", jax.nn.gelu(h, approximate=False))

    h = p["tokens.weight"][x] + p["positions.weight"]
    for k in range(LAYERS):
        h = block(f"blocks.{k}", h)
    return in_jax.cross_entropy(in_jax.dense(p, "head", in_jax.layer_norm(p, "norm", h)), y)


def _attend_jax(qkv: Any, heads: int, causal: bool) -> Any:
    """Attention from packed [b, t, 3 d] to [b, t, d]."""
    import jax
    import jax.numpy as jnp

    b, t, packed = qkv.shape
    q, k, v = jnp.moveaxis(qkv.reshape(b, t, 3, heads, packed // 3 // heads), 2, 0)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (q.shape[-1] ** -0.5)
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, -jnp.inf)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, -1), v).reshape(b, t, packed // 3)


def _transformer_flops(tokens: int, context: int, width: int, hidden: int) -> float:
    """FLOPs of one block over so many tokens, with its gradients."""
    attention = 2 * product(tokens, width, context)
    return product(tokens, width, 4 * width + 2 * hidden) + attention


def _gpt_shapes() -> Shapes:
    shapes: Shapes = {"tokens.weight": (VOCABULARY, WIDTH), "positions.weight": (CONTEXT, WIDTH)}
    for k in range(LAYERS):
        name = f"blocks.{k}"
        shapes |= norm(f"{name}.norm1", WIDTH) | norm(f"{name}.norm2", WIDTH)
        shapes |= linear(f"{name}.qkv", WIDTH, 3 * WIDTH) | linear(f"{name}.proj", WIDTH, WIDTH)
        shapes |= linear(f"{name}.up", WIDTH, 4 * WIDTH) | linear(f"{name}.down", 4 * WIDTH, WIDTH)
    return shapes | norm("norm", WIDTH) | linear("head", WIDTH, VOCABULARY, bias=False)


GPT = Workload(
    "gpt",
    "4 layers, width 128, 4 heads, context 64, batch 12, vocabulary 65",
    _gpt_shapes(),
    together(integers(VOCABULARY, BATCH, CONTEXT), integers(VOCABULARY, BATCH, CONTEXT)),
    LAYERS * _transformer_flops(BATCH * CONTEXT, CONTEXT, WIDTH, 4 * WIDTH)
    + product(BATCH * CONTEXT, WIDTH, VOCABULARY),
    modules=_gpt,
    jax=_gpt_jax,
)


# ---- a transformer encoder -----------------------------------------------------------------------


def _encoder(lib: Any) -> Any:
    nn = lib.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(64, 5)

        def forward(self, x: Any) -> Any:
            return self.head(self.encoder(x).mean(1))

    return Net(), lambda model, x, y: nn.functional.cross_entropy(model(x), y)


def _encoder_jax(p: Any, x: Any, y: Any) -> Any:
    import jax

    for k in range(2):
        name = f"encoder.layers.{k}"
        attn = f"{name}.self_attn"
        qkv = x @ p[f"{attn}.in_proj_weight"] + p[f"{attn}.in_proj_bias"]
        z = in_jax.dense(p, f"{attn}.out_proj", _attend_jax(qkv, 4, causal=False))
        x = in_jax.layer_norm(p, f"{name}.norm1", x + z)
        z = in_jax.dense(p, f"{name}.linear2", jax.nn.relu(in_jax.dense(p, f"{name}.linear1", x)))
        x = in_jax.layer_norm(p, f"{name}.norm2", x + z)
    return in_jax.cross_entropy(in_jax.dense(p, "head", x.mean(1)), y)


def _encoder_shapes() -> Shapes:
    shapes: Shapes = {}
    for k in range(2):
        name = f"encoder.layers.{k}"
        attn = f"{name}.self_attn"
        shapes |= {f"{attn}.in_proj_weight": (192, 64), f"{attn}.in_proj_bias": (192,)}
        shapes |= linear(f"{attn}.out_proj", 64, 64)
        shapes |= linear(f"{name}.linear1", 64, 128) | linear(f"{name}.linear2", 128, 64)
        shapes |= norm(f"{name}.norm1", 64) | norm(f"{name}.norm2", 64)
    return shapes | linear("head", 64, 5)


ENCODER = Workload(
    "encoder",
    "transformer encoder, 2 layers, width 64, 4 heads, context 32, batch 4",
    _encoder_shapes(),
    together(normal(4, 32, 64), integers(5, 4)),
    2 * _transformer_flops(4 * 32, 32, 64, 128) + product(4, 64, 5),
    modules=_encoder,
    jax=_encoder_jax,
)


# ---- recurrent networks --------------------------------------------------------------------------


def recurrent(
    name: str, kind: str, vocabulary: int, width: int, steps: int, batch: int
) -> Workload:
    """An embedding, an LSTM or GRU, and a Linear that names the next token at each step."""
    gates = 4 if kind == "LSTM" else 3
    shapes: Shapes = {
        "embedding.weight": (vocabulary, width),
        "rnn.weight_ih_l0": (gates * width, width),
        "rnn.weight_hh_l0": (gates * width, width),
        "rnn.bias_ih_l0": (gates * width,),
        "rnn.bias_hh_l0": (gates * width,),
    }
    tokens = integers(vocabulary, batch, steps)
    return Workload(
        name,
        f"{kind} hidden {width}, {steps} steps, batch {batch}, vocabulary {vocabulary}",
        shapes | linear("head", width, vocabulary),
        together(tokens, tokens),
        product(batch * steps, width, 2 * gates * width)
        + product(batch * steps, width, vocabulary),
        modules=lambda lib: _recurrent(lib, kind, vocabulary, width),
        jax=_recurrent_jax(kind),
    )


def _recurrent(lib: Any, kind: str, vocabulary: int, width: int) -> Any:
    nn = lib.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, width)
            self.rnn = getattr(nn, kind)(width, width, batch_first=True)
            self.head = nn.Linear(width, vocabulary)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(self.embedding(x))[0])

    def loss(model: Any, x: Any, y: Any) -> Any:
        scores = model(x).reshape(-1, vocabulary)
        return nn.functional.cross_entropy(scores, y.reshape(-1))

    return Net(), loss


def _recurrent_jax(kind: str) -> Callable[..., Any]:
    def value(p: Any, x: Any, y: Any) -> Any:
        import jax
        import jax.numpy as jnp

        # The products with the inputs need no loop: one product before it.
        h = p["embedding.weight"][x.T] @ p["rnn.weight_ih_l0"] + p["rnn.bias_ih_l0"]
        zero = jnp.zeros((x.shape[0], p["rnn.weight_hh_l0"].shape[0]))

        def lstm(carry: Any, from_input: Any) -> Any:
            h, c = carry
            z = from_input + h @ p["rnn.weight_hh_l0"] + p["rnn.bias_hh_l0"]
            i, f, g, o = jnp.split(z, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        def gru(h: Any, from_input: Any) -> Any:
            ri, zi, ni = jnp.split(from_input, 3, -1)
            rh, zh, nh = jnp.split(h @ p["rnn.weight_hh_l0"] + p["rnn.bias_hh_l0"], 3, -1)
            r, z = jax.nn.sigmoid(ri + rh), jax.nn.sigmoid(zi + zh)
            n = jnp.tanh(ni + r * nh)
            h = (1 - z) * n + z * h
            return h, h

        if kind == "LSTM":
            _, hs = jax.lax.scan(lstm, (zero, zero), h)
        else:
            _, hs = jax.lax.scan(gru, zero, h)
        return in_jax.cross_entropy(in_jax.dense(p, "head", hs), y.T)

    return value


NAMED = (GPT, recurrent("lstm", "LSTM", 65, 128, 64, 32))
MORE = (ENCODER, recurrent("gru", "GRU", 30, 48, 24, 16))
