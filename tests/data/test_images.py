"""Folders of images: what is read, how it is fitted, and what is reported."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from cartograd.data import (
    ArrayDataset,
    Augmented,
    DataLoader,
    ImagePreprocessing,
    ShiftFlip,
    load_images,
    scan_images,
)
from cartograd.data.image_files import open_image
from cartograd.data.seeding import Purpose, stream
from cartograd.errors import DataError, FileFormatError, ShapeError, UsageError

Pixels = np.ndarray[Any, Any]


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def save(path: Path, pixels: Pixels, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 10 grey 6 x 8 images."""
    for number in range(20):
        save(tmp_path / "ab"[number % 2] / f"{number}.png", picture(6, 8, 1, number))
    return tmp_path


def test_a_folder_becomes_three_datasets(folder: Path) -> None:
    data = load_images(folder)
    assert data.files.classes == data.preprocessing.classes == ("a", "b")
    assert [len(part) for part in (data.train, data.valid, data.test)] == [14, 3, 3]
    settings = data.preprocessing
    assert (settings.height, settings.width, settings.channels) == (6, 8, 1)
    image, label = data.test[1]
    path = Path(data.test.paths[1])
    expected = np.asarray(PIL.Image.open(path), np.float64)[None] / 255
    expected = (expected - settings.mean[0]) / settings.std[0]
    np.testing.assert_allclose(image, expected, rtol=1e-5, atol=1e-6)
    assert image.dtype == np.float32
    assert label == "ab".index(path.parent.name)
    assert data.baseline["accuracy"] in (1 / 3, 2 / 3)


def test_mean_and_std_are_those_of_the_training_images(folder: Path) -> None:
    data = load_images(folder)
    train = [np.asarray(PIL.Image.open(path)) / 255 for path in data.train.paths]  # type: ignore[attr-defined]
    np.testing.assert_allclose(data.preprocessing.mean, [np.mean(train)], rtol=1e-12)
    np.testing.assert_allclose(data.preprocessing.std, [np.std(train)], rtol=1e-9)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_the_cache_changes_nothing(folder: Path, verify: bool, cache_bytes: int) -> None:
    plain = load_images(folder)
    other = load_images(folder, verify=verify, cache_bytes=cache_bytes)
    for one, two in ((plain.train, other.train), (plain.test, other.test)):
        for index in range(len(one)):
            np.testing.assert_array_equal(one[index][0], two[index][0])
    images, labels = other.train.gather([3, 1])
    np.testing.assert_array_equal(images[0], plain.train[3][0])
    assert labels.dtype == np.int64


def test_prediction_prepares_a_file_as_training_did(folder: Path) -> None:
    data = load_images(folder, size=5, fit="pad")
    settings = ImagePreprocessing.from_json(json.loads(json.dumps(data.preprocessing.to_json())))
    assert settings == data.preprocessing
    np.testing.assert_array_equal(settings(data.test.paths[0]), data.test[0][0])


def test_every_usual_format_and_mode_is_read(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    expected = grey[..., None]
    settings = ImagePreprocessing(8, 8, 1)
    for ending in ("png", "bmp", "gif", "tiff", "pgm", "webp"):
        options = {"lossless": True} if ending == "webp" else {}
        path = save(tmp_path / f"a.{ending}", grey, **options)
        tolerance = 1 if ending == "webp" else 0  # it stores colour only
        np.testing.assert_allclose(settings.pixels(path), expected, atol=tolerance)
    path = save(tmp_path / "a.jpg", np.full((8, 8), 100, np.uint8))
    np.testing.assert_allclose(settings.pixels(path), 100, atol=1)
    wide = save(tmp_path / "16.png", (grey.astype(np.uint16) * 257))
    np.testing.assert_array_equal(settings.pixels(wide), expected)
    black_white = PIL.Image.fromarray(grey > 100)
    black_white.save(tmp_path / "1.png")
    np.testing.assert_array_equal(
        settings.pixels(tmp_path / "1.png")[..., 0], np.where(grey > 100, 255, 0)
    )
    colours = picture(8, 8)
    palette = PIL.Image.fromarray(colours).quantize(256)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(
        ImagePreprocessing(8, 8, 3, mean=(0.0,) * 3, std=(1.0,) * 3).pixels(tmp_path / "p.png"),
        np.asarray(palette.convert("RGB")),
    )


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    pixels[0, 1] = (10, 20, 30, 0)
    path = save(tmp_path / "a.png", pixels)
    settings = ImagePreprocessing(2, 2, 3, mean=(0.0,) * 3, std=(1.0,) * 3)
    shown = settings.pixels(path)
    assert shown[0, 0].tolist() == [10, 20, 30]
    assert shown[0, 1].tolist() == shown[1, 1].tolist() == [255, 255, 255]


def test_exif_orientation_is_obeyed(tmp_path: Path) -> None:
    pixels = picture(4, 6, 1)
    # What each value of the tag means (CIPA DC-008, 4.6.4): where row 0 and column 0 are shown.
    shown = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: pixels.T[:, ::-1],
        7: pixels.T[::-1, ::-1],
        8: pixels.T[::-1],
    }
    for orientation, expected in shown.items():
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        path = save(tmp_path / f"{orientation}" / "a.png", pixels, exif=exif)
        height, width = expected.shape
        np.testing.assert_array_equal(
            ImagePreprocessing(height, width, 1).pixels(path)[..., 0], expected
        )
    assert scan_images(tmp_path).sizes == {(6, 4): 4, (4, 6): 4}


def test_fits_crop_stretch_and_pad(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, :2], pixels[:, 2:6], pixels[:, 6:] = 50, 100, 200
    path = save(tmp_path / "a.png", pixels)
    crop, pad, stretch = (
        ImagePreprocessing(4, 4, 1, fit).pixels(path)[..., 0]
        for fit in ("crop", "pad", "stretch")  # type: ignore[arg-type]
    )
    np.testing.assert_array_equal(crop, np.full((4, 4), 100))
    assert pad[0].tolist() == pad[3].tolist() == [0, 0, 0, 0]
    assert pad[1, 0] < 100 < pad[1, 3]
    assert stretch[0, 0] < 100 < stretch[3, 3]


def test_sizes_and_channels_are_found(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", picture(100, 120))
    save(tmp_path / "a" / "2.png", picture(30, 20, 1))
    for number in range(6):
        save(tmp_path / "b" / f"{number}.png", picture(10, 10, 1))
    data = load_images(tmp_path, fractions=(0.6, 0.2, 0.2))
    assert (data.preprocessing.height, data.preprocessing.width) == (64, 64)
    assert data.preprocessing.channels == 3
    other = load_images(tmp_path, size=(7, 9), channels=1, fractions=(0.6, 0.2, 0.2))
    assert other.train[0][0].shape == (1, 7, 9)


def test_what_is_not_an_image_is_reported_and_refused_if_strict(folder: Path) -> None:
    (folder / "a" / "notes.txt").write_text("not an image")
    (folder / "a" / ".hidden").write_text("passed over")
    (folder / "b" / "Thumbs.db").write_text("passed over")
    (folder / ".git").mkdir()
    (folder / "empty").mkdir()
    (folder / "b" / "zero.png").write_bytes(b"")
    (folder / "b" / "vector.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(folder / "b" / "pipe.png")
    os.symlink("nowhere", folder / "b" / "broken link.png")
    half = (folder / "b" / "1.png").read_bytes()
    (folder / "b" / "half.png").write_bytes(half[: len(half) // 2])
    data = load_images(folder)
    assert [Path(name).name for name, _ in data.files.skipped] == [
        *("notes.txt", "broken link.png", "pipe.png", "vector.eps", "zero.png"),
        *("empty", "half.png"),
    ]
    reasons = {Path(name).name: reason for name, reason in data.files.skipped}
    assert "not an image that can be read" in reasons["notes.txt"]
    assert "not a file" in reasons["pipe.png"]
    assert "damaged or half written" in reasons["half.png"]
    assert len(data.files.paths) == 20
    with pytest.raises(DataError, match=r"6 file\(s\).*(?s:.*)notes\.txt"):
        load_images(folder, strict=True)


def test_only_the_reading_shows_some_damage(folder: Path) -> None:
    path = folder / "b" / "1.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(DataError, match="half written"):
        load_images(folder, strict=True)
    assert len(scan_images(folder, strict=True).paths) == 20

    def read_lazily() -> None:
        data = load_images(folder, verify=False, cache_bytes=0)
        for part in (data.train, data.valid, data.test):
            for index in range(len(part)):
                part[index]

    with pytest.raises(DataError, match="half written"):
        read_lazily()


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_truncated_file_is_read_whole_or_refused(cut: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture(6, 8, 1))
    whole, settings = path.read_bytes(), ImagePreprocessing(6, 8, 1)
    expected = settings.pixels(path)
    path.write_bytes(whole[: max(len(whole) - 1 - cut, 0)])
    refused = None
    try:
        np.testing.assert_array_equal(settings.pixels(path), expected)
    except DataError as error:
        refused = str(error)
    assert refused is None or "a.png" in refused


def test_a_decompression_bomb_is_refused_by_its_header(folder: Path) -> None:
    bomb = io.BytesIO()
    PIL.Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    (folder / "a" / "bomb.png").write_bytes(bomb.getvalue())
    assert len(bomb.getvalue()) < 1_000_000
    data = load_images(folder)
    ((name, reason),) = data.files.skipped
    assert name.endswith("bomb.png")
    assert "pixels" in reason
    with pytest.raises(DataError, match="8 x 6 pixels"):
        open_image(folder / "a" / "0.png", max_pixels=47)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no subfolders"),
        (lambda root: (root / "a").mkdir(), "no images"),
        (lambda root: save(root / "a" / "1.png", picture(4, 4)), "one class only, 'a'"),
        (lambda root: save(root / "1.png", picture(4, 4)), "no subfolders"),
        (
            lambda root: [save(root / c / "1.png", picture(4, 4)) for c in "ab"],
            "2 images are too few",
        ),
    ],
)
def test_folders_that_cannot_be_learned_from(make: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        load_images(tmp_path)


def test_no_folder_and_no_class_left(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        load_images(tmp_path / "absent")
    for path in (folder / "b").iterdir():
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"one class only, 'a'.*left out"):
        load_images(folder)


def test_a_class_of_damaged_files_only_is_left_out(folder: Path) -> None:
    save(folder / "A first" / "1.png", picture(6, 8, 1))
    path = folder / "A first" / "1.png"
    path.write_bytes(path.read_bytes()[:-30])
    data = load_images(folder)
    assert data.preprocessing.classes == ("a", "b")
    for part in (data.train, data.valid, data.test):
        for path, label in zip(part.paths, part.labels, strict=True):  # type: ignore[attr-defined]
            assert "ab"[label] == Path(path).parent.name


def test_a_file_that_vanishes_is_named(folder: Path) -> None:
    data = load_images(folder, verify=False, cache_bytes=0)
    Path(data.test.paths[0]).unlink()
    with pytest.raises(DataError, match="cannot read"):
        data.test[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("format", "cartograd.table"),
        ("height", 0),
        ("width", 10**9),
        ("height", True),
        ("channels", 2),
        ("fit", "squeeze"),
        ("mean", [0.1, 0.2]),
        ("mean", ["x"]),
        ("std", [0.0]),
        ("std", [float("nan")]),
        ("classes", ["a", "a"]),
        ("classes", "ab"),
        ("max_pixels", -1),
    ],
)
def test_settings_that_are_not_right_are_refused(field: str, value: Any) -> None:
    data = ImagePreprocessing(8, 8, 1).to_json()
    with pytest.raises(FileFormatError, match="image settings"):
        ImagePreprocessing.from_json({**data, field: value})
    del data[field]
    with pytest.raises(FileFormatError, match="missing"):
        ImagePreprocessing.from_json(data)


def test_misuse_is_refused(folder: Path) -> None:
    for arguments, message in (
        ({"size": 0}, "height"),
        ({"channels": 2}, "channels"),
        ({"fit": "squeeze"}, "fit"),
        ({"fractions": (0.5, 0.5, 0.5)}, "lengths"),
    ):
        with pytest.raises(UsageError, match=message):
            load_images(folder, **arguments)  # type: ignore[arg-type]
    with pytest.raises(FileFormatError, match="JSON object"):
        ImagePreprocessing.from_json([])


def test_without_pillow_the_command_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(UsageError, match=r"pip install 'cartograd\[images\]'"):
        load_images(folder)


# --- augmentation


def test_a_shift_moves_and_repeats_the_edge() -> None:
    image = np.arange(20.0).reshape(1, 4, 5)
    seen = set()
    for seed in range(60):
        moved = ShiftFlip(shift=1)(image, np.random.default_rng(seed))
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
        windows = {
            (down, right): padded[:, down : down + 4, right : right + 5]
            for down in range(3)
            for right in range(3)
        }
        (place,) = [at for at, window in windows.items() if np.array_equal(window, moved)]
        seen.add(place)
    assert len(seen) == 9


def test_a_flip_mirrors_half_of_the_images() -> None:
    image = np.arange(6.0).reshape(2, 3)
    flipped = 0
    for seed in range(400):
        changed = ShiftFlip(flip=True)(image, np.random.default_rng(seed))
        assert np.array_equal(changed, image) or np.array_equal(changed, image[:, ::-1])
        flipped += np.array_equal(changed, image[:, ::-1])
    assert 150 < flipped < 250
    with pytest.raises(ShapeError, match="2 or 3 axes"):
        ShiftFlip()(np.zeros(3), np.random.default_rng(0))
    for shift in (-1, True):
        with pytest.raises(UsageError, match="shift"):
            ShiftFlip(shift=shift)


def test_the_change_is_that_of_seed_epoch_and_index(folder: Path) -> None:
    change = ShiftFlip(flip=True, shift=2)
    data = load_images(folder, augment=change, seed=5)
    plain = load_images(folder, seed=5)
    data.train.set_epoch(3)
    for index in (0, 7):
        expected = change(plain.train[index][0], stream(5, Purpose.AUGMENT, 3, index))
        np.testing.assert_array_equal(data.train[index][0], expected)
        np.testing.assert_array_equal(data.train[index - 14][0], expected)

    def epochs(workers: int) -> list[list[float]]:
        loader = DataLoader(data.train, 4, shuffle=True, num_workers=workers)
        return [[float(x.numpy().std()) for x, _ in loader] for _ in range(2)]

    assert epochs(0) == epochs(2)


def test_examples_may_be_images_alone() -> None:
    images = [np.zeros((2, 2)), np.ones((2, 2))]
    data = Augmented(images, ShiftFlip(shift=1))
    assert len(data) == 2
    np.testing.assert_array_equal(data[1], np.ones((2, 2)))
    assert len(Augmented(ArrayDataset(np.zeros((3, 1, 2, 2))), ShiftFlip())[0]) == 1
