"""Augmentation: a small random change of each image, the same for (seed, epoch, index)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError, UsageError
from .collate import to_numpy
from .datasets import Dataset, tell_epoch
from .seeding import Purpose, check_epoch, check_seed, stream

__all__ = ["Augmented", "ShiftFlip"]


@dataclass(frozen=True, slots=True)
class ShiftFlip:
    """Shift an image by up to `shift` pixels each way, repeating its edge, and perhaps mirror it.

    Images: [channels, height, width] or [height, width], any dtype; the size stays. With `flip`,
    half of the images are mirrored: right for photographs, wrong for digits and letters.

    >>> import numpy as np
    >>> image = np.arange(9.0).reshape(1, 3, 3)
    >>> ShiftFlip(shift=1)(image, np.random.default_rng(0)).shape
    (1, 3, 3)
    """

    flip: bool = False
    shift: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.shift, bool) or operator.index(self.shift) < 0:
            raise UsageError(f"shift must be whole pixels of at least 0, but got {self.shift!r}")

    def __call__(self, image: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        if image.ndim not in (2, 3):
            raise ShapeError(f"ShiftFlip takes images with 2 or 3 axes, not shape {image.shape}")
        size: tuple[int, ...] = image.shape[-2:]
        height, width = size
        moves: list[int] = generator.integers(-self.shift, self.shift + 1, 2).tolist()
        down, right = moves
        mirrored = self.flip and generator.random() < 0.5
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        if mirrored:
            columns = columns[::-1]
        return image[..., rows[:, None], columns]


class Augmented(Dataset):
    """A dataset whose examples' first part goes through `change(part, generator)`.

    The generator is that of (seed, epoch, index): the same change whichever process reads the
    example and in whatever order. Examples are (image, ...) tuples, or images alone.

    >>> import numpy as np
    >>> from cartograd.data import ArrayDataset
    >>> data = Augmented(ArrayDataset(np.zeros((5, 1, 8, 8)), np.arange(5)), ShiftFlip(shift=1))
    >>> data[3][1]
    np.int64(3)
    """

    def __init__(
        self,
        dataset: Any,
        change: Callable[[NDArray[Any], np.random.Generator], Any],
        seed: int = 0,
    ) -> None:
        self.dataset, self.change = dataset, change
        self.seed, self.epoch = check_seed(seed), 0

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose changes are drawn, here and in the dataset."""
        self.epoch = check_epoch(epoch)
        tell_epoch(self.dataset, epoch)

    def __getitem__(self, index: int) -> Any:
        index = operator.index(index)
        if index < 0:
            index += len(self)
        generator = stream(self.seed, Purpose.AUGMENT, self.epoch, index)
        example = self.dataset[index]
        if isinstance(example, tuple):
            first, *rest = example  # pyright: ignore[reportUnknownVariableType]
            return (self.change(to_numpy(first), generator), *rest)
        return self.change(to_numpy(example), generator)
