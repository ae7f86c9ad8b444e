"""What a Trainer does: events, evaluation, the state it leaves, and clear errors."""

import gc
import itertools
import json
import random
import warnings

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn, optim
from cartograd.data import ArrayDataset, DataLoader
from cartograd.errors import (
    DataError,
    FileFormatError,
    NonFiniteError,
    UsageError,
)
from cartograd.train import (
    MAE,
    BestModel,
    Callback,
    LRSchedule,
    RunFolder,
    Trainer,
    list_checkpoints,
    load_latest,
)
from cartograd.train.rng import compact, get_random_state, seed_everything

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)


def loader(batch_size=5, **options):
    return DataLoader(ArrayDataset(X, Y), batch_size=batch_size, **options)


def trainer(layers=None, lr=0.1, **settings):
    cg.manual_seed(1)
    model = layers or nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = optim.SGD(model.parameters(), lr=lr)
    settings = {"max_epochs": 2, "log_every": 3, **settings}
    return Trainer(model, optimizer, nn.CrossEntropyLoss(), **settings)


def events(of):
    seen = []
    of.recorder.subscribe(seen.append)
    return seen


def test_it_learns():
    found = trainer(max_epochs=40, lr=0.5, metrics=["accuracy"])
    result = found.fit(loader(shuffle=True), loader())
    assert result.status == "completed"
    assert result.exit_code == 0
    assert (result.epoch, result.step, result.folder) == (40, 200, None)
    assert len(result.history) == 40
    assert result.history[-1]["val_accuracy"] > 0.9
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert found.history == result.history
    assert found.test(loader())["test_accuracy"] == found.validate(loader(24))["val_accuracy"]


def test_events_in_their_order():
    found = trainer()
    seen = events(found)
    found.fit(loader(), loader())
    kinds = [event.kind for event in seen if event.kind not in ("compiling", "compile")]
    batch = ["batch", "step"]
    assert kinds == [
        "fit",
        *batch * 3,
        "train",
        *batch * 2,
        "validate",
        "epoch",
        *batch,
        "train",
        *batch * 3,
        "train",
        *batch,
        "validate",
        "epoch",
        "end",
    ]
    assert [e.step for e in seen if e.kind == "train"] == [3, 6, 9]
    losses = [e.data["loss"] for e in seen if e.kind == "batch"]
    sizes = [5, 5, 5, 5, 4]
    epoch = next(e.data for e in seen if e.kind == "epoch")
    assert epoch["loss"] == pytest.approx(np.average(losses[:5], weights=sizes), rel=1e-12)
    train = next(e.data for e in seen if e.kind == "train")
    assert train["loss"] == pytest.approx(np.mean(losses[:3]), rel=1e-12)
    assert train["lr"] == 0.1


def test_evaluation_changes_nothing():
    layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    found = trainer(layers, ema=0.9)
    found.fit(loader())
    layers[2].eval()  # a mode of its own, to be kept
    before = {k: v.numpy().copy() for k, v in layers.state_dict().items()}
    modes = [m.training for m in layers.modules()]
    generator = cg.random.default_generator.get_state().tolist()
    states = (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    first = found.validate(loader())
    assert found.validate(loader()) == first, "dropout does not drop"
    assert found.predict(X).shape == (24, 2)
    assert [m.training for m in layers.modules()] == modes
    assert cg.random.default_generator.get_state().tolist() == generator
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states  # noqa: NPY002
    for name, value in layers.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    assert all(p.grad is None for p in layers.parameters())


class Restless(nn.Module):
    """Draws from every generator, in evaluation too."""

    def __init__(self):
        super().__init__()
        self.linear, self.generator = nn.Linear(4, 2), cg.random.Generator(7)

    def forward(self, x):
        noise = float(np.random.normal()) + random.random()  # noqa: NPY002
        more = cg.random.normal((1,)) + cg.random.normal((1,), generator=self.generator)
        return self.linear(x) + noise + more


def test_evaluation_gives_back_what_it_drew():
    found = trainer(Restless())
    seed_everything(5)
    states = compact(get_random_state(found.model))
    first = found.predict(X)
    np.testing.assert_equal(compact(get_random_state(found.model)), states)
    np.testing.assert_array_equal(found.predict(X), first)


def test_how_often_it_is_validated_does_not_change_the_training():
    layers = [nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    for model, every in zip(layers, (1, 3), strict=True):
        found = trainer(model, max_epochs=3, validate_every=every)
        history = found.fit(loader(shuffle=True), loader()).history
    assert ["val_loss" in row for row in history] == [False, False, True]
    for a, b in zip(*(model.parameters() for model in layers), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_predictions():
    found = trainer()
    whole = found.predict(X)
    assert isinstance(whole, np.ndarray)
    for data in (loader(), [X[:7], X[7:]], [(X[:7], Y[:7]), (X[7:],)], cg.asarray(X)):
        np.testing.assert_allclose(found.predict(data), whole, rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="nothing to predict"):
        found.predict([])
    with pytest.raises(DataError, match="nothing to evaluate"):
        found.test([])


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x, scale=1.0):
        h = self.linear(x) * scale
        return {"logits": h, "total": h.sum()}


def test_outputs_that_are_trees_and_batches_that_are_dicts():
    def loss(output, target):
        return nn.functional.cross_entropy(output["logits"], target)

    model = Two()
    batches = [{"x": X[:7], "scale": 2.0, "target": Y[:7]}, {"x": X[7:], "target": Y[7:]}]
    found = Trainer(model, optim.SGD(model.parameters(), lr=0.1), loss, max_epochs=2)
    assert found.fit(batches).step == 4
    predicted = found.predict(batches)
    assert predicted["logits"].shape == (24, 2)
    assert predicted["total"].shape == (2,)


def test_a_forward_of_ones_own():
    def forward(model, batch):
        return model(batch.args[0] * 2)

    plain = trainer()
    own = Trainer(plain.model, None, nn.CrossEntropyLoss(), forward=forward)
    np.testing.assert_allclose(own.predict(X), plain.predict(2 * X), rtol=1e-6)


def test_frozen_parameters_stay():
    found = trainer(clip_grad_norm=1.0)
    frozen = found.model[0]
    frozen.requires_grad_(False)
    before = frozen.weight.numpy().copy()
    found.fit(loader())
    np.testing.assert_array_equal(frozen.weight.numpy(), before)


def test_lbfgs_is_not_for_batches():
    model = nn.Linear(4, 2)
    found = Trainer(model, optim.LBFGS(model.parameters()), nn.CrossEntropyLoss())
    with pytest.raises(UsageError, match="closure"):
        found.fit(loader())


def test_the_run_can_be_repeated_from_its_seed():
    runs = []
    for seed in (3, 3, 4):
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        model.load_state_dict(runs[0][0] if runs else model.state_dict())
        start = model.state_dict()
        found = trainer(model, seed=seed)
        runs.append((start, found.fit(loader(shuffle=True)).history))
    assert runs[0][1] == runs[1][1]
    assert runs[0][1] != runs[2][1]


def test_the_folder_of_a_run(tmp_path):
    found = trainer(out=tmp_path / "run", metrics=["accuracy"], config={"task": "toy"})
    result = found.fit(loader(), loader())
    assert result.folder == tmp_path / "run"
    assert {p.name for p in result.folder.iterdir()} == {
        ".lock",
        "checkpoints",
        "config.json",
        "environment.json",
        "metrics.csv",
        "metrics.jsonl",
    }
    config = found.folder.read_config()
    assert config["config"] == {"task": "toy"}
    assert config["optimizer"]["type"] == "SGD"
    assert config["optimizer"]["groups"][0]["lr"] == 0.1
    assert config["model"]["parameters"] == 44
    assert config["data"]["examples"] == 24
    assert config["seed"] == 0
    weights = load_latest(found.folder.checkpoints).arrays
    for name, value in found.model.state_dict().items():
        np.testing.assert_array_equal(weights[name], value.numpy())
    found.test(loader())
    lines = [json.loads(line) for line in found.folder.metrics_jsonl.read_text().splitlines()]
    assert [line["kind"] for line in lines].count("epoch") == 2
    assert lines[-1]["kind"] == "test"
    assert "test_accuracy" in found.folder.metrics_csv.read_text().splitlines()[0]


def test_checkpoints_by_steps(tmp_path):
    found = trainer(out=tmp_path, checkpoint_every=4, keep=9)
    seen = events(found)
    found.fit(loader())
    assert [e.step for e in seen if e.kind == "checkpoint"] == [0, 4, 8, 10]
    assert len(list_checkpoints(found.folder.checkpoints)) == 4


def test_schedules():
    rates = []
    for every in ("epoch", "step"):
        model = nn.Linear(4, 2)
        optimizer = optim.SGD(model.parameters(), lr=1.0)
        schedule = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        found = Trainer(
            model,
            optimizer,
            nn.CrossEntropyLoss(),
            max_epochs=2,
            scheduler=schedule if every == "epoch" else LRSchedule(schedule, every=every),
        )
        seen = events(found)
        found.fit(loader(12))
        rates.append([e.data["lr"] for e in seen if e.kind == "step"])
    assert rates == [[1.0, 1.0, 0.5, 0.5], [1.0, 0.5, 0.25, 0.125]]


def test_a_plateau_looks_at_a_number():
    model = nn.Linear(4, 2)
    optimizer = optim.SGD(model.parameters(), lr=1e-4)
    plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.1)
    with pytest.raises(UsageError, match="monitor="):
        Trainer(model, optimizer, nn.CrossEntropyLoss(), scheduler=plateau)
    for monitor, message in (("val_loss", None), ("nothing", "an epoch has no 'nothing'")):
        found = Trainer(
            model,
            optimizer,
            nn.CrossEntropyLoss(),
            max_epochs=3,
            scheduler=LRSchedule(plateau, monitor=monitor),
        )
        if message:
            with pytest.raises(UsageError, match=message):
                found.fit(loader(), loader())
        else:
            found.fit(loader(), loader())
            assert optimizer.param_groups[0]["lr"] < 1e-4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_input_is_named(bad):
    spoiled = X.copy()
    spoiled[7, 2] = bad
    data = DataLoader(ArrayDataset(spoiled, Y), batch_size=5)
    found = trainer()
    before = []

    class Keep(Callback):
        def event(self, event):
            if event.kind == "step" and event.step == 1:
                before.extend(p.numpy().copy() for p in found.model.parameters())

    found.plan.callbacks.append(Keep())
    match = r"step 2 \(epoch 1, batch 2\).*the batch's input holds a NaN or infinity already"
    with pytest.raises(NonFiniteError, match=match):
        found.fit(data)
    for p, value in zip(found.model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)
        assert p.grad is None


def test_a_bad_parameter_or_target_or_gradient_is_named():
    found = trainer()
    found.model[0].bias.assign(np.full(6, np.nan, np.float32))
    with pytest.raises(NonFiniteError, match=r"the parameter 0\.bias holds a NaN"):
        found.fit(loader())
    model = nn.Linear(4, 1)
    found = Trainer(model, optim.SGD(model.parameters(), lr=1.0), nn.MSELoss())
    target = np.full((24, 1), np.inf, np.float32)
    with pytest.raises(NonFiniteError, match="the batch's target holds a NaN"):
        found.fit([(X, target)])

    def root(output, target):
        return (output * 0).abs().sqrt().sum()  # 0, with an infinite slope

    found = Trainer(model, optim.SGD(model.parameters(), lr=1.0), root)
    with pytest.raises(NonFiniteError, match="the loss is finite, but not the gradients of weight"):
        found.fit([(X, np.zeros((24, 1), np.float32))])
    assert model.weight.grad is None


def test_gradients_that_overflow_only_in_sum():
    model = nn.Linear(1, 1, bias=False)

    def loss(output, target):
        return output.sum() * 2e38

    found = Trainer(model, optim.SGD(model.parameters(), lr=1.0), loss, accumulate=3)
    one = (np.full((1, 1), 3, np.float32), np.zeros((1, 1), np.float32))
    model.weight.assign(np.zeros((1, 1), np.float32))
    with pytest.raises(NonFiniteError, match="added up over several batches"):
        found.fit([one, one])


def test_a_loop_that_diverges_says_so(tmp_path):
    found = trainer(lr=1e30, max_epochs=50, out=tmp_path)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="lower learning rate"):
        found.fit(loader())
    stop = [json.loads(line) for line in found.folder.metrics_jsonl.read_text().splitlines()][-1]
    assert stop["kind"] == "stop"
    assert all(np.isfinite(p.numpy()).all() for p in found.model.parameters())


def test_stopping():
    class Stop(Callback):
        def attach(self, run):
            self.run = run

        def event(self, event):
            if event.kind == "step" and event.step == 7:
                self.run.stop("seven is enough")

    found = trainer(callbacks=[Stop()], max_epochs=9)
    result = found.fit(loader())
    assert result.status == "stopped"
    assert result.reason == "seven is enough"
    assert result.epoch == 2
    assert result.exit_code == 0


def test_the_best_weights_come_back(tmp_path):
    found = trainer(
        out=tmp_path,
        lr=2.0,
        max_epochs=6,
        metrics=["accuracy"],
        callbacks=[BestModel("val_accuracy")],
        ema=0.5,
    )
    history = found.fit(loader(shuffle=True), loader()).history
    best = max(row["val_accuracy"] for row in history)
    assert found.validate(loader())["val_accuracy"] == best
    assert load_latest(found.folder.best).meta["val_accuracy"] == best
    for name, value in found.folder.weights().items():
        np.testing.assert_array_equal(found.model.state_dict()[name].numpy(), value)


def test_the_weights_of_a_run(tmp_path):
    with pytest.raises(FileFormatError, match="no checkpoints"):
        RunFolder(tmp_path).weights()
    found = trainer(out=tmp_path, ema=0.5)
    found.fit(loader())
    weights = found.folder.weights()
    assert set(weights) == set(found.model.state_dict())
    expected = found.predict(X)
    found.model.load_state_dict(weights)
    np.testing.assert_array_equal(Trainer(found.model).predict(X), expected)


def test_callbacks_are_closed_whatever_happens():
    closed = []

    class Careful(Callback):
        def __init__(self, name, fail=False):
            self.name, self.fail = name, fail

        def open(self):
            if self.fail:
                raise RuntimeError("cannot open")

        def close(self):
            closed.append(self.name)

    with pytest.raises(RuntimeError, match="cannot open"):
        trainer(callbacks=[Careful("a"), Careful("b", fail=True), Careful("c")]).fit(loader())
    assert closed == ["b", "a"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": -1}, "max_epochs=-1"),
        ({"max_epochs": 1.5}, "max_epochs=1.5"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"log_every": True}, "log_every=True"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"keep": 1}, "keep=1 must be a whole number, at least 2"),
        ({"seed": -1}, "seed=-1"),
        ({"clip_grad_norm": 0}, "clip_grad_norm=0"),
        ({"clip_grad_value": float("nan")}, "clip_grad_value=nan"),
        ({"ema": 1.0}, "decay=1.0"),
        ({"metrics": ["loss"]}, "there is no metric 'loss'"),
        ({"metrics": [MAE("loss")]}, "two metrics have one name"),
        ({"callbacks": [print]}, "is not a callback"),
        ({"callbacks": [BestModel()]}, "give Trainer out="),
        ({"callbacks": [BestModel("strange")], "out": "x"}, "mode='min' or mode='max'"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        trainer(**settings).fit(loader(), loader())


def test_what_is_missing():
    bare = Trainer(nn.Linear(4, 2))
    with pytest.raises(UsageError, match="needs an optimizer and a loss"):
        bare.fit(loader())
    with pytest.raises(UsageError, match="there is no loss"):
        bare.validate(loader())
    assert bare.predict(X).shape == (24, 2)
    with pytest.raises(UsageError, match="no folder to resume from"):
        trainer().fit(loader(), resume=True)
    with pytest.raises(DataError, match="the loader gave no batches"):
        trainer().fit([])
    assert bare.history == []


def test_one_metric_need_not_be_in_a_list():
    assert [m.name for m in trainer(metrics="accuracy").plan.metrics] == ["loss", "accuracy"]
    assert [m.name for m in trainer(metrics=MAE("x")).plan.metrics] == ["loss", "x"]


def test_settings_hold_no_addresses():
    class Odd(nn.Module):
        def extra_repr(self):
            return repr(object())

    cg.manual_seed(0)
    model = nn.Sequential(Odd(), nn.Linear(1, 1))
    settings = Trainer(model, optim.SGD(model.parameters()), lambda o, t: o.sum()).plan.settings
    assert settings["model"]["layers"][1] == "  (0): Odd(<object object>)"
    assert settings["loss"].endswith("<lambda>")
    assert "0x" not in json.dumps(settings)


def test_no_epochs_at_all(tmp_path):
    result = trainer(max_epochs=0, out=tmp_path).fit(loader())
    assert (result.status, result.epoch, result.step) == ("completed", 0, 0)


def test_a_second_fit_without_a_folder_begins_anew():
    found = trainer()
    first = found.fit(loader(shuffle=True))
    again = found.fit(loader(shuffle=True))
    assert again.step == first.step
    assert again.history[0]["loss"] < first.history[0]["loss"], "from the trained parameters"


def test_memory_stays_flat():
    found = trainer(max_epochs=30)
    counts = []

    class Count(Callback):
        def event(self, event):
            if event.kind == "epoch":
                counts.append(len(gc.get_objects()))

    found.plan.callbacks.append(Count())
    gc.collect()  # what other tests left
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.fit(loader())
    late = counts[10:]
    assert max(late) - min(late) < 300, "events of the history aside, nothing is kept"
    assert all(b - a < 300 for a, b in itertools.pairwise(late))
