"""The curves are whole after a crash, and a resumed run's have no step twice."""

import csv
import json
import math

import pytest

from cartograd.errors import FileFormatError
from cartograd.record import Event
from cartograd.train.loggers import CSVLogger, JSONLLogger


def train_event(step, **more):
    return Event("train", step, {"epoch": 0, "loss": 1 / (step + 3), **more}, 0.5 * step)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(params=[CSVLogger, JSONLLogger])
def logger(request, tmp_path):
    return request.param(tmp_path / "metrics")


def rows(logger):
    if isinstance(logger, CSVLogger):
        return [(row["kind"], int(row["step"]), float(row["loss"])) for row in table(logger.path)]
    found = [json.loads(line) for line in logger.path.read_text().splitlines()]
    return [(row["kind"], row["step"], row["loss"]) for row in found]


def write(logger, steps):
    logger.open()
    for step in steps:
        logger.event(train_event(step))
    logger.sync()
    logger.close()


def expected(steps):
    return [("train", step, 1 / (step + 3)) for step in steps]


def test_what_happens_is_written(logger):
    write(logger, range(5))
    assert rows(logger) == expected(range(5))


def test_each_row_is_there_at_once(logger):
    logger.open()
    logger.event(train_event(0))
    assert rows(logger) == expected([0])
    logger.close()


def test_a_resumed_run_goes_on_after_the_checkpoint(logger):
    write(logger, range(3))
    state = logger.state_dict()
    write(logger, range(3, 6))
    again = type(logger)(logger.path)
    again.load_state_dict(state)
    write(again, range(3, 7))
    assert rows(again) == expected(range(7))


def test_a_line_cut_short_is_dropped(logger):
    write(logger, range(3))
    data = logger.path.read_bytes()
    for length in range(len(data) - 8, len(data)):
        logger.path.write_bytes(data[:length])
        again = type(logger)(logger.path)
        again.load_state_dict({"lines": 3})
        write(again, [9])
        assert rows(again) == expected([0, 1, 9])


def test_a_new_run_begins_an_empty_file(logger):
    write(logger, range(3))
    write(type(logger)(logger.path), [7])
    assert rows(logger) == expected([7])


def test_a_file_that_was_moved_away_is_begun_again(logger):
    write(logger, range(3))
    logger.path.unlink()
    again = type(logger)(logger.path)
    again.load_state_dict({"lines": 3})
    write(again, [4])
    assert rows(again) == expected([4])


def test_numbers_that_come_later_get_a_column(tmp_path):
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.open()
    logger.event(train_event(0))
    logger.event(Event("validate", 1, {"val_loss": 0.1, "path": "x", "flag": True}, 1.0))
    state = logger.state_dict()
    logger.event(train_event(2, grad_norm=math.inf, lr=0.1 + 0.2))
    logger.close()
    first, second, third = table(logger.path)
    assert first["val_loss"] == first["lr"] == ""
    assert (second["kind"], second["val_loss"], second["loss"]) == ("validate", "0.1", "")
    assert "path" not in second
    assert "flag" not in second
    assert float(third["lr"]) == 0.1 + 0.2
    assert float(third["grad_norm"]) == math.inf
    again = CSVLogger(logger.path)
    again.load_state_dict(state)
    again.open()
    again.event(train_event(2, grad_norm=2.0, lr=0.5, other=1))
    again.close()
    assert [row["step"] for row in table(logger.path)] == ["0", "1", "2"]
    assert table(logger.path)[2]["other"] == "1"


def test_json_has_no_nan(tmp_path):
    logger = JSONLLogger(tmp_path / "metrics.jsonl")
    logger.open()
    logger.event(Event("train", 0, {"loss": math.nan, "all": [math.inf, {"a": -math.inf}]}, 0.0))
    logger.close()

    def refuse(name):
        raise AssertionError(name)

    row = json.loads(logger.path.read_text(), parse_constant=refuse)
    assert row["loss"] == "nan"
    assert row["all"] == ["inf", {"a": "-inf"}]


def test_events_of_other_kinds_and_after_the_end_are_left_out(logger):
    logger.event(train_event(0))
    logger.open()
    logger.event(Event("batch", 0, {"loss": 1.0}, 0.0))
    logger.close()
    logger.event(train_event(1))
    logger.sync()
    assert rows(logger) == []


def test_a_table_of_someone_elses_is_not_cut(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("name,price\na,1\n")
    logger = CSVLogger(path)
    logger.load_state_dict({"lines": 1})
    with pytest.raises(FileFormatError, match="its first line"):
        logger.open()
    assert path.read_text() == "name,price\na,1\n"
    path.write_bytes(b'kind,step,epoch,time\n"a"b\n')
    with pytest.raises(FileFormatError, match="not a table"):
        logger.open()
