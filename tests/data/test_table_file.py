"""Reading tables: CSV against Python's csv, Parquet, records, and files that will not do."""

import csv
import gzip
import io
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartograd.data import read_table, table_from_records
from cartograd.data.table_file import Table
from cartograd.errors import DataError, UsageError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(table: Table) -> list[list[str]]:
    columns = [table.columns[name].to_pylist() for name in table.names]
    return [list(row) for row in zip(*columns, strict=True)]


CELL = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), max_size=8)


@given(
    st.lists(st.text("abcdefg", min_size=1, max_size=3), min_size=2, max_size=4, unique=True),
    st.data(),
    st.sampled_from(",;\t|"),
)
def test_what_csv_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    data: st.DataObject,
    delimiter: str,
) -> None:
    rows = data.draw(
        st.lists(st.lists(CELL, min_size=len(names), max_size=len(names)), min_size=1, max_size=5)
    )
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([names, *rows])
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", buffer.getvalue())
    table = read_table(path)
    assert table.names == tuple(names)
    assert rows_of(table) == rows
    assert table.rows == len(rows)


def test_usual_varieties_are_read(tmp_path: Path) -> None:
    expected = [["1", "x y"], ["2", ""]]
    for name, content in {
        "windows.csv": "a,b\r\n1,x y\r\n2,\r\n",
        "no last newline.csv": "a,b\n1,x y\n2,",
        "mark.csv": b"\xef\xbb\xbfa,b\n1,x y\n2,\n",
        "blank lines.csv": "\na,b\n\n1,x y\n\n2,\n\n",
        "tabs.tsv": "a\tb\n1\tx y\n2\t\n",
        "bars.txt": "a|b\n1|x y\n2|\n",
        "sixteen.csv": "a,b\n1,x y\n2,\n".encode("utf-16"),
        "zipped.csv.gz": gzip.compress(b"a,b\n1,x y\n2,\n"),
    }.items():
        assert rows_of(read_table(write(tmp_path / name, content))) == expected, name
    inches = write(tmp_path / "inches.csv", 'a,b\n1,5" wide\n')
    assert rows_of(read_table(inches)) == [["1", '5" wide']]
    latin = write(tmp_path / "latin.csv", "a,b\n1,é\n".encode("latin-1"))
    assert rows_of(read_table(latin, encoding="latin-1")) == [["1", "é"]]
    odd = write(tmp_path / "odd.csv", "a:b\n1:2\n")
    assert rows_of(read_table(odd, delimiter=":")) == [["1", "2"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("a,b\n", "no rows"),
        ("a,b,a\n1,2,3\n", "more than one column named 'a'"),
        ("a,b\n1,2\n3\n", r"different lengths \(Row #3: Expected 2 columns, got 1.*half written"),
        ("a,b\n1,2\n3,4,5\n", r"different lengths \(Row #3: Expected 2 columns, got 3"),
        ('a,b\n1,"x\n2,3\n', "line 2: a quote is not closed.*half written"),
        ('a,b\n1,2\n"x""y","', "line 3: a quote is not closed.*half written"),
        ('a,b\n1,5" wide\n2,"x\n', "line 3: a quote is not closed"),
        ('a,b\n1,"x"y\n', "line 2: a quote is not closed"),
        ("1.5,2\n3,4\n", "first row .* numbers only"),
        (b"a,b\n1,\xff\xfe\n", "not text in utf-8.*latin-1"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "zero bytes"),
    ],
)
def test_csv_files_that_will_not_do(content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(tmp_path / "a.csv", content))
    assert "a.csv" in str(caught.value)


def test_paths_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="not a file"):
        read_table(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="not a file"):
        read_table(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="no known ending"):
        read_table(write(tmp_path / "a.xlsx", "PK"))
    good = write(tmp_path / "a.csv", "a,b\n1,2\n")
    with pytest.raises(UsageError, match="delimiter"):
        read_table(good, delimiter=",,")
    with pytest.raises(UsageError, match="encoding"):
        read_table(good, encoding="no-such")


def test_a_compressed_file_cut_short_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 50)
    for cut in range(1, len(whole)):
        with pytest.raises(DataError, match=r"a\.csv\.gz"):
            read_table(write(tmp_path / "a.csv.gz", whole[:cut]))


def test_parquet_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    stored = pa.table({"n": [1, None], "s": ["x", "y"]})
    pq.write_table(stored, path, write_page_checksum=True)
    table = read_table(path)
    assert table.names == ("n", "s")
    assert table.columns["n"].to_pylist() == [1, None]
    whole = path.read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        with pytest.raises(DataError, match=r"not a whole Parquet file"):
            read_table(write(path, whole[:cut]))
    flipped = bytearray(whole)
    flipped[30] ^= 1  # in the first page's data
    with pytest.raises(DataError, match="not a whole Parquet file"):
        read_table(write(path, bytes(flipped)))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, path)
    with pytest.raises(DataError, match="more than one column named 'a'"):
        read_table(path)
    pq.write_table(stored.slice(0, 0), path)
    with pytest.raises(DataError, match="no rows"):
        read_table(path)


def test_records_are_tables(tmp_path: Path) -> None:
    table = table_from_records([{"a": 1, "b": "x"}, {"b": None, "c": 2.5}, {"a": "odd"}])
    assert table.names == ("a", "b", "c")
    assert table.columns["a"].to_pylist() == ["1", None, "odd"]
    assert table.columns["c"].to_pylist() == [None, 2.5, None]
    with pytest.raises(DataError, match="are empty"):
        table_from_records([])
    with pytest.raises(DataError, match="record 2"):
        table_from_records([{"a": 1}, [1]])  # type: ignore[list-item]


def test_without_pyarrow_the_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'cartograd\[table\]'"):
        read_table(write(tmp_path / "a.csv", "a,b\n1,2\n"))
