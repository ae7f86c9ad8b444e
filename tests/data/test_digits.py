"""The digits in the package are the published ones, split in proportion."""

import io
from importlib import resources

import numpy as np
import pytest
import sklearn.datasets

import cartograd.data.digits as digits_module
from cartograd.data import load_digits
from cartograd.errors import FileFormatError, UsageError


def test_they_are_the_published_digits() -> None:
    published = sklearn.datasets.load_digits()
    digits = load_digits()
    for part, rows in ((digits.train, digits.train_indices), (digits.test, digits.test_indices)):
        images, labels = part.arrays
        assert images.dtype == np.float32
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(images[:, 0] * 16, published.images[rows])
        np.testing.assert_array_equal(labels, published.target[rows])


def test_the_split_is_whole_disjoint_in_proportion_and_repeatable() -> None:
    digits = load_digits()
    rows = np.concatenate([digits.train_indices, digits.test_indices])
    assert sorted(rows.tolist()) == list(range(1797))
    trained, tested = (np.bincount(part.arrays[1]) for part in (digits.train, digits.test))
    np.testing.assert_allclose(tested / (trained + tested), 0.2, atol=0.01)
    np.testing.assert_array_equal(load_digits().test_indices, digits.test_indices)
    assert not np.array_equal(load_digits(seed=1).test_indices, digits.test_indices)
    assert len(load_digits(test_fraction=0).test) == 0
    for fraction in (-0.1, 1, float("nan")):
        with pytest.raises(UsageError, match="test_fraction"):
            load_digits(fraction)


@pytest.mark.parametrize("content", [b"", b"half a file", "other arrays", "other shapes"])
def test_a_damaged_file_is_named(content: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(content, str):
        buffer = io.BytesIO()
        names = ("images", "labels") if content == "other shapes" else ("a", "b")
        np.savez(buffer, **dict.fromkeys(names, np.zeros(3)))
        content = buffer.getvalue()

    class Folder:
        def __truediv__(self, name: str) -> "Folder":
            return self

        def open(self, mode: str) -> io.BytesIO:
            return io.BytesIO(content)  # type: ignore[arg-type]

    monkeypatch.setattr(digits_module.resources, "files", lambda package: Folder())
    with pytest.raises(FileFormatError, match="install it again"):
        load_digits()


def test_their_source_is_told() -> None:
    text = (resources.files("cartograd.data") / "digits.md").read_text(encoding="utf-8")
    assert "10.24432/C50P49" in text
    assert "CC BY 4.0" in text
