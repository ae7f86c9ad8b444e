"""A folder of images, one subfolder a class, as datasets to train, validate and test with."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, IndexOutOfRangeError, UsageError
from .augment import Augmented, ShiftFlip
from .datasets import Dataset
from .image_files import MAX_PIXELS, Fit, ImagePreprocessing, image_paths, is_grey, open_image
from .split import stratified_split

__all__ = ["ImageData", "ImageDataset", "ImageFiles", "load_images", "scan_images"]

_LARGEST_DEFAULT = 64  # pixels a side, unless asked for more
_SAMPLE = 1000  # images that mean and std are measured on


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """What a folder holds: image files with their labels, and what was left out and why.

    labels: int64 [files], an index into `classes`. grey: none has colour. sizes: how many images
    there are of each (width, height). skipped: (file, reason).

    >>> ImageFiles((), (), np.zeros(0, np.int64), True, {}, ()).classes
    ()
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    grey: bool
    sizes: dict[tuple[int, int], int]
    skipped: tuple[tuple[str, str], ...]


def scan_images(
    folder: str | os.PathLike[str], strict: bool = False, max_pixels: int = MAX_PIXELS
) -> ImageFiles:
    """Look through a folder with one subfolder a class, reading the header of each file.

    Hidden files and folders are passed over. Files that are not images are listed in `skipped`,
    or with `strict` raise DataError. Raises DataError for no folder, no images, or one class only.

    >>> import tempfile, PIL.Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("day", "night"):
    ...         Path(folder, name).mkdir()
    ...         PIL.Image.new("L", (8, 8)).save(Path(folder, name, "1.png"))
    ...     files = scan_images(folder)
    >>> files.classes, files.labels.tolist(), files.sizes
    (('day', 'night'), [0, 1], {(8, 8): 2})
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{str(root)!r} is not a folder")
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(
            f"{str(root)!r} has no subfolders: put the images of each class in a folder of its own"
        )
    classes: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    sizes: Counter[tuple[int, int]] = Counter()
    skipped: list[tuple[str, str]] = []
    grey = True
    for name in names:
        before = len(paths)
        for path in image_paths(root / name):
            try:
                with open_image(path, max_pixels) as image:
                    sizes[_turned(image)] += 1
                    grey = grey and is_grey(image)
            except DataError as error:
                skipped.append((str(path), str(error)))
                continue
            paths.append(path)
            labels.append(len(classes))
        if len(paths) > before:
            classes.append(name)
        else:
            skipped.append((str(root / name), f"the folder {name!r} has no images"))
    if strict:
        _refuse(skipped)
    _check_classes(root, classes, skipped)
    return ImageFiles(
        tuple(classes),
        tuple(paths),
        np.array(labels, np.int64),
        grey,
        dict(sizes),
        tuple(skipped),
    )


class ImageDataset(Dataset):
    """Image files read when asked for: example i is (float32 [channels, height, width], label).

    Fitted pixels are kept in memory once read, if those of all files take at most `cache_bytes`.
    A file that has become unreadable raises DataError with its name.

    >>> len(ImageDataset([], np.zeros(0, np.int64), ImagePreprocessing(8, 8, 1)))
    0
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        labels: NDArray[np.int64],
        preprocessing: ImagePreprocessing,
        cache_bytes: int = 1 << 28,
    ) -> None:
        if len(paths) != len(labels):
            raise UsageError(f"{len(paths)} image files have {len(labels)} labels")
        self.paths, self.labels = list(paths), np.asarray(labels, np.int64)
        self.preprocessing = preprocessing
        shape = (preprocessing.height, preprocessing.width, preprocessing.channels)
        kept = len(self.paths) if len(self.paths) * int(np.prod(shape)) <= cache_bytes else 0
        self._cache = np.zeros((kept, *shape), np.uint8)
        self._known = np.zeros(kept, np.bool_)

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """The fitted pixels of one image: uint8 [height, width, channels]."""
        if index < len(self._known) and self._known[index]:
            return self._cache[index]
        pixels = self.preprocessing.pixels(self.paths[index])
        if index < len(self._known):
            self._cache[index] = pixels
            self._known[index] = True
        return pixels

    def take_over(self, other: ImageDataset, rows: NDArray[np.int64]) -> None:
        """Copy the pixels that another dataset already has of this one's images.

        rows: where this dataset's images are in the other.
        """
        if len(self._known) and len(other._known):
            self._known[:] = other._known[rows]
            self._cache[:] = other._cache[rows]

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], np.int64]:
        if not -len(self) <= index < len(self):
            raise IndexOutOfRangeError(f"index {index} is outside the {len(self)} images")
        index = int(index) % len(self)
        return self.preprocessing.normalise(self.pixels(index)), self.labels[index]

    def gather(self, indices: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The images at `indices`, normalised together: float32 [n, channels, height, width]."""
        rows = np.asarray(indices, np.int64)
        pixels = np.stack([self.pixels(int(row)) for row in rows])
        return self.preprocessing.normalise(pixels), self.labels[rows]


@dataclass(frozen=True, slots=True)
class ImageData:
    """A folder of images made ready: three datasets and what it took to make them.

    train: with augmentation, if asked for; valid, test: without. baseline: the class that most
    training images have, and the share of the test images that it would get right.

    >>> sorted(ImageData.__dataclass_fields__)[0]
    'baseline'
    """

    train: Dataset
    valid: ImageDataset
    test: ImageDataset
    preprocessing: ImagePreprocessing
    files: ImageFiles
    baseline: dict[str, Any]


def load_images(
    folder: str | os.PathLike[str],
    size: int | tuple[int, int] | None = None,
    channels: Literal["auto", 1, 3] = "auto",
    fit: Fit = "crop",
    augment: ShiftFlip | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    strict: bool = False,
    verify: bool = True,
    cache_bytes: int = 1 << 28,
    max_pixels: int = MAX_PIXELS,
) -> ImageData:
    """Read a folder with one subfolder a class, and split it in proportion by class.

    size: (height, width) or one side; by default the images' own size if they have one in common
    of at most 64, else 64. channels "auto": grey if every image is. mean and std come from
    the training images. verify: read every file now (pixels stay in memory up to `cache_bytes`),
    so that a damaged one is reported before training, not in the middle of it.

    >>> import tempfile, PIL.Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, shade in (("day", 200), ("night", 20)):
    ...         Path(folder, name).mkdir()
    ...         for number in range(8):
    ...             image = PIL.Image.new("L", (8, 8), shade + number)
    ...             image.save(Path(folder, name, f"{number}.png"))
    ...     data = load_images(folder, augment=ShiftFlip(shift=1))
    >>> len(data.train), len(data.valid), len(data.test), data.train[0][0].shape
    (12, 2, 2, (1, 8, 8))
    """
    files = scan_images(folder, strict, max_pixels)
    height, width = _size(size, files)
    if channels not in ("auto", 1, 3):
        raise UsageError(f'channels must be "auto", 1 or 3, not {channels!r}')
    depth = (1 if files.grey else 3) if channels == "auto" else channels
    plain = ImagePreprocessing(
        height, width, depth, fit, (0.0,) * depth, (1.0,) * depth, files.classes, max_pixels
    )
    whole = ImageDataset(files.paths, files.labels, plain, cache_bytes)
    if verify:
        whole, files = _verified(whole, files, strict, Path(folder), cache_bytes)
    parts = stratified_split(files.labels, fractions, seed)
    for name, part in zip(("train", "valid", "test"), parts, strict=True):
        if not len(part):
            raise DataError(
                f"{len(files.paths)} images are too few: none is left for {name} of the split "
                f"{fractions}"
            )
    mean, std = _statistics(whole, parts[0])
    settings = replace(whole.preprocessing, mean=mean, std=std)
    train, valid, test = (_part(whole, part, settings, cache_bytes) for part in parts)
    common = int(np.bincount(train.labels).argmax())
    baseline = {
        "class": files.classes[common],
        "accuracy": float((test.labels == common).mean()),
    }
    changed = train if augment is None else Augmented(train, augment, seed)
    return ImageData(changed, valid, test, settings, files, baseline)


def _turned(image: Any) -> tuple[int, int]:
    """(width, height) once turned as the EXIF orientation says."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF data is no reason to refuse a good image
        orientation = 1
    width, height = image.size
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _refuse(skipped: Sequence[tuple[str, str]]) -> None:
    if skipped:
        lines = "\n".join(f"  {reason}" for _, reason in skipped[:20])
        more = f"\n  and {len(skipped) - 20} more" if len(skipped) > 20 else ""
        raise DataError(f"{len(skipped)} file(s) or folder(s) cannot be used:\n{lines}{more}")


def _check_classes(root: Path, classes: Sequence[str], skipped: Sequence[tuple[str, str]]) -> None:
    first = f" (the first of {len(skipped)} left out: {skipped[0][1]})" if skipped else ""
    if not classes:
        raise DataError(f"{str(root)!r} has no images in its subfolders{first}")
    if len(classes) == 1:
        raise DataError(
            f"{str(root)!r} has images of one class only, {classes[0]!r}: at least two are needed "
            f"to tell apart{first}"
        )


def _size(size: int | tuple[int, int] | None, files: ImageFiles) -> tuple[int, int]:
    if size is None:
        if len(files.sizes) == 1:
            ((width, height),) = files.sizes
            if max(width, height) <= _LARGEST_DEFAULT:
                return height, width
        return _LARGEST_DEFAULT, _LARGEST_DEFAULT
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _verified(
    whole: ImageDataset, files: ImageFiles, strict: bool, root: Path, cache_bytes: int
) -> tuple[ImageDataset, ImageFiles]:
    """Read every file; those that cannot be read are left out, with all that names them."""
    bad: list[tuple[str, str]] = []
    good: list[int] = []
    for index, path in enumerate(files.paths):
        try:
            whole.pixels(index)
            good.append(index)
        except DataError as error:
            bad.append((str(path), str(error)))
    if not bad:
        return whole, files
    if strict:
        _refuse(bad)
    rows = np.array(good, np.int64)
    labels = files.labels[rows]
    present = np.unique(labels)
    kept: list[int] = present.tolist()
    classes = tuple(files.classes[code] for code in kept)
    skipped = (*files.skipped, *bad)
    _check_classes(root, classes, skipped)
    left = replace(
        files,
        classes=classes,
        paths=tuple(files.paths[row] for row in good),
        labels=np.searchsorted(present, labels).astype(np.int64),
        skipped=skipped,
    )
    settings = replace(whole.preprocessing, classes=classes)
    smaller = _part(whole, rows, settings, cache_bytes)
    smaller.labels = left.labels
    return smaller, left


def _part(
    whole: ImageDataset, rows: NDArray[np.int64], settings: ImagePreprocessing, cache_bytes: int
) -> ImageDataset:
    """Some images of a dataset, with what is already known of their pixels."""
    chosen: list[int] = rows.tolist()
    paths = [whole.paths[row] for row in chosen]
    part = ImageDataset(paths, whole.labels[rows], settings, cache_bytes)
    part.take_over(whole, rows)
    return part


def _statistics(
    whole: ImageDataset, rows: NDArray[np.int64]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel, in [0, 1], of at most 1,000 images."""
    chosen = rows[:: max(1, -(-len(rows) // _SAMPLE))]
    depth = whole.preprocessing.channels
    total, squares, count = np.zeros(depth), np.zeros(depth), 0
    for row in chosen:
        pixels = whole.pixels(int(row)).reshape(-1, depth).astype(np.float64) / 255
        total += pixels.sum(0)
        squares += (pixels * pixels).sum(0)
        count += len(pixels)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean * mean, 0.0))
    std[std < 1e-3] = 1.0  # a channel that is all one shade
    return tuple(mean.tolist()), tuple(std.tolist())
