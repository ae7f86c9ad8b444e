"""Augmentation: a small random change of each image, the same for (seed, epoch, index)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError, UsageError
from .collate import stack, to_numpy
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
        down, right, mirrored = generator.random(3).tolist()
        rows, columns = self._line(height, down), self._line(width, right)
        if self.flip and mirrored < 0.5:
            columns = columns[::-1]
        return image.take(rows, -2).take(columns, -1)

    def _line(self, length: int, draw: float) -> NDArray[np.int64]:
        """Where each row or column comes from; draw: uniform in [0, 1)."""
        start = int(draw * (2 * self.shift + 1)) - self.shift
        return np.minimum(np.maximum(np.arange(start, start + length), 0), length - 1)


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
        example = self.dataset[index]
        if isinstance(example, tuple):
            first, *rest = example  # pyright: ignore[reportUnknownVariableType]
            return (self._changed(first, index), *rest)
        return self._changed(example, index)

    def gather(self, indices: Sequence[int]) -> Any:
        """The examples at `indices`, gathered together and then changed one by one.

        >>> images = list(np.zeros((5, 8, 8)))
        >>> Augmented(images, ShiftFlip(shift=1)).gather([3]).shape
        (1, 8, 8)
        """
        if not isinstance(self.dataset, Dataset):
            return super().gather(indices)
        batch = self.dataset.gather(indices)
        if isinstance(batch, tuple):
            first, *rest = batch  # pyright: ignore[reportUnknownVariableType]
            return (self._all_changed(first, indices), *rest)
        return self._all_changed(batch, indices)

    def _changed(self, image: Any, index: int) -> Any:
        generator = stream(self.seed, Purpose.AUGMENT, self.epoch, index)
        return self.change(to_numpy(image), generator)

    def _all_changed(self, images: Any, indices: Sequence[int]) -> Any:
        return stack(
            [self._changed(image, int(i)) for image, i in zip(images, indices, strict=True)]
        )
