"""The jobs as a program calls them: options, models and their specs, records, samples."""

import json

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import FileFormatError, UsageError
from cartograd.jobs import Options, build_model, prepare_digits, prepare_text, run_job
from cartograd.jobs.job import json_safe, majority_baseline
from cartograd.jobs.models import weigh_model
from cartograd.jobs.predict import load_run, predict
from cartograd.jobs.stored import read_job
from cartograd.jobs.text import sample
from cartograd.train import Callback

SPECS = [
    {"kind": "digits", "width": 8},
    {"kind": "digits"},
    {"kind": "table", "width": 5, "sizes": [3, 40, 1000], "outputs": 7},
    {"kind": "table", "width": 0, "sizes": [3], "outputs": 1},
    {"kind": "images", "channels": 3, "classes": 4},
    {"kind": "images", "channels": 1, "classes": 2, "width": 8, "stages": 4},
    {"kind": "text", "context": 16, "width": 32, "layers": 3, "heads": 4},
    {"kind": "text"},
]


@pytest.mark.parametrize("spec", SPECS, ids=json.dumps)
def test_a_spec_is_weighed_without_being_built(spec):
    if spec["kind"] == "images" and "channels" not in spec:
        return
    count = sum(p.size for p in build_model(spec).parameters())
    assert 0.5 * count <= weigh_model(spec) <= 2 * count + 10_000


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "of kind None"),
        ({"kind": "cats"}, "of kind 'cats'"),
        ({"kind": "digits", "width": -1}, "width is -1"),
        ({"kind": "digits", "width": "8"}, "width is '8'"),
        ({"kind": "digits", "width": True}, "width is True"),
        ({"kind": "digits", "width": 1e9}, "width is 1000000000.0"),
        ({"kind": "digits", "width": 10**12}, "width is 1000000000000"),
        ({"kind": "digits", "colour": 3}, "colour"),
        ({"kind": "table", "width": 3}, "sizes"),
        ({"kind": "table", "width": 3, "sizes": [[1]], "outputs": 1}, "sizes is"),
        ({"kind": "images", "channels": 0, "classes": 2}, "channels is 0"),
        ({"kind": "text", "width": 10, "heads": 3}, "not a multiple"),
    ],
)
def test_specs_that_are_none(spec, message):
    with pytest.raises(FileFormatError, match=message):
        build_model(spec)


def test_the_gpt_looks_back_only():
    net = build_model({"kind": "text", "context": 8, "width": 16, "layers": 2, "heads": 2})
    x = np.arange(8)[None]
    y = x.copy()
    y[0, 5:] = 200
    with cg.no_grad():
        first, second = (net(cg.asarray(v)).numpy() for v in (x, y))
    np.testing.assert_array_equal(first[0, :5], second[0, :5])
    assert not np.array_equal(first[0, 5:], second[0, 5:])


@pytest.mark.parametrize(
    "wrong",
    [
        *({"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"lr": float("nan")}),
        *({"lr": float("inf")}, {"lr": -1.0}),
    ],
)
def test_options_that_make_no_sense(wrong):
    with pytest.raises(UsageError, match=r"at least 1|above 0"):
        Options(**{"epochs": 1, "batch_size": 1, "lr": 1.0, **wrong})


def test_the_same_seed_prepares_the_same_job():
    first, again, other = (prepare_digits(Options(1, 64, 1e-3, seed)) for seed in (3, 3, 4))
    assert first.record() == again.record()
    name, weights = next(iter(first.model.state_dict().items()))
    assert weights.tolist() == again.model.state_dict()[name].tolist()
    assert weights.tolist() != other.model.state_dict()[name].tolist()


def test_json_safe():
    value = {
        1: np.float32("nan"),
        "b": (np.int64(3), float("-inf"), None, True),
        "c": np.float64(2),
    }
    found = json_safe(value)
    assert found == {"1": "nan", "b": [3, "-inf", None, True], "c": 2.0}
    json.dumps(found, allow_nan=False)


def test_majority_baseline():
    found = majority_baseline(np.array([2, 2, 0]), np.array([2, 1, 2, 0]), ("a", "b", "c"))
    assert found == {"class": "c", "accuracy": 0.5}


class Stop(Callback):
    def event(self, event):
        if event.kind == "epoch":
            raise KeyboardInterrupt


def test_a_run_from_a_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("abcabd" * 100)

    def job(epochs=2):
        options = Options(epochs, 8, 1e-2)
        return prepare_text(["a.txt"], options, steps=4, context=8, layers=1, width=8, heads=2)

    outcome = run_job(job(), progress=False)
    assert outcome.folder.as_posix() == "runs/text-1"
    assert (outcome.status, outcome.exit_code, outcome.epochs, outcome.steps) == (
        *("completed", 0, 2, 8),
    )
    assert json.loads((outcome.folder / "result.json").read_text()) == outcome.to_dict()
    model, record = load_run(outcome.folder)
    assert record == read_job(outcome.folder)
    assert record["settings"]["context"] == 8
    assert len(sample(model, b"abc", 5)) == 5
    assert sample(model, b"", 5, temperature=0) == sample(model, b"\n", 5, temperature=0)
    for temperature in (0.0, 0.7):
        assert sample(model, b"abc", 40, temperature, 3) == sample(
            model, b"abc", 40, temperature, 3, eager=True
        )
    with pytest.raises(UsageError, match="name the run's folder"):
        run_job(job(), resume=True)
    with pytest.raises(UsageError, match="epochs: 2 in the run, 3 now"):
        run_job(job(3), outcome.folder, resume=True)
    with pytest.raises(UsageError, match="is taken"):
        run_job(job(), outcome.folder)
    with pytest.raises(KeyboardInterrupt):
        run_job(job(), progress=False, callbacks=[Stop()])
    assert (tmp_path / "runs" / "text-2" / "config.json").exists(), "what was begun is kept"
    (tmp_path / "a.txt").write_text("abcabd" * 101)
    with pytest.raises(cg.errors.DataError, match="the data is not"):
        run_job(job(), outcome.folder, resume=True)
    for wrong in ({"temperature": float("nan")}, {"temperature": -1}, {"count": 0}):
        with pytest.raises(UsageError, match="temperature="):
            predict(outcome.folder, "a", **wrong)


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = prepare_digits(Options(1, 64, 1e-3))
    job.monitor = "val_nonsense"
    with pytest.raises(UsageError, match="val_nonsense"):
        run_job(job, progress=False)
    assert list((tmp_path / "runs").iterdir()) == []
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    (tmp_path / "other" / "runs").write_text("x")
    with pytest.raises(UsageError, match="runs is a file"):
        run_job(job, progress=False)


def test_hostile_records(tmp_path, monkeypatch):
    """A config.json that asks for a huge model, or one that the weights are not of."""
    monkeypatch.chdir(tmp_path)
    outcome = run_job(prepare_digits(Options(1, 512, 1e-3)), progress=False)
    path = outcome.folder / "config.json"
    config = json.loads(path.read_text())
    job = config["config"]["job"]
    for model, message in (
        ({"kind": "digits", "width": 1 << 19}, "not those of the model"),
        ({"kind": "digits", "width": 16}, "do not fit"),
        ({"kind": "digits", "width": "32"}, "cannot be built"),
        ({"kind": "digits", "width": None}, "cannot be built"),
        ({"kind": "text"}, "not of its kind"),
    ):
        job["model"] = model
        path.write_text(json.dumps(config))
        with pytest.raises(FileFormatError, match=message):
            load_run(outcome.folder)
    job["model"] = {"kind": "digits", "width": 32}
    for inputs in ({}, {"classes": 3}, {"classes": ["a"]}):
        job["inputs"] = inputs
        path.write_text(json.dumps(config))
        np.save("x.npy", np.zeros((8, 8)))
        with pytest.raises(FileFormatError, match="damaged"):
            predict(outcome.folder, "x.npy")
