"""Image files: opened safely, and made arrays of one size in one way (needs pillow)."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, FileFormatError, UsageError
from .extras import pillow
from .fields import Fields

__all__ = ["MAX_PIXELS", "ImagePreprocessing", "open_image"]

MAX_PIXELS = 64_000_000
"""Images of more pixels are refused: a small file can unpack into all of the memory."""

Fit = Literal["crop", "stretch", "pad"]

_FITS = ("crop", "stretch", "pad")
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # nothing that runs a program
_GREY = frozenset({"1", "L", "I", "I;16", "I;16L", "I;16B", "I;16N"})
_LARGEST_SIDE = 4096
_VERSION = 1


def open_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Any:
    """A Pillow image whose header has been read, of a format and size that are accepted.

    Raises DataError, naming the file, for what is not a file, not an image of a known format, of
    no or too many pixels, or not to be read.

    >>> try:
    ...     open_image("/")
    ... except ValueError as error:
    ...     print(error)
    '/' is not a file
    """
    images, _ = pillow()
    name = str(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{name!r} is not a file")
        image = images.open(path, formats=_FORMATS)
    except images.UnidentifiedImageError:
        raise DataError(
            f"{name!r} is not an image that can be read: the formats are {', '.join(_FORMATS)}"
        ) from None
    except (images.DecompressionBombError, images.DecompressionBombWarning) as error:
        raise DataError(f"{name!r} has too many pixels: {error}") from error
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {name!r}: {error.strerror or error}") from error
    except Exception as error:  # decoders fail in many ways on damaged headers
        raise DataError(f"{name!r} is a damaged image: {error}") from error
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        image.close()
        raise DataError(
            f"{name!r} has {width} x {height} pixels: images may have from 1 to {max_pixels}"
        )
    return image


def is_grey(image: Any) -> bool:
    """Whether an image has no colour, judged by its mode."""
    return image.mode in _GREY or image.mode in ("LA", "La")


@dataclass(frozen=True, slots=True)
class ImagePreprocessing:
    """How an image file becomes an array: kept as JSON, so that predicting does the same.

    Turned as its EXIF orientation says; transparency on white; grey (channels 1) or RGB (3);
    fitted into height x width by `fit`: "crop" fills it and cuts the rest off evenly, "stretch"
    changes the proportions, "pad" shows all with black bars. Then (pixel / 255 - mean) / std by
    channel.

    >>> settings = ImagePreprocessing(8, 8, 1, "crop", (0.5,), (0.25,), ("cat", "dog"))
    >>> ImagePreprocessing.from_json(settings.to_json()) == settings
    True
    """

    height: int
    width: int
    channels: int
    fit: Fit = "crop"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    classes: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if not 1 <= side <= _LARGEST_SIDE:
                raise UsageError(f"{name} must be from 1 to {_LARGEST_SIDE} pixels, not {side}")
        if self.channels not in (1, 3):
            raise UsageError(f"channels must be 1 (grey) or 3 (RGB), not {self.channels!r}")
        if self.fit not in _FITS:
            raise UsageError(f"fit must be one of {', '.join(_FITS)}, not {self.fit!r}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise UsageError(
                f"mean and std need {self.channels} number(s), but have {len(self.mean)} and "
                f"{len(self.std)}"
            )

    def pixels(self, path: str | os.PathLike[str]) -> NDArray[np.uint8]:
        """The image of a file, fitted: uint8 [height, width, channels]. Raises DataError."""
        images, operations = pillow()
        with open_image(path, self.max_pixels) as image:
            try:
                image = _flat(operations.exif_transpose(image), images)
                image = image.convert("L" if self.channels == 1 else "RGB")
            except Exception as error:  # decoders fail in many ways on damaged data
                raise DataError(f"{str(path)!r} is damaged or half written: {error}") from error
        size, how = (self.width, self.height), images.Resampling.BILINEAR
        if image.size != size:
            if self.fit == "crop":
                image = operations.fit(image, size, how)
            elif self.fit == "pad":
                image = operations.pad(image, size, how)
            else:
                image = image.resize(size, how)
        return np.array(image, np.uint8).reshape(self.height, self.width, self.channels)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [..., height, width, channels] to float32 [..., channels, height, width].

        >>> ImagePreprocessing(1, 1, 1).normalise(np.full((1, 1, 1), 255, np.uint8)).tolist()
        [[[1.0]]]
        """
        scaled = pixels.astype(np.float32) / np.float32(255)
        scaled = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))

    def __call__(self, path: str | os.PathLike[str]) -> NDArray[np.float32]:
        """The array of an image file: float32 [channels, height, width]."""
        return self.normalise(self.pixels(path))

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON data.

        >>> ImagePreprocessing(8, 8, 1).to_json()["fit"]
        'crop'
        """
        return {
            "format": "cartograd.images",
            "version": _VERSION,
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "fit": self.fit,
            "mean": list(self.mean),
            "std": list(self.std),
            "classes": list(self.classes),
            "max_pixels": self.max_pixels,
        }

    @classmethod
    def from_json(cls, data: Any) -> ImagePreprocessing:
        """The settings from JSON data; FileFormatError says which field is wrong.

        >>> ImagePreprocessing.from_json(ImagePreprocessing(8, 8, 1).to_json()).height
        8
        """
        fields = Fields(data, "the image settings")
        fields.header("cartograd.images", _VERSION)
        channels = fields.integer("channels", 1, 3)
        fit: Any = fields.choice("fit", _FITS)
        try:
            return cls(
                fields.integer("height", 1, _LARGEST_SIDE),
                fields.integer("width", 1, _LARGEST_SIDE),
                channels,
                fit,
                fields.numbers("mean", channels),
                fields.numbers("std", channels, positive=True),
                fields.texts("classes"),
                fields.integer("max_pixels", 1, 1 << 40),
            )
        except UsageError as error:
            raise FileFormatError(f"the image settings: {error}") from error


def _flat(image: Any, images: Any) -> Any:
    """An image in 8 bits a channel with nothing transparent left."""
    if image.mode == "F":
        raise ValueError("pixels of floating point are not supported")
    if image.mode in _GREY and image.mode not in ("1", "L"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ValueError("grey levels outside 16 bits are not supported")
        return images.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        above = image.convert("RGBA")
        white = images.new("RGBA", above.size, (255, 255, 255, 255))
        return images.alpha_composite(white, above)
    return image


def image_paths(folder: Path) -> list[Path]:
    """The visible files under a folder, in a fixed order; linked folders are not entered."""
    found: list[tuple[str, Path]] = []
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower() not in ("thumbs.db", "desktop.ini"):
                path = Path(place, name)
                found.append((path.relative_to(folder).as_posix(), path))
    return [path for _, path in sorted(found)]
