"""Training on a folder of images, one subfolder a class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

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

    Sizes and colours may be mixed: `size` is the side in pixels that all are fitted into (default:
    their own, where they have one in common of at most 64; else 64). `flip` mirrors half of them
    in training. Files that are no images are left out and named, or, with `strict`, refused.
    Raises DataError for a folder that cannot be learned from.

    >>> prepare_images("no such folder", Options(1, 8, 1e-3))
    Traceback (most recent call last):
    cartograd.errors.DataError: 'no such folder' is not a folder
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
    skipped = [f"left out: {why}" for _, why in data.files.skipped]
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
        settings={"size": size, "flip": flip, "strict": strict},
        data={
            "folder": str(Path(folder).resolve()),
            "images": len(data.files.paths),
            "sha256": _digest(Path(folder), data.files.paths),
        },
        baseline=data.baseline,
        notes=skipped,
    )


def _digest(folder: Path, paths: Sequence[Path]) -> str:
    """A SHA-256 of the names and sizes of the images."""
    digest = hashlib.sha256()
    for path in paths:
        name = os.fsencode(path.relative_to(folder).as_posix())
        digest.update(b"%d %s\0%d\n" % (len(name), name, path.stat().st_size))
    return digest.hexdigest()
