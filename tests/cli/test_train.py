"""Training from the command line: every job on small real data, its folder, and its bad input."""

import csv
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_diabetes, load_iris, load_wine

import cartograd as cg
from cartograd.train import load_latest
from tests.cli.conftest import ENVIRONMENT


def write_table(path, data, names=None):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*data.feature_names, "target"])
        for row, target in zip(data.data, data.target, strict=True):
            rows.writerow([*row, target if names is None else names[target]])


def mixed_rows(count=240):
    """Numbers, categories, dates, text, missing values; a price that follows from them."""
    rng = np.random.default_rng(0)
    rate = {"Oslo": 50, "Rome": 30, "Lima": 10}
    for i in range(count):
        city, size = rng.choice(list(rate)), rng.uniform(20, 200)
        day = np.datetime64("2020-01-01") + int(rng.integers(0, 700))
        price = size * rate[str(city)] + 20 * int(str(day)[5:7])
        yield {
            "day": str(day),
            "city": None if i % 20 == 7 else str(city),
            "size": None if i % 15 == 3 else round(float(size), 1),
            "sunny": bool(i % 2),
            "price": round(float(price), 2),
        }


def write_shapes(folder, count=10):
    rng = np.random.default_rng(0)
    for name in ("bars", "block"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((8, 8, 3), rng.integers(0, 60), np.uint8)
            colour, shift = rng.integers(150, 255, 3), int(rng.integers(0, 2))
            if name == "bars":
                pixels[shift::3] = colour
            else:
                pixels[2 + shift : 6 + shift, 2:6] = colour
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


# --- digits ---------------------------------------------------------------------------------------


def test_digits(run, tmp_path):
    """The main job, shortened: what is on the screen, and what is in the folder."""
    folder = tmp_path / "run"
    done = run("train", "digits", "--epochs", 4, "--out", folder)
    assert done.code == 0
    assert "training digits: 43,178 parameters, 4 epochs of 21 batches, seed 0" in done.err
    assert "epoch 4/4  loss " in done.err
    assert re.search(
        r"compiled the training step in \d+\.\d\d s \((cold|from the cache)\)", done.err
    )
    assert f"cartograd predict {folder} IMAGE.png" in done.out
    assert "test accuracy  0.9" in done.out
    assert "(naive baseline: 0.1003)" in done.out
    assert {path.name for path in folder.iterdir()} >= {
        *("config.json", "environment.json", "metrics.csv", "metrics.jsonl", "result.json"),
        *("checkpoints", "best"),
    }
    result = json.loads((folder / "result.json").read_text())
    assert result["test"]["test_accuracy"] >= 0.97
    job = json.loads((folder / "config.json").read_text())["config"]["job"]
    assert job["settings"] == {
        "epochs": 4,
        "batch_size": 64,
        "lr": 0.003,
        "seed": 0,
        "eager": False,
    }
    assert len(job["data"]["sha256"]) == 64
    taken = run("train", "digits", "--out", folder)
    assert taken.code == 2
    assert "is taken" in taken.err
    assert json.loads((folder / "result.json").read_text()) == result, "nothing is lost"


def test_digits_op_by_op(run, tmp_path):
    """The same curves within rounding; and a run that goes on stays what it was begun as."""
    words = ("train", "digits", "--epochs", 1, "--batch-size", 256)
    runs = {how: tmp_path / how for how in ("compiled", "eager")}
    assert run(*words, "--out", runs["compiled"]).code == 0
    done = run(*words, "--eager", "--out", runs["eager"])
    assert done.code == 0
    assert "compil" not in done.err
    results = [json.loads((folder / "result.json").read_text()) for folder in runs.values()]
    losses = [result["test"]["test_loss"] for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    kinds = {}
    for how, folder in runs.items():
        config = json.loads((folder / "config.json").read_text())
        assert config["compile"] == (how == "compiled")
        assert config["config"]["job"]["settings"]["eager"] == (how == "eager")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        kinds[how] = {line["kind"] for line in lines}
    assert kinds["compiled"] == kinds["eager"] | {"compile"}
    assert run("train", "digits", "--out", runs["eager"], "--resume").code == 0
    other = run("train", "digits", "--out", runs["compiled"], "--resume", "--eager")
    assert other.code == 2
    assert "eager: False in the run, True now" in other.err


def test_digits_are_predicted(run, tmp_path):
    folder, digits = tmp_path / "run", cg.data.load_digits()
    assert run("train", "digits", "--epochs", 3, "--out", folder, "--json").code == 0
    images, labels = digits.test.arrays
    np.save(tmp_path / "digits.npy", images[:40, 0])
    np.save(tmp_path / "published.npy", (images[:40, 0] * 16).astype(np.uint8))
    told = run("predict", folder, tmp_path / "digits.npy", "--json").told
    found = [int(row["prediction"]) for row in told["predictions"]]
    assert np.mean(np.array(found) == labels[:40]) > 0.9
    for row in told["predictions"]:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == max(row["probabilities"].values())
    again = run("predict", folder, tmp_path / "published.npy", "--json").told
    assert [row["prediction"] for row in again["predictions"]] == [str(n) for n in found]
    # A scan: dark ink on white paper, larger.
    right = [k for k in range(40) if found[k] == labels[k]]
    ink = images[right[0], 0] * 255
    Image.fromarray((255 - ink).astype(np.uint8)).resize((64, 64)).save(tmp_path / "scan.png")
    done = run("predict", folder, tmp_path / "scan.png")
    assert done.code == 0
    assert str(labels[right[0]]) in done.out.splitlines()[3]
    for name, array, message in (
        ("flat", np.zeros(64, np.float32), "8x8"),
        ("words", np.array(["a"]), "8x8"),
        ("none", np.zeros((0, 8, 8)), "no images"),
        ("wild", np.full((1, 8, 8), 300.0), "grey levels"),
        ("nan", np.full((1, 8, 8), np.nan), "grey levels"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        done = run("predict", folder, tmp_path / f"{name}.npy")
        assert done.code == 3, name
        assert message in done.err
    (tmp_path / "pickle.npy").write_bytes(b"\x93NUMPY\x01\x00junk")
    assert run("predict", folder, tmp_path / "pickle.npy").code == 3
    assert run("predict", folder, tmp_path / "no.npy").code == 3
    assert run("predict", folder, tmp_path / "no.png").code == 3
    assert run("predict", folder, __file__).code == 3
    damage(run, folder, tmp_path / "digits.npy")


def damage(run, folder, given):
    """What is damaged in a run's folder is never used, and what is left is."""
    best = sorted((folder / "best").glob("*.safetensors"))
    for path in best:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert run("predict", folder, given).code == 0, "the checkpoints are good"
    for path in (folder / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-100])
    done = run("predict", folder, given)
    assert done.code == 3
    assert "each checkpoint is damaged" in done.err
    done = run("train", "digits", "--out", folder, "--resume")
    assert done.code == 3
    assert "damaged" in done.err
    config = (folder / "config.json").read_text()
    for text, message in (
        (config[: len(config) // 2], "cannot be read"),
        ("", "cannot be read"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "not the configuration of a job"),
        (json.dumps({"config": {"job": {"kind": "cats"}}}), "of kind 'cats'"),
        (json.dumps({"config": {"job": {"kind": "digits"}}}), "'settings' is missing"),
    ):
        (folder / "config.json").write_text(text)
        for command in (("predict", folder, given), ("train", "digits", "--out", folder)):
            done = run(*command, *(["--resume"] if command[0] == "train" else []))
            assert done.code == 3, (text[:40], command)
            assert message in done.err
    (folder / "config.json").write_text(config)


def run_to_the_end(folder, *more):
    """A run of three epochs in a process of its own; what it printed."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cartograd", "train", "digits"),
            *("--out", str(folder), "--json", *more),
        ],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
    )
    return json.loads(done.stdout)


def outcome(folder):
    """The weights, the best weights and the curves of a run, to the bit; times left out."""
    found, best = load_latest(folder / "checkpoints"), load_latest(folder / "best")
    assert found is not None
    assert best is not None
    arrays = [{n: a.tobytes() for n, a in c.arrays.items()} for c in (found, best)]
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [
            {k: v for k, v in row.items() if k not in ("time", "seconds")}
            for row in csv.DictReader(file)
        ]
    result = json.loads((folder / "result.json").read_text())
    return arrays, rows, {k: v for k, v in result.items() if k not in ("run", "seconds")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_to_the_end(folder, "--epochs", "3", "--seed", "5")
    return outcome(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_in_mid_epoch_goes_on_to_the_same_bits(
    start, tmp_path, uninterrupted, number
):
    folder = tmp_path / "run"
    child = start("train", "digits", "--epochs", "3", "--seed", "5", "--out", folder)
    curves = folder / "metrics.csv"
    for _ in range(6000):  # until the middle of the second of three epochs, 21 updates each
        if curves.exists() and ",30," in curves.read_text():
            break
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert child.returncode == -number
    else:
        assert child.returncode == 128 + number
        assert "press Ctrl-C again" in err
        assert f"cartograd train digits --epochs 3 --seed 5 --out {folder} --resume" in out
        assert not (folder / "result.json").exists()
    found = load_latest(folder / "checkpoints")
    assert found is not None
    assert found.meta["step"] < 63, "it was stopped before its end"
    if number != signal.SIGKILL:
        assert found.meta["step"] % 21 != 0, "in mid-epoch"
    told = run_to_the_end(folder, "--resume")  # with the settings of the run
    assert told["status"] == "completed"
    assert outcome(folder) == uninterrupted


def test_resuming_needs_the_same_run(run, tmp_path):
    folder = tmp_path / "run"
    assert run("train", "digits", "--epochs", 1, "--out", folder, "--json").code == 0
    done = run("train", "digits", "--epochs", 2, "--out", folder, "--resume")
    assert done.code == 2
    assert "epochs: 1 in the run, 2 now" in done.err
    done = run("train", "text", __file__, "--out", folder, "--resume")
    assert done.code == 2
    assert "is of train digits, not of train text" in done.err
    done = run("train", "digits", "--out", folder, "--resume", "--json")
    assert done.told["epochs"] == 1, "it is over: its test is done again"
    config = json.loads((folder / "config.json").read_text())
    config["config"]["job"]["data"]["sha256"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(config))
    done = run("train", "digits", "--out", folder, "--resume")
    assert done.code == 3
    assert "the data is not what the run" in done.err


def test_folders_for_the_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("train", "digits", "--epochs", 1, "--batch-size", 512, "--json")
    assert run(*words).told["run"] == "runs/digits-1"
    assert run(*words).told["run"] == "runs/digits-2"
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    for name, message in (("file", "is a file"), ("full", "is taken")):
        done = run(*words[:-1], "--out", name)
        assert done.code == 2
        assert message in done.err
    assert "no config.json" in run(*words[:-1], "--out", "full", "--resume").err
    assert (tmp_path / "full" / "letter.txt").read_text() == "dear"
    assert (
        "there is no run in new to go on with" in run(*words[:-1], "--out", "new", "--resume").err
    )


def test_divergence_is_told(run, tmp_path):
    done = run("train", "digits", "--lr", 1e30, "--epochs", 2, "--out", tmp_path / "run", "--json")
    assert done.code == 4
    assert done.told["error"] == "NonFiniteError"
    assert "unchanged and saved in" in done.told["message"]


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "load", "least"), [("iris", load_iris, 0.85), ("wine", load_wine, 0.85)]
)
def test_a_table_of_classes(run, tmp_path, name, load, least):
    data, path, folder = load(), tmp_path / f"{name}.csv", tmp_path / "run"
    write_table(path, data, data.target_names)
    told = run("train", "table", path, "--target", "target", "--out", folder, "--json").told
    assert told["test"]["test_accuracy"] >= least > told["baseline"]["accuracy"] + 0.3
    rows = run("predict", folder, path, "--json").told["predictions"]
    assert len(rows) == len(data.target)
    found = [row["prediction"] for row in rows]
    assert np.mean(np.array(found) == data.target_names[data.target]) > 0.9


def test_a_table_of_numbers(run, tmp_path):
    path, folder = tmp_path / "diabetes.csv", tmp_path / "run"
    write_table(path, load_diabetes())
    words = ("train", "table", path, "--target", "target", "--epochs", 20, "--out", folder)
    done = run(*words)
    assert done.code == 0
    told = json.loads((folder / "result.json").read_text())
    assert told["test"]["test_rmse"] < 0.9 * told["baseline"]["rmse"]
    assert told["test"]["test_mae"] < 0.9 * told["baseline"]["mae"]
    for title in ("R2", "mean absolute error", "root mean square error", "naive baseline"):
        assert title in done.out


def test_a_table_of_everything(run, tmp_path):
    """Parquet with numbers, categories, dates, truth values and holes; predicted without target."""
    import pyarrow
    from pyarrow import parquet

    rows = list(mixed_rows())
    table = pyarrow.Table.from_pylist(rows)
    days = pyarrow.array([np.datetime64(row["day"]).astype(object) for row in rows])
    table = table.set_column(0, "day", days)
    parquet.write_table(table, tmp_path / "rows.parquet")
    folder = tmp_path / "run"
    words = ("train", "table", tmp_path / "rows.parquet", "--target", "price", "--drop", "sunny")
    done = run(*words, "--epochs", 20, "--seed", 1, "--out", folder)
    assert done.code == 0
    told = json.loads((folder / "result.json").read_text())
    assert told["test"]["test_rmse"] < 0.7 * told["baseline"]["rmse"]
    job = json.loads((folder / "config.json").read_text())["config"]["job"]
    assert job["settings"]["drop"] == ["sunny"]
    assert job["data"]["file"] == str(tmp_path / "rows.parquet")
    parquet.write_table(table.drop(["price", "sunny"]), tmp_path / "new.parquet")
    new = run("predict", folder, tmp_path / "new.parquet", "--json").told["predictions"]
    assert len(new) == len(rows)
    assert np.corrcoef([r["prediction"] for r in new], [r["price"] for r in rows])[0, 1] > 0.8
    shown = run("predict", folder, tmp_path / "new.parquet").out
    assert "row 50" in shown
    assert "... and 190 more" in shown
    parquet.write_table(table.drop(["city"]), tmp_path / "less.parquet")
    done = run("predict", folder, tmp_path / "less.parquet")
    assert done.code == 3
    assert "city" in done.err
    (tmp_path / "half.parquet").write_bytes((tmp_path / "new.parquet").read_bytes()[:500])
    assert run("predict", folder, tmp_path / "half.parquet").code == 3
    again = run(*words, "--out", folder, "--resume", "--json")
    assert again.told["test"] == told["test"]
    parquet.write_table(table.slice(0, 200), tmp_path / "rows.parquet")
    done = run(*words, "--out", folder, "--resume")
    assert done.code == 3
    assert "the data is not what the run" in done.err


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("a,b\n1,2\n", ["--target", "c"], "'c'"),
        ("a,b\n" + "1,2\n" * 3, ["--target", "b"], ""),
        ("a,b\n" + "1,x\n" * 30, ["--target", "b"], ""),
        ("a,b\n" + "1,x\n2,y\n" * 30, ["--target", "b", "--task", "regression"], ""),
        ("a,b\n" + "1,x\n2,y\n" * 30, ["--target", "b", "--task", "ranking"], "ranking"),
        ("a,b\n" + "1,x\n2,y\n" * 30, ["--target", "b", "--drop", "c"], "c"),
        ("", ["--target", "b"], "is empty"),
        ("a,b\n", ["--target", "b"], "no rows"),
        ('a,b\n1,"x\n', ["--target", "b"], ""),
        ("a,a\n1,2\n", ["--target", "a"], "a"),
        ("\x00\x01\x02", ["--target", "a"], ""),
    ],
)
def test_tables_that_are_none(run, tmp_path, text, more, message):
    (tmp_path / "t.csv").write_text(text)
    done = run("train", "table", tmp_path / "t.csv", *more, "--out", tmp_path / "run", "--json")
    assert done.code in (2, 3)
    assert message in done.told["message"]
    assert not (tmp_path / "run").exists()


def test_files_that_are_not_there(run, tmp_path):
    out = ("--out", tmp_path / "run")
    assert run("train", "table", tmp_path / "no.csv", "--target", "x", *out).code == 3
    assert run("train", "table", tmp_path, "--target", "x", *out).code == 3
    assert run("train", "images", tmp_path / "no", *out).code == 3
    assert run("train", "images", tmp_path, *out).code == 3
    assert run("train", "text", tmp_path / "no", *out).code == 3
    assert run("train", "text", tmp_path, *out).code == 3
    assert run("predict", tmp_path / "no", "x").code == 2
    assert run("predict", tmp_path, "x").code == 2
    assert run("predict", __file__, "x").code == 2
    assert not (tmp_path / "run").exists()


# --- images ---------------------------------------------------------------------------------------


def test_images(run, tmp_path):
    write_shapes(tmp_path / "shapes", 14)
    (tmp_path / "shapes" / "bars" / "notes.txt").write_text("hello")
    whole = (tmp_path / "shapes" / "bars" / "1.png").read_bytes()
    (tmp_path / "shapes" / "bars" / "half\x1b[31m.png").write_bytes(whole[:60])
    folder = tmp_path / "run"
    done = run(
        *("train", "images", tmp_path / "shapes", "--epochs", 6, "--batch-size", 8),
        *("--out", folder, "--no-flip"),
    )
    assert done.code == 0
    assert "notes.txt" in done.err
    assert "\x1b" not in done.err + done.out
    told = json.loads((folder / "result.json").read_text())
    assert told["test"]["test_accuracy"] >= 0.75
    assert len(told["notes"]) == 2
    assert (
        json.loads((folder / "config.json").read_text())["config"]["job"]["settings"]["flip"]
        is False
    )
    rows = run("predict", folder, tmp_path / "shapes", "--json").told["predictions"]
    assert len(rows) == 30
    assert sum("error" in row for row in rows) == 2
    good = [row for row in rows if "error" not in row]
    assert np.mean([row["prediction"] in row["input"] for row in good]) > 0.75
    one = run("predict", folder, tmp_path / "shapes" / "bars" / "1.png")
    assert one.code == 0
    assert "bars" in one.out
    assert run("predict", folder, tmp_path / "shapes" / "bars" / "notes.txt").code == 3
    assert run("predict", folder, tmp_path / "no.png").code == 3
    (tmp_path / "empty").mkdir()
    assert run("predict", folder, tmp_path / "empty").code == 3
    done = run("train", "images", tmp_path / "shapes", "--strict", "--out", tmp_path / "other")
    assert done.code == 3
    assert "notes.txt" in done.err


def test_images_that_are_none(run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "no" / name).mkdir(parents=True)
        (tmp_path / "no" / name / "x.png").write_bytes(b"not an image")
    done = run("train", "images", tmp_path / "no", "--out", tmp_path / "run")
    assert done.code == 3
    assert "no images" in done.err
    write_shapes(tmp_path / "few", 1)
    assert run("train", "images", tmp_path / "few", "--out", tmp_path / "run").code == 3
    assert not (tmp_path / "run").exists()


# --- text -----------------------------------------------------------------------------------------

TINY = ("--layers", 1, "--width", 16, "--heads", 2, "--context", 16, "--steps", 30)


def test_text(run, tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 200, encoding="utf-8")
    folder = tmp_path / "run"
    words = ("train", "text", tmp_path / "a.txt", *TINY, "--epochs", 3, "--lr", 0.02)
    done = run(*words, "--out", folder)
    assert done.code == 0
    told = json.loads((folder / "result.json").read_text())
    assert told["test"]["test_bits_per_byte"] < 0.6 * told["baseline"]["bits_per_byte"]
    assert len(told["sample"]) == 200
    assert "a sample of what it writes" in done.out
    first = run("predict", folder, "the cat ", "--count", 40, "--temperature", 0).out
    assert first == run("predict", folder, "the cat ", "--count", 40, "--temperature", 0).out
    eager = ("--count", 40, "--temperature", 0, "--eager")
    assert first == run("predict", folder, "the cat ", *eager).out
    assert len(first) == 41
    assert "the" in first
    drawn = [
        run("predict", folder, "the ", "--seed", seed, "--json").told["predictions"][0]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    for given in (tmp_path / "a.txt", "x" * 5000, "", "-v", "né\n\x1b"):
        assert run("predict", folder, given, "--count", 3).code == 0
    place = tmp_path / "out.json"
    assert run("predict", folder, "a", "--count", 3, "--out", place).code == 0
    assert json.loads(place.read_text())["predictions"][0]["input"] == "a"
    assert run("predict", folder, "a", "--count", 3, "--out", place).code == 2


def test_text_of_the_standard_library(run, tmp_path):
    words = ("train", "text", *TINY[:-1], 3, "--epochs", 1, "--out", tmp_path / "run", "--json")
    told = run(*words).told
    assert told["test"]["test_bits_per_byte"] > 0
    assert 4 < told["baseline"]["bits_per_byte"] < 6
    job = json.loads((tmp_path / "run" / "config.json").read_text())["config"]["job"]
    assert job["data"]["files"] == "standard library"
    assert job["data"]["bytes"] > 1_000_000


def test_text_that_is_too_short(run, tmp_path):
    (tmp_path / "a.txt").write_text("short")
    done = run("train", "text", tmp_path / "a.txt", "--out", tmp_path / "run")
    assert done.code == 3
    assert "5 bytes" in done.err
