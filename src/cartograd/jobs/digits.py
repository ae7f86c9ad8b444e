"""The first job: the 1,797 handwritten digits of 8x8 pixels that come with the package."""

from __future__ import annotations

import hashlib

from ..data import DataLoader, load_digits, random_split
from ..functional import cross_entropy
from ..random import manual_seed
from .job import Job, Options, majority_baseline
from .models import build_model

__all__ = ["prepare_digits"]


def prepare_digits(options: Options) -> Job:
    """A small convolutional network on the digits, 80 % to train on and 20 % to test.

    A tenth of the training images tell which epoch's (averaged) weights are the best.

    >>> job = prepare_digits(Options(epochs=1, batch_size=64, lr=1e-3))
    >>> job.kind, job.monitor
    ('digits', 'val_loss')
    """
    digits = load_digits(seed=options.seed)
    train, valid = random_split(digits.train, [0.9, 0.1], seed=options.seed)
    manual_seed(options.seed)
    spec = {"kind": "digits", "width": 32}
    digest = hashlib.sha256()
    for part in (*digits.train.arrays, *digits.test.arrays):
        digest.update(part.tobytes())
    return Job(
        kind="digits",
        model=build_model(spec),
        spec=spec,
        inputs={"classes": list(digits.classes)},
        loss=cross_entropy,
        metrics=["accuracy"],
        train=DataLoader(train, options.batch_size, shuffle=True, seed=options.seed),
        valid=DataLoader(valid, 256),
        test=DataLoader(digits.test, 256),
        monitor="val_loss",
        options=options,
        data={"source": "the digits of the package", "sha256": digest.hexdigest()},
        ema=0.98,
        baseline=majority_baseline(digits.train.arrays[1], digits.test.arrays[1], digits.classes),
    )
