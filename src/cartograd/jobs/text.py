"""Training a byte-level GPT on text, and writing on in its style."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import nn
from ..compiler import compile as compile_function
from ..data import DataLoader, Subset, load_text
from ..errors import FileFormatError, UsageError
from ..functional import cross_entropy
from ..namespace.creation import asarray
from ..namespace.indexing import take
from ..random import Generator, categorical, manual_seed
from ..tensor import Tensor, no_grad
from ..train import BitsPerByte
from .job import Job, Options
from .models import GPT, build_model

__all__ = ["next_byte_loss", "prepare_text", "sample"]


def next_byte_loss(scores: Tensor, target: Tensor) -> Tensor:
    """The mean cross-entropy of the next byte, in nats: scores [b, t, 256], target int64 [b, t].

    >>> import cartograd as cg
    >>> round(next_byte_loss(cg.zeros((1, 2, 256)), cg.asarray([[3, 4]])).item(), 4)
    5.5452
    """
    return cross_entropy(scores.reshape(-1, scores.shape[-1]), target.reshape(-1))


def prepare_text(
    files: Sequence[str | os.PathLike[str]] | None,
    options: Options,
    steps: int = 100,
    context: int = 64,
    layers: int = 4,
    width: int = 128,
    heads: int = 4,
) -> Job:
    """A GPT on the bytes of files, or of the Python standard library's sources.

    An epoch is `steps` batches of random windows; the last tenth of the bytes is held out, and its
    bits per byte are the result, beside those of the bytes' plain frequencies. layers, width and
    heads are the model's. Raises DataError for a file that cannot be read or text that is too
    short, UsageError for a width that the heads do not divide.

    >>> prepare_text(["no such file"], Options(1, 8, 1e-3))
    Traceback (most recent call last):
    cartograd.errors.DataError: cannot read 'no such file': No such file or directory
    """
    if width % heads:
        raise UsageError(f"the width {width} is not a multiple of the heads, {heads}")
    text = load_text(
        list(files) if files else None,
        context=context,
        length=steps * options.batch_size,
        seed=options.seed,
    )
    manual_seed(options.seed)
    spec = {
        "kind": "text",
        "context": context,
        "width": width,
        "layers": layers,
        "heads": heads,
    }
    held_out = _some(text.valid, 256)
    digest = hashlib.sha256()
    for part in (text.train.data, text.valid.data):
        digest.update(memoryview(part))  # type: ignore[reportArgumentType]

    def finish(model: nn.Module) -> Mapping[str, Any]:
        start = bytes(text.valid.data[:context].tobytes())
        written = sample(model, start, 200, seed=options.seed, eager=options.eager)
        return {"sample": written.decode("utf-8", "replace")}

    return Job(
        kind="text",
        model=build_model(spec),
        spec=spec,
        inputs={"context": context},
        loss=next_byte_loss,
        metrics=[BitsPerByte()],
        train=DataLoader(text.train, options.batch_size, seed=options.seed),
        valid=DataLoader(held_out, 64),
        test=DataLoader(held_out, 64),
        monitor="val_loss",
        options=options,
        settings={
            "steps": steps,
            "context": context,
            "layers": layers,
            "width": width,
            "heads": heads,
        },
        data={
            "files": [os.path.abspath(name) for name in files] if files else "standard library",
            "bytes": text.total,
            "sha256": digest.hexdigest(),
        },
        baseline={"bits_per_byte": _entropy(text.train.data, text.valid.data)},
        finish=finish,
    )


def _some(windows: Any, count: int) -> Subset:
    """`count` windows spread evenly over a dataset."""
    step = max(1, len(windows) // count)
    return Subset(windows, list(range(0, len(windows), step))[:count])


def _entropy(train: Any, held_out: Any) -> float:
    """Bits per byte of the naive model: how often each byte occurs in the training part."""
    counts = np.bincount(train, minlength=256).astype(np.float64) + 1.0
    return float(-np.log2(counts / counts.sum())[held_out].mean())


def sample(
    model: nn.Module,
    prompt: bytes,
    count: int,
    temperature: float = 0.8,
    seed: int = 0,
    *,
    eager: bool = False,
) -> bytes:
    """`count` bytes that a GPT writes after a prompt, drawn at a temperature (0: the likeliest).

    Compiled, it looks at the whole context each time, with what is not written yet left blank; it
    looks back only, so that makes no difference. `eager` runs it op by op.

    >>> net = GPT(context=8, width=8, layers=1, heads=2)
    >>> len(sample(net, b"to be", count=3))
    3
    """
    if not isinstance(model, GPT):
        raise FileFormatError(f"a {type(model).__name__} does not write text")
    generator = Generator(seed)
    model.eval()
    context = model.context
    written = list(prompt[-context:]) or [10]

    def draw(window: Tensor, last: Tensor) -> Tensor:
        scores = take(model(window)[0], last, axis=0)[0]
        if temperature > 0:
            return categorical(scores / temperature, generator=generator)
        return scores.argmax()

    step = draw if eager else compile_function(draw)
    start = len(written)
    with no_grad():
        for _ in range(count):
            known = written[-context:]
            blank = [] if eager else [0] * (context - len(known))
            window = asarray(np.asarray([known + blank], np.int64))
            written.append(int(step(window, asarray(np.asarray([len(known) - 1]))).item()))
    return bytes(written[start:])
