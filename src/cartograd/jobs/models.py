"""The models of the jobs, each built from a few plain numbers, so that a run can rebuild it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from .. import nn
from ..errors import FileFormatError, UsageError
from ..functional import gelu, scaled_dot_product_attention
from ..namespace.creation import arange
from ..namespace.reductions import mean
from ..namespace.shaping import concat
from ..tensor import Tensor

__all__ = ["GPT", "ImageNet", "TableNet", "build_model", "digits_net", "weigh_model"]


def digits_net(width: int = 32, classes: int = 10) -> nn.Module:
    """A small convolutional network for 8x8 images: [batch, 1, 8, 8] to [batch, classes].

    >>> import cartograd as cg
    >>> digits_net()(cg.zeros((2, 1, 8, 8))).shape
    (2, 10)
    """
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(width * 16, 64),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(64, classes),
    )


class TableNet(nn.Module):
    """Numbers and embedded categories through an MLP: to one number or to a score for each class.

    Takes {"numbers": [batch, width], "categories": int64 [batch, columns]}; `sizes` are those of
    the columns' vocabularies.

    >>> import cartograd as cg
    >>> net = TableNet(2, [3], outputs=1)
    >>> rows = {"numbers": cg.zeros((4, 2)), "categories": cg.zeros((4, 1), dtype=cg.int64)}
    >>> net(rows).shape
    (4,)
    """

    def __init__(self, width: int, sizes: list[int], outputs: int, hidden: int = 128) -> None:
        super().__init__()
        dims = [min(32, (size + 1) // 2 + 1) for size in sizes]
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, dim) for size, dim in zip(sizes, dims, strict=True)
        )
        self.norm = nn.LayerNorm(hidden)
        self.first = nn.Linear(width + sum(dims), hidden)
        self.second = nn.Linear(hidden, hidden)
        self.drop = nn.Dropout(0.1)
        self.last = nn.Linear(hidden, outputs)
        self.outputs = outputs

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """[batch, outputs] scores, or [batch] numbers when there is one output."""
        numbers, categories = inputs["numbers"], inputs["categories"]
        parts = [numbers]
        parts += [table(categories[:, k]) for k, table in enumerate(self.embeddings)]
        x = concat(parts, axis=1) if len(parts) > 1 else numbers
        x = self.drop(gelu(self.norm(self.first(x))))
        y = self.last(x + gelu(self.second(x)))
        return y[:, 0] if self.outputs == 1 else y


class ImageNet(nn.Module):
    """A small residual network of 3x3 convolutions with group norm: images to a score a class.

    Each stage after the first has half the side and twice the width. Source of the shape: He et
    al. 2016, pre-activation residual blocks, with fewer of them.

    >>> import cartograd as cg
    >>> ImageNet(channels=3, classes=2, width=4)(cg.zeros((1, 3, 8, 8))).shape
    (1, 2)
    """

    def __init__(self, channels: int, classes: int, width: int = 24, stages: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        blocks: list[nn.Module] = []
        for k in range(stages):
            inside, outside = width << k, width << min(k + 1, stages - 1)
            blocks.append(_Residual(inside))
            if k + 1 < stages:
                blocks.append(nn.Conv2d(inside, outside, 3, stride=2, padding=1))
        self.blocks = nn.Sequential(*blocks)
        last = width << (stages - 1)
        self.norm = nn.GroupNorm(4, last)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to [batch, classes]."""
        x = self.norm(self.blocks(self.stem(x))).relu()
        return self.head(self.drop(mean(x, axis=(2, 3))))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, width), nn.GroupNorm(4, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.norm1(x).relu())
        return x + self.conv2(self.norm2(y).relu())


class GPT(nn.Module):
    """A decoder-only transformer over bytes: int64 [batch, time] to scores [batch, time, 256].

    Pre-norm blocks of causal self-attention and a GELU MLP of four times the width; learned
    positions. Source of the shape: GPT-2 (Radford et al. 2019), smaller.

    >>> import cartograd as cg
    >>> GPT(context=8, width=8, layers=1, heads=2)(cg.zeros((1, 8), dtype=cg.int64)).shape
    (1, 8, 256)
    """

    def __init__(
        self,
        vocabulary: int = 256,
        context: int = 64,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"the width {width} is not a multiple of the heads, {heads}")
        self.context = context
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                nn.init.normal_(parameter, 0.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the next byte at each position."""
        h = self.tokens(x) + self.positions(arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(batch, time, 3, self.heads, width // self.heads)
        q, k, v = parts.permute_dims((2, 0, 3, 1, 4)).unstack()
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(mixed.permute_dims((0, 2, 1, 3)).reshape(batch, time, width))
        return x + self.down(gelu(self.up(self.norm2(x)), approximate="tanh"))


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "digits": digits_net,
    "table": TableNet,
    "images": ImageNet,
    "text": GPT,
}
_LARGEST = 1 << 20  # of any one number in a spec


def build_model(spec: Mapping[str, Any]) -> nn.Module:
    """The model that a spec describes: {"kind": ..., and the arguments of its builder}.

    Raises FileFormatError for a spec that describes none, as a damaged config.json may have.

    >>> build_model({"kind": "digits", "width": 4}).state_dict()["0.weight"].shape
    (4, 1, 3, 3)
    """
    _check_spec(spec)
    options = {name: value for name, value in spec.items() if name != "kind"}
    try:
        return BUILDERS[spec["kind"]](**options)
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise FileFormatError(f"the run's model cannot be built: {error}") from None


def _check_spec(spec: Mapping[str, Any]) -> None:
    kind = spec.get("kind")
    if kind not in BUILDERS:
        raise FileFormatError(
            f"the run's model is of kind {kind!r}, not one of {', '.join(BUILDERS)}"
        )
    for name, value in spec.items():
        if name == "kind":
            continue
        least = 0 if (kind, name) == ("table", "width") else 1  # a table of categories only
        numbers = cast("list[Any]", value) if isinstance(value, list) else [value]
        if not all(type(n) is int and least <= n <= _LARGEST for n in numbers):
            raise FileFormatError(f"the run's model cannot be built: {name} is {value!r:.60}")


def weigh_model(spec: Mapping[str, Any]) -> int:
    """About how many parameters a spec's model has, told without building it.

    >>> weigh_model({"kind": "digits", "width": 32})
    42912
    """
    _check_spec(spec)
    get = dict(spec).get
    match spec.get("kind"):
        case "digits":
            w: Any = get("width", 32)
            return 9 * w + 9 * w * w + 16 * w * 64 + 640
        case "table":
            sizes: Any = get("sizes", [])
            numbers, outputs, hidden = (int(get(n, 128)) for n in ("width", "outputs", "hidden"))
            dims = [min(32, (size + 1) // 2 + 1) for size in sizes]
            tables = sum(size * dim for size, dim in zip(sizes, dims, strict=True))
            return tables + hidden * (numbers + sum(dims) + hidden + outputs)
        case "images":
            channels, classes = (int(get(n, 1)) for n in ("channels", "classes"))
            w, stages = int(get("width", 24)), int(get("stages", 3))
            if stages > 16:
                return 1 << 62
            widths = [w << k for k in range(stages)]
            return 9 * channels * w + sum(18 * n * n for n in widths) + widths[-1] * classes
        case _:
            vocabulary, context = int(get("vocabulary", 256)), int(get("context", 64))
            width, layers = int(get("width", 128)), int(get("layers", 4))
            return width * (2 * vocabulary + context) + 12 * layers * width * width
