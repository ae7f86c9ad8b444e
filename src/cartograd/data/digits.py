"""The 8 x 8 handwritten digits that come with Cartograd (see digits.md for their source)."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileFormatError, UsageError
from .datasets import ArrayDataset
from .split import stratified_split

__all__ = ["Digits", "load_digits"]

_LARGEST = 16.0  # the grey level of full ink


@dataclass(frozen=True, slots=True)
class Digits:
    """Digits split for training and testing; each example is (image, label).

    image: float32 (1, 8, 8) in [0, 1]. label: int64, 0 to 9. `train_indices` and `test_indices`
    are rows of the 1,797 images as they were published.

    >>> load_digits().classes[:3]
    ('0', '1', '2')
    """

    train: ArrayDataset
    test: ArrayDataset
    train_indices: NDArray[np.int64]
    test_indices: NDArray[np.int64]
    classes: tuple[str, ...] = tuple("0123456789")


def load_digits(test_fraction: float = 0.2, seed: int = 0) -> Digits:
    """The digits, split in proportion by label: the same split for the same seed and fraction.

    >>> digits = load_digits()
    >>> len(digits.train), len(digits.test), digits.train[0][0].shape
    (1438, 359, (1, 8, 8))
    """
    if not 0 <= test_fraction < 1:
        raise UsageError(f"test_fraction must be in [0, 1), but {test_fraction!r} was given")
    images, labels = _read()
    tests = round(len(labels) * test_fraction)
    train, test = stratified_split(labels, [len(labels) - tests, tests], seed)
    scaled = (images.astype(np.float32) / np.float32(_LARGEST))[:, None]
    codes = labels.astype(np.int64)
    return Digits(
        ArrayDataset(scaled[train], codes[train]),
        ArrayDataset(scaled[test], codes[test]),
        train,
        test,
    )


def _read() -> tuple[NDArray[Any], NDArray[Any]]:
    source = resources.files(__package__ or "cartograd.data") / "digits.npz"
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FileFormatError(
            f"the digits in Cartograd's package cannot be read ({error}): install it again"
        ) from error
    if images.shape != (1797, 8, 8) or labels.shape != (1797,):
        raise FileFormatError(
            f"the digits in Cartograd's package have shapes {images.shape} and {labels.shape}, "
            "not (1797, 8, 8) and (1797,): install it again"
        )
    return images, labels
