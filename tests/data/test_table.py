"""Tables made ready: the target, the encoders against scikit-learn's, JSON, baselines, errors."""

import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from cartograd.data import (
    DataLoader,
    Table,
    TableSchema,
    load_table,
    prepare_table,
    read_table,
    table_from_records,
)
from cartograd.data.table_encoders import (
    CategoryEncoder,
    DateEncoder,
    NumberEncoder,
    TextEncoder,
    mean_and_std,
)
from cartograd.data.table_schema import find_target
from cartograd.errors import DataError, FileFormatError, UsageError

ROWS = 60


def records() -> list[dict[str, Any]]:
    """A table with a column of each kind; `sold` follows from `size` and `colour`."""
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for i in range(ROWS):
        size = float(random.normal(50, 10))
        colour = ["red", "green", "blue"][int(random.integers(3))]
        day = dt.date(2020, 1, 1) + dt.timedelta(int(random.integers(900)))
        rows.append(
            {
                "row": i,
                "size": None if i % 9 == 0 else round(size, 3),
                "colour": None if i % 11 == 0 else colour,
                "new": ["yes", "no"][int(random.integers(2))],
                "listed": None if i % 13 == 0 else day.isoformat(),
                "remark": " ".join(random.choice(["old", "fine", "worn", "rare"], 6)) + f" {i}",
                "name": f"item-{i}x",
                "always": "same",
                "sold": "yes" if size > 50 and colour != "red" else "no",
                "price": round(size * 3 + float(random.normal()), 2),
            }
        )
    return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The records as CSV."""
    rows = records()
    lines = [",".join(rows[0])]
    lines += [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
    (tmp_path / "items.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "items.csv"


def test_classification_is_found_and_split_in_proportion(path: Path) -> None:
    data = load_table(path, "sold")
    assert data.task == "classification"
    assert data.schema.target.classes == ("no", "yes")
    assert [len(part) for part in (data.train, data.valid, data.test)] == [42, 9, 9]
    rows = np.concatenate([data.train_rows, data.valid_rows, data.test_rows])
    assert sorted(rows.tolist()) == list(range(ROWS))
    actual = np.array([row["sold"] == "yes" for row in records()], np.int64)
    np.testing.assert_array_equal(data.test.arrays[1], actual[data.test_rows])
    assert abs(actual[data.test_rows].mean() - actual.mean()) < 0.12


def test_each_column_is_what_it_is(path: Path) -> None:
    data = load_table(path, "sold")
    kinds = {column.name: column.kind for column in data.schema.columns}
    assert kinds == {
        "size": "number",
        "colour": "category",
        "new": "number",
        "listed": "date",
        "remark": "text",
        "price": "number",
    }
    assert dict(data.schema.dropped) == {
        "row": "it only counts the rows",
        "name": "60 different words in 60 rows, as of names or identifiers",
        "always": "only one category among the 42 training rows",
    }
    (inputs, labels) = next(iter(DataLoader(data.train, 8)))
    assert inputs["numbers"].shape == (8, data.schema.width)
    assert inputs["numbers"].dtype == np.float32
    assert inputs["categories"].shape == (8, len(data.schema.category_sizes))
    assert labels.dtype == np.int64
    assert np.isfinite(data.schema.encode(read_table(path))["numbers"]).all()


def test_numbers_are_standardised_by_the_training_rows_only() -> None:
    values = np.random.default_rng(1).normal(5, 3, 80)
    data = prepare_table(
        table_from_records([{"x": float(v), "y": float(v) * 2} for v in values]), "y"
    )
    scaler = StandardScaler().fit(values[data.train_rows][:, None])
    for part, rows in ((data.train, data.train_rows), (data.test, data.test_rows)):
        expected = scaler.transform(values[rows][:, None])
        np.testing.assert_allclose(part.arrays[0]["numbers"], expected, rtol=1e-5, atol=1e-6)
    target = StandardScaler().fit(2 * values[data.train_rows][:, None])
    np.testing.assert_allclose(
        data.schema.target.unscale(data.test.arrays[1]), 2 * values[data.test_rows], rtol=1e-5
    )
    assert data.schema.target.mean == pytest.approx(target.mean_[0])
    assert data.schema.target.std == pytest.approx(target.scale_[0])


def test_missing_numbers_are_zero_and_marked() -> None:
    encoder = NumberEncoder("x", 10.0, 2.0, missing=True)
    encoded = encoder.encode(pa.array(["14", "", "NA", "-inf"]))
    np.testing.assert_array_equal(encoded, np.float32([[2, 0], [0, 1], [0, 1], [0, 1]]))
    unmarked = NumberEncoder("x", 10.0, 2.0)
    np.testing.assert_array_equal(unmarked.encode(pa.array(["14", ""])), [[2], [0]])


def test_categories_are_those_of_a_one_hot_encoder() -> None:
    rows = [{"c": "abcde"[i % 5] if i % 7 else None, "y": i * 1.5} for i in range(70)]
    data = prepare_table(table_from_records(rows), "y")
    (encoder,) = data.schema.columns
    assert isinstance(encoder, CategoryEncoder)
    assert encoder.values == tuple("abcde")
    fresh = table_from_records([{"c": c} for c in ["c", "z", None, "a"]])
    encoded = data.schema.encode(fresh)
    np.testing.assert_array_equal(encoded["categories"][:, 0], [4, 0, 1, 2])
    reference = OneHotEncoder(categories=[list("abcde")], handle_unknown="ignore")
    expected = reference.fit([["a"]]).transform([["c"], ["z"], [None], ["a"]]).toarray()
    onehot = data.schema.onehot(encoded)
    np.testing.assert_array_equal(onehot[:, 2:], expected)
    np.testing.assert_array_equal(onehot[:, :2], [[0, 0], [1, 0], [0, 1], [0, 0]])
    assert data.schema.onehot_width == onehot.shape[1] == 7


def test_rare_categories_share_the_slot_of_the_unknown() -> None:
    rows = [{"c": "ab"[i % 2] if i else "once", "y": i * 1.5} for i in range(30)]
    for seed in range(3):
        data = prepare_table(table_from_records(rows), "y", seed=seed)
        assert data.schema.category_sizes == (4,)
        assert data.schema.encode(table_from_records([{"c": "once"}]))["categories"] == 0


MOMENTS = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1))


@given(st.lists(MOMENTS, min_size=2, max_size=8, unique=True))
def test_dates_become_the_parts_datetime_has(moments: list[dt.datetime]) -> None:
    parts = ("elapsed", "year", "month", "day", "weekday", "time")
    encoder = DateEncoder("d", "y-m-d", parts, (100.0, 2000.0), (10.0, 5.0), missing=True)
    encoded = encoder.encode(pa.array([*(m.isoformat() for m in moments), None]))
    assert encoded.shape == (len(moments) + 1, encoder.width) == (len(moments) + 1, 11)
    np.testing.assert_array_equal(encoded[-1], [0] * 10 + [1])
    for row, m in zip(encoded, moments, strict=False):
        days = (m - dt.datetime(1970, 1, 1)) / dt.timedelta(days=1)
        time = (m - m.replace(hour=0, minute=0, second=0, microsecond=0)) / dt.timedelta(days=1)
        turns = ((m.month - 1) / 12, (m.day - 1) / 31, m.weekday() / 7, time)
        expected = [(days - 100) / 10, (m.year - 2000) / 5]
        for turn in turns:
            expected += [math.sin(2 * math.pi * turn), math.cos(2 * math.pi * turn)]
        np.testing.assert_allclose(row, [*expected, 0], rtol=1e-5, atol=1e-6)


def test_parts_of_dates_that_never_vary_are_left_out() -> None:
    rows = [{"d": dt.date(2020, 1, 1 + i % 28), "y": i * 1.5} for i in range(60)]
    (encoder,) = prepare_table(table_from_records(rows), "y").schema.columns
    assert isinstance(encoder, DateEncoder)
    assert encoder.parts == ("elapsed", "day", "weekday")


def test_text_is_hashed_the_same_everywhere() -> None:
    texts = pa.array(["A 123456789, 123456789!", None, "123456789 a-123456789"])
    encoded = TextEncoder("t", 8).encode(texts)
    # The published check value of CRC-32, of "123456789", is 0xcbf43926; that of "a" is 0xe8b7be43.
    expected = np.zeros(8)
    expected[0xE8B7BE43 % 8] += math.log(2)
    expected[0xCBF43926 % 8] += math.log(3)
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(encoded[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(encoded[1], np.zeros(8))
    np.testing.assert_array_equal(encoded[2], encoded[0])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_mean_and_std_do_not_overflow(values: list[float]) -> None:
    mean, std = mean_and_std(np.array(values))
    assert math.isfinite(mean)
    assert std >= 0
    assert min(values) <= mean * (1 + 1e-9) + 1e-300 or mean == pytest.approx(min(values))
    small = [value for value in values if abs(value) < 1e100]
    if len(small) == len(values) and max(map(abs, values)) > 1e-100:
        assert mean == pytest.approx(np.mean(values), rel=1e-9, abs=max(map(abs, values)) * 1e-12)
        assert std == pytest.approx(np.std(values), rel=1e-6, abs=max(map(abs, values)) * 1e-9)


def test_extreme_numbers_stay_finite() -> None:
    encoder = NumberEncoder("x", 0.0, 1e-300)
    encoded = encoder.encode(pa.array([1e300, -1e300, 0.0]))
    np.testing.assert_array_equal(encoded, np.float32([[1e6], [-1e6], [0]]))


# --- prediction from JSON alone


@pytest.mark.parametrize("target", ["sold", "price"])
def test_new_rows_are_encoded_from_the_json_alone(path: Path, target: str) -> None:
    data = load_table(path, target)
    schema = TableSchema.from_json(json.loads(json.dumps(data.schema.to_json())))
    assert schema == data.schema
    table = read_table(path)
    encoded = schema.encode(table)
    for part, rows in ((data.train, data.train_rows), (data.test, data.test_rows)):
        for name in ("numbers", "categories"):
            np.testing.assert_array_equal(encoded[name][rows], part.arrays[0][name])
    # One row at a time, without the target, in another order, and with columns it does not know.
    for row in (0, 7, 13):
        record = {name: column[row].as_py() for name, column in table.columns.items()}
        record = dict(reversed(record.items())) | {"other": 1}
        del record[target]
        one = schema.encode(table_from_records([record]))
        for name in ("numbers", "categories"):
            np.testing.assert_array_equal(one[name][0], encoded[name][row])


def test_csv_parquet_and_records_are_encoded_alike(path: Path, tmp_path: Path) -> None:
    schema = load_table(path, "sold").schema
    rows = records()
    stored = pa.Table.from_pylist(rows)
    listed = [r["listed"] and dt.date.fromisoformat(r["listed"]) for r in rows]
    stored = stored.set_column(stored.column_names.index("listed"), "listed", pa.array(listed))
    new = pa.array([r["new"] == "yes" for r in rows])
    stored = stored.set_column(stored.column_names.index("new"), "new", new)
    pq.write_table(stored, tmp_path / "items.parquet")
    expected = schema.encode(read_table(path))
    for other in (read_table(tmp_path / "items.parquet"), table_from_records(rows)):
        for name, array in schema.encode(other).items():
            np.testing.assert_array_equal(array, expected[name])


def test_a_value_that_cannot_be_read_is_named(path: Path) -> None:
    schema = load_table(path, "sold").schema
    good = {n: c[1].as_py() for n, c in read_table(path).columns.items()}
    for change, message in (
        ({"size": "big"}, "column 'size', row 2: 'big' is not a number"),
        ({"new": "perhaps"}, "column 'new', row 2: 'perhaps' is not a truth value"),
        ({"listed": "2020-02-30"}, "column 'listed', row 2: .* is not a date such as 2003-02-01"),
    ):
        with pytest.raises(DataError, match=message):
            schema.encode(table_from_records([good, good | change]))
    with pytest.raises(DataError, match="no column 'size': did you mean 'Size'"):
        schema.encode(
            table_from_records([{"Size" if k == "size" else k: v for k, v in good.items()}])
        )


SCHEMA_DAMAGE = [
    (["version"], 2),
    (["format"], "cartograd.images"),
    (["columns"], {}),
    (["columns"], []),
    (["columns", 0], None),
    (["columns", 0, "kind"], "__import__"),
    (["columns", 0, "name"], 5),
    (["columns", 0, "std"], 0),
    (["columns", 0, "mean"], float("nan")),
    (["columns", 0, "mean"], 10**400),
    (["columns", 0, "style"], "hex"),
    (["columns", 1, "values"], ["a", "a"]),
    (["columns", 1, "name"], "size"),
    (["columns", 3, "parts"], ["century"]),
    (["columns", 3, "parts"], []),
    (["columns", 4, "width"], 10**9),
    (["target"], None),
    (["target", "task"], "guess"),
    (["target", "std"], -1),
    (["dropped"], [["a"]]),
    (["notes"], 3),
]


@pytest.mark.parametrize(("where", "value"), SCHEMA_DAMAGE)
def test_a_damaged_schema_is_refused(where: list[Any], value: Any, path: Path) -> None:
    data = json.loads(json.dumps(load_table(path, "sold").schema.to_json()))
    place = data
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = value
    with pytest.raises(FileFormatError, match="table's schema"):
        TableSchema.from_json(data)


# --- the target


def column(*values: Any) -> Table:
    return table_from_records([{"y": value, "x": i * i} for i, value in enumerate(values)])


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"] * 5, "classification"),
        ([True, False] * 5, "classification"),
        ([0, 1] * 5, "classification"),
        ([3.0, 4.0, 5.0] * 5, "classification"),
        (["1", "2"] * 5, "classification"),
        ([1.5, 2.5] * 5, "regression"),
        (list(range(10)), "regression"),
        (list(range(30)) * 3, "regression"),
        (["1.25", "7"] * 5, "regression"),
    ],
)
def test_the_task_is_found_from_the_column(values: list[Any], task: str) -> None:
    assert find_target(column(*values), "y").task == task


def test_the_task_can_be_asked_for() -> None:
    table = column(*([0, 1, 2] * 5))
    assert find_target(table, "y", "regression").task == "regression"
    assert find_target(column(*([1.5, 2.5] * 5)), "y", "classification").classes == ("1.5", "2.5")
    with pytest.raises(DataError, match="not numbers"):
        find_target(column("a", "b"), "y", "regression")
    with pytest.raises(UsageError, match="task"):
        find_target(table, "y", "guess")


def test_classes_are_in_their_natural_order() -> None:
    assert find_target(column(*(["10", "9", "2"] * 3)), "y").classes == ("2", "9", "10")
    assert find_target(column(*(["b", "a"] * 3)), "y").classes == ("a", "b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([None] * 5, "every value of the target column 'y' is missing"),
        (["", "NA"] * 5, "every value of the target column 'y' is missing"),
        (["a"] * 5, "one class only, 'a'"),
        (["a", None] * 5, "one class only, 'a'"),
        ([3] * 5, "one value only, 3"),
        ([2.5] * 5, "one value only, 2.5"),
        ([math.inf, None, math.nan], "no finite number"),
        ([f"n{i}" for i in range(50)], "50 different values in 50 rows"),
        ([dt.date(2020, 1, 1 + i) for i in range(9)], "is a date"),
        ([[1], [2]], "not supported|different values|one class"),
    ],
)
def test_targets_that_cannot_be_learned(values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_table(column(*values), "y")


def test_a_target_that_is_not_there_is_answered_with_close_names() -> None:
    table = table_from_records([{"price": 1, "Colour": 2, "size": 3}])
    for name, close in (("prise", "did you mean 'price'"), ("colour", "did you mean 'Colour'")):
        with pytest.raises(DataError, match=close):
            find_target(table, name)
    with pytest.raises(DataError, match="its columns are 'price', 'Colour', 'size'"):
        find_target(table, "weight")


def test_rows_without_a_target_are_left_out_and_counted() -> None:
    data = prepare_table(column(*([1.5, 2.5, None] * 10)), "y")
    assert data.left_out == 10
    assert len(data.train) + len(data.valid) + len(data.test) == 20


# --- what is left to learn from


def test_baselines_are_those_of_dummy_estimators(path: Path) -> None:
    rows = records()
    data = load_table(path, "price")
    prices = np.array([row["price"] for row in rows])
    train, test = prices[data.train_rows], prices[data.test_rows]
    blank = np.zeros((len(train), 1)), np.zeros((len(test), 1))
    mean = DummyRegressor(strategy="mean").fit(blank[0], train).predict(blank[1])
    median = DummyRegressor(strategy="median").fit(blank[0], train).predict(blank[1])
    assert data.baseline["rmse"] == pytest.approx(root_mean_squared_error(test, mean))
    assert data.baseline["mae"] == pytest.approx(mean_absolute_error(test, median))
    assert data.baseline["mean"] == pytest.approx(mean[0])
    assert data.baseline["median"] == pytest.approx(median[0])
    sold = load_table(path, "sold")
    labels = np.array([row["sold"] for row in rows])
    dummy = DummyClassifier(strategy="most_frequent")
    dummy.fit(np.zeros((len(sold.train), 1)), labels[sold.train_rows])
    accuracy = dummy.score(np.zeros((len(sold.test), 1)), labels[sold.test_rows])
    assert sold.baseline == {"class": "no", "accuracy": pytest.approx(accuracy)}


def test_columns_can_be_dropped_and_kinds_asked_for(path: Path) -> None:
    data = load_table(path, "sold", drop=["price"], kinds={"row": "number", "new": "category"})
    kinds = {c.name: c.kind for c in data.schema.columns}
    assert kinds["row"] == "number"
    assert kinds["new"] == "category"
    assert "price" not in kinds
    assert ("price", "left out, as asked") in data.schema.dropped
    with pytest.raises(DataError, match="no column 'prise'"):
        load_table(path, "sold", drop=["prise"])
    with pytest.raises(UsageError, match="a kind is one of"):
        load_table(path, "sold", kinds={"row": "integer"})
    with pytest.raises(DataError, match="'name' cannot be read as number"):
        load_table(path, "sold", kinds={"name": "number"})


def test_infinite_numbers_are_announced() -> None:
    rows = [{"x": math.inf if i == 3 else i * i, "y": i * 1.5} for i in range(20)]
    data = prepare_table(table_from_records(rows), "y")
    assert data.schema.notes == ("x: 1 infinite values read as missing",)


def test_tables_with_nothing_to_learn_from_are_refused() -> None:
    with pytest.raises(DataError, match=r"no column to predict from \(x: constant"):
        prepare_table(table_from_records([{"x": 1, "y": i * 1.5} for i in range(20)]), "y")
    with pytest.raises(DataError, match="no column to predict from"):
        prepare_table(table_from_records([{"y": i * 1.5} for i in range(20)]), "y")
    with pytest.raises(DataError, match="2 rows with a target, too few"):
        prepare_table(table_from_records([{"x": i, "y": i * 1.5} for i in range(2)]), "y")


def test_the_same_seed_gives_the_same_data(path: Path) -> None:
    one, two, other = (load_table(path, "sold", seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one.train_rows, two.train_rows)
    assert one.schema == two.schema
    assert not np.array_equal(one.train_rows, other.train_rows)


CELLS = st.one_of(
    st.none(),
    st.floats(),
    st.integers(-(10**20), 10**20),
    st.booleans(),
    st.text(max_size=6),
    st.dates(),
    st.sampled_from(["a", "b", "1", "2020-01-01", "yes", ""]),
)


LIKE = st.sampled_from([0, 1, 2, 3]).flatmap(
    lambda n: st.just([CELLS, st.floats() | st.none(), st.dates() | st.none(), st.text("ab ")][n])
)


@given(
    st.one_of(
        st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=30),
        LIKE.flatmap(
            lambda cell: st.lists(
                st.tuples(cell, CELLS, st.sampled_from("uv")), min_size=20, max_size=40
            )
        ),
    )
)
def test_any_table_is_learned_from_or_refused_with_a_reason(rows: list[tuple[Any, ...]]) -> None:
    table = table_from_records([dict(zip("abc", row, strict=True)) for row in rows])
    try:
        data = prepare_table(table, "c")
    except DataError:
        return
    encoded = TableSchema.from_json(json.loads(json.dumps(data.schema.to_json()))).encode(table)
    assert np.isfinite(encoded["numbers"]).all()
    for size, codes in zip(data.schema.category_sizes, encoded["categories"].T, strict=True):
        assert codes.min() >= 0
        assert codes.max() < size
