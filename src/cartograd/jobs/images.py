"""Training on a folder of images, one subfolder a class."""

from __future__ import annotations

import os

from ..data import DataLoader, ShiftFlip, load_images
from ..functional import cross_entropy
from ..random import manual_seed
from .job import Job, Options
from .models import build_model

__all__ = ["prepare_images"]


def prepare_images(
    folder: str | os.PathLike[str],
    options: Options,
    size: int | None = None,
    flip: bool = True,
    strict: bool = False,
) -> Job:
    """A small residual network on the images of a folder, 70/15/15, moved and mirrored in training.

    Sizes and colours may be mixed; files that are no images are left out and named, or, with
    `strict`, refused.
    """
    data = load_images(
        folder, size=size, augment=ShiftFlip(flip=flip, shift=2), seed=options.seed, strict=strict
    )
    manual_seed(options.seed)
    spec = {
        "kind": "images",
        "channels": data.preprocessing.channels,
        "classes": len(data.preprocessing.classes),
    }
    skipped = [f"left out {name}: {why}" for name, why in data.files.skipped]
    return Job(
        kind="images",
        model=build_model(spec),
        spec=spec,
        inputs={"preprocessing": data.preprocessing.to_json()},
        loss=cross_entropy,
        metrics=["accuracy"],
        train=DataLoader(data.train, options.batch_size, shuffle=True, seed=options.seed),
        valid=DataLoader(data.valid, 128),
        test=DataLoader(data.test, 128),
        monitor="val_loss",
        options=options,
        baseline=data.baseline,
        notes=skipped,
    )
