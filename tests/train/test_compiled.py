"""Steps that are compiled: the numbers of those in Python, and what becomes of what cannot be."""

import itertools

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn, optim
from cartograd.data import ArrayDataset, DataLoader
from cartograd.errors import NonFiniteError, TraceError
from cartograd.jobs import Options, prepare_digits, prepare_text
from cartograd.train import Callback, LRSchedule, Metric, Trainer

RNG = np.random.default_rng(2)
X = RNG.normal(size=(23, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)


def network():
    cg.manual_seed(1)
    return nn.Sequential(  # a bias before the batch norm would have rounding for its gradient
        nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)
    )


def train(compile=True, model=None, make=optim.AdamW, loss=None, data=None, fails=None, **settings):
    """A fit; the Trainer, and the events that it gave."""
    model = model or network()
    optimizer = make(model.parameters(), lr=0.01)
    settings = {"max_epochs": 3, "metrics": ["accuracy"], **settings}
    loss = loss or nn.CrossEntropyLoss()
    trainer = Trainer(model, optimizer, loss, compile=compile, **settings)
    seen = []
    trainer.recorder.subscribe(seen.append)
    data = data or DataLoader(ArrayDataset(X, Y), batch_size=5, shuffle=True, seed=3)
    if fails is None:
        trainer.fit(data, [(X, Y)])
    else:
        with pytest.raises(NonFiniteError, match=fails):
            trainer.fit(data, [(X, Y)])
    return trainer, seen


def losses(seen):
    return [event.data["loss"] for event in seen if event.kind == "batch"]


def compilations(seen, what="the training step"):
    return [e for e in seen if e.kind == "compile" and e.data["function"] == what]


def values(trainer):
    """Every number that training changes."""
    step = trainer.plan.step
    found = {name: value.numpy() for name, value in step.model.state_dict().items()}
    for k, saved in step.optimizer.state_dict()["state"].items():
        found |= {f"{k}.{name}": value.numpy() for name, value in saved.items()}
    if step.ema is not None:
        found |= {f"ema.{name}": value for name, value in step.ema.state_dict()["averages"].items()}
    return found


SETTINGS = [
    {},
    {"accumulate": 2},
    {"accumulate": 3, "clip_grad_norm": 0.1},
    {"clip_grad_value": 0.01, "ema": 0.9},
    {"make": optim.SGD},
    {"make": optim.RMSprop, "clip_grad_norm": 0.5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_numbers_are_those_of_the_step_in_python(settings):
    """With dropout, batch norm and a short last batch: the same draws and statistics."""
    (native, seen), (eager, told) = (train(compile, **settings) for compile in (True, False))
    np.testing.assert_allclose(losses(seen), losses(told), rtol=1e-4)
    expected = values(eager)
    for name, value in values(native).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-3, atol=2e-5, err_msg=name)
    for row, other in zip(native.history, eager.history, strict=True):
        assert row.keys() == other.keys()
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
        assert row["lr"] == other["lr"]
    kinds = [[e.kind for e in events if "compil" not in e.kind] for events in (seen, told)]
    assert kinds[0] == kinds[1]
    assert not compilations(told)
    assert native.plan.step.optimizer.step_calls == eager.plan.step.optimizer.step_calls
    np.testing.assert_allclose(native.predict(X), eager.predict(X), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["digits", "text"])
def test_the_curves_of_the_examples(kind, tmp_path):
    """Each step's loss, from the same weights on the same batches, within rounding."""
    found = []
    for compile in (True, False):
        if kind == "digits":
            job = prepare_digits(Options(1, 32, 3e-3))
        else:
            file = tmp_path / "text"
            file.write_bytes(b"to be, or not to be: that is the question. " * 200)
            job = prepare_text([file], Options(1, 4, 2e-3), 8, 16, 2, 32, 2)
        batches = list(itertools.islice(job.train, 8))
        optimizer = optim.AdamW(job.model.parameters(), lr=2e-3)
        settings = {"metrics": job.metrics, "clip_grad_norm": 1.0, "max_epochs": 2}
        trainer = Trainer(job.model, optimizer, job.loss, compile=compile, **settings)
        seen = []
        trainer.recorder.subscribe(seen.append)
        trainer.fit(batches)
        found.append(losses(seen))
    assert len(found[0]) == 16
    assert found[0][-1] < 0.9 * found[0][0], "it learns"
    np.testing.assert_allclose(found[0], found[1], rtol=2e-4)


def test_a_program_for_each_shape_and_no_more():
    """Learning rates, modes and accumulated shares change, but no program is made for them."""
    for accumulate in (1, 2):
        model = network()
        optimizer = optim.AdamW(model.parameters(), lr=0.01)
        schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        trainer = Trainer(
            model,
            optimizer,
            nn.CrossEntropyLoss(),
            max_epochs=4,
            accumulate=accumulate,
            scheduler=LRSchedule(schedule, every="step"),
        )
        seen = []
        trainer.recorder.subscribe(seen.append)
        trainer.fit(DataLoader(ArrayDataset(X, Y), batch_size=5), [(X, Y)])
        made = [event.data["function"] for event in seen if event.kind == "compile"]
        assert made.count("the evaluation step") == 1
        assert made.count("the training step") == (2 if accumulate == 1 else 1)
        assert [e.data["function"] for e in seen if e.kind == "compiling"] == made
        assert set(made) == {
            "the evaluation step",
            "the training step",
            *(
                ["the step that adds up gradients", "the last update of an epoch"]
                * (accumulate - 1)
            ),
        }
        early = [event for event in seen if event.kind == "compile" and event.step > 6]
        assert not early, "after the first epoch"


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else self.linear(-x)


def test_what_cannot_be_compiled_is_said():
    model = Branching()
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    match = r"(?s)the training step cannot be compiled: .*compile=False.*--eager"
    with pytest.raises(TraceError, match=match):
        train(model=model)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    trainer, _ = train(compile=False, model=model)
    assert trainer.history
    native = Trainer(model, None, nn.CrossEntropyLoss())
    with pytest.raises(TraceError, match="the evaluation step cannot be compiled"):
        native.validate([(X, Y)])
    with pytest.raises(TraceError, match="the prediction cannot be compiled"):
        native.predict(X)


class Asking(optim.SGD):
    """Looks at a value in each step."""

    def step(self, closure=None):
        self.param_groups[0]["lr"] = 0.01 if self.param_groups[0].params[0].sum().item() else 0.02
        return super().step(closure)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_optimiser_that_asks_for_values_is_left_to_python(accumulate):
    found, seen = train(make=Asking, accumulate=accumulate)
    notes = [event.data["text"] for event in seen if event.kind == "note"]
    assert len(notes) == 1
    assert notes[0].startswith("the step of Asking is not compiled: item() needs the value")
    expected, told = train(compile=False, make=Asking, accumulate=accumulate)
    np.testing.assert_allclose(losses(seen), losses(told), rtol=1e-4)
    assert compilations(seen)
    assert found.plan.step.optimizer.step_calls == expected.plan.step.optimizer.step_calls


def test_hooks_of_an_optimiser_are_called_each_step():
    calls = []

    def make(parameters, lr):
        optimizer = optim.SGD(parameters, lr=lr)
        optimizer.register_step_post_hook(lambda *args: calls.append(args[0].step_calls))
        return optimizer

    _, seen = train(make=make)
    assert calls == list(range(1, 16))
    assert [e.data["text"] for e in seen if e.kind == "note"] == [
        "the step of SGD is not compiled: it has hooks, which are Python functions"
    ]


class Watch(Callback):
    """Everything that a step changes, as it was after each batch."""

    def attach(self, run):
        self.step = run.step

    def event(self, event):
        if event.kind in ("batch", "step"):
            self.last = self.take()

    def take(self):
        model = self.step.model
        gradients = [p.grad for p in model.parameters()]
        optimizer = self.step.optimizer.state_dict()["state"]
        return {
            "generator": cg.random.default_generator.get_state().tolist(),
            "model": {k: v.numpy().tolist() for k, v in model.state_dict().items()},
            "gradients": [None if g is None else g.numpy().tolist() for g in gradients],
            "moments": [v.numpy().tolist() for cells in optimizer.values() for v in cells.values()],
            "average": {k: v.tolist() for k, v in self.step.ema.state_dict()["averages"].items()},
            "updates": self.step.ema.updates.item(),
        }


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("at", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("bad", ["loss", "gradients"])
def test_a_bad_step_changes_nothing(bad, accumulate, at, compile):
    """Neither parameters nor moments, averages, statistics, waiting gradients, generators."""
    data = []
    for k in range(5):
        rows = slice(4 * k, 4 * k + 4)
        data.append((X[rows], np.stack([Y[rows], np.full(4, k == at)], axis=1)))

    def loss(output, target):
        spoilt = target[:, 1].sum() > 0
        found = nn.functional.cross_entropy(output, target[:, 0])
        if bad == "loss":
            return found * cg.where(spoilt, np.float32(np.nan), np.float32(1))
        room = cg.where(spoilt, np.float32(0), np.float32(1))
        return found + (room + (output * 0).sum()).sqrt() - 1.0  # a slope of 0 / 0

    watch = Watch()
    match = "the loss function made it" if bad == "loss" else "not the gradients of"
    train(
        compile, loss=loss, data=data, fails=match, callbacks=[watch], metrics=[], ema=0.9,
        accumulate=accumulate, max_epochs=1,
    )  # fmt: skip
    now = watch.take()
    for key, value in watch.last.items():
        assert repr(now[key]) == repr(value), key  # a NaN that waits is seen at the update


class Freezing(Callback):
    """Trains the last layer alone at first, and the first one from the second epoch on."""

    def attach(self, run):
        self.step = run.step
        run.step.model[0].requires_grad_(False)

    def event(self, event):
        if event.kind == "epoch" and event.data["epoch"] == 0:
            first = self.step.model[0].requires_grad_(True)
            self.step.optimizer.add_param_group({"params": list(first.parameters()), "lr": 0.1})


def test_parameters_that_are_given_later():
    def make(parameters, lr):
        return optim.AdamW(list(parameters)[1:], lr=lr)

    results = [
        train(compile, make=make, callbacks=[Freezing()], max_epochs=2) for compile in (True, False)
    ]
    start, expected = network().state_dict()["0.weight"].numpy(), values(results[1][0])
    found = values(results[0][0])
    assert np.abs(found["0.weight"] - start).max() > 0.1
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)


class Given(Metric):
    """Notes what it is given."""

    def reset(self):
        self.totals = {"count": 0, "given": 0}

    def update(self, output, target, *, loss):
        self.totals["count"] += 1
        self.totals["given"] += output is not None

    def compute(self):
        return self.totals["given"] / self.totals["count"]


class Spared(Given):
    needs_output = False


@pytest.mark.parametrize("compile", [True, False])
def test_outputs_are_made_for_metrics_that_need_them(compile):
    for metrics, share in ((["accuracy", Spared("x")], 1.0), ([Given("x")], 1.0)):
        row = train(compile, metrics=metrics)[0].history[-1]
        assert row["x"] == row["val_x"] == share
    row = train(compile, metrics=[Spared("x")])[0].history[-1]
    assert row["x"] == row["val_x"] == (0.0 if compile else 1.0)


class Tree(nn.Module):
    """A dict of inputs and options in, a dict out."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, inputs, double=False):
        found = self.linear(inputs["x"]) * inputs["w"]
        return {"scores": found * 2 if double else found, "name": "linear", "none": None}


def test_trees_and_options():
    w = np.linspace(0.5, 2, 23, dtype=np.float32)[:, None]
    data = [
        {"inputs": {"x": X[:8], "w": w[:8]}, "double": True, "target": Y[:8]},
        {"inputs": {"x": X[8:16], "w": w[8:16]}, "double": False, "target": Y[8:16]},
        {"inputs": {"x": X[16:], "w": w[16:]}, "target": Y[16:]},
    ]
    found = []
    for compile in (True, False):
        cg.manual_seed(3)
        model = Tree()
        trainer = Trainer(
            model,
            optim.SGD(model.parameters(), lr=0.1),
            lambda output, target: nn.functional.cross_entropy(output["scores"], target),
            max_epochs=3,
            compile=compile,
        )
        seen = []
        trainer.recorder.subscribe(seen.append)
        trainer.fit(data)
        found.append(losses(seen))
        assert len(compilations(seen)) == (3 if compile else 0)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
