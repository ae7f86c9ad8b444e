"""A tiny run with everything in it whose state must survive: for the tests of resuming.

As a program it trains in the folder it is given until it ends (or is killed).
"""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np

import cartograd as cg
from cartograd import nn, optim
from cartograd.data import ArrayDataset, DataLoader
from cartograd.train import BestModel, EarlyStopping, LRSchedule, Trainer, load_latest


class Noisy(nn.Module):
    """Dropout from the global generator, noise from one of its own, a running count in a Buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.drop = nn.Linear(5, 7), nn.Dropout(0.3)
        self.second = nn.Linear(7, 3)
        self.generator = cg.random.Generator(5)
        self.register_buffer("calls", cg.asarray(0))
        self.register_buffer("hidden", cg.zeros(7), persistent=False)

    def forward(self, x):
        h = self.drop(self.first(x)).tanh()
        if self.training:
            self.calls.assign(self.calls + 1)
            self.hidden.assign(self.hidden * 0.5 + h.detach().mean(axis=0))
            h = h + 0.1 * cg.random.normal(h.shape, generator=self.generator)
        return self.second(h + self.hidden.detach())


class Draws(ArrayDataset):
    """Data with noise from NumPy's and Python's global generators."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + np.float32(0.01 * np.random.normal()), y  # noqa: NPY002

    def gather(self, indices):
        return tuple(
            np.stack(column) for column in zip(*map(self.__getitem__, indices), strict=True)
        )


def data(examples=26):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(examples, 5)).astype(np.float32)
    return x, (x[:, :3].argmax(axis=1)).astype(np.int64)


def make(out, **changes):
    """A trainer and its loaders; 7 batches an epoch, the last short, 3 updates of up to 3."""
    cg.manual_seed(11)
    model = Noisy()
    weight = model.first.weight  # in an order of memory that no checkpoint keeps
    weight.assign(np.asfortranarray(weight.numpy()))
    optimizer = optim.AdamW(model.parameters(), lr=0.05)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    settings = {
        "metrics": ["accuracy", "f1"],
        "callbacks": [
            LRSchedule(schedule, every="step"),
            BestModel("val_loss", restore=False),
            EarlyStopping("val_loss", patience=50),
        ],
        "max_epochs": 3,
        "seed": 4,
        "accumulate": 3,
        "clip_grad_norm": 1.0,
        "ema": 0.9,
        "log_every": 2,
        "checkpoint_every": 2,
        "compile": os.environ.get("TINY_EAGER") is None,
        **changes,
    }
    trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(), out=out, **settings)
    x, y = data()
    train = DataLoader(Draws(x, y), batch_size=4, shuffle=True, seed=2)
    return trainer, train, DataLoader(ArrayDataset(x[:9], y[:9]), batch_size=4)


def outcome(folder):
    """Everything a run leaves but times and paths: to the last bit."""
    found = load_latest(Path(folder) / "checkpoints")
    assert found is not None
    callbacks = found.meta["callbacks"]
    callbacks["JSONLLogger#0"] = None  # it has a line for each start
    callbacks.pop("At#0", None)  # the tests' own
    arrays = {name: (a.dtype.name, a.shape, a.tobytes()) for name, a in found.arrays.items()}
    with (Path(folder) / "metrics.csv").open(newline="") as file:
        rows = [
            {k: v for k, v in row.items() if k not in ("time", "seconds")}
            for row in csv.DictReader(file)
        ]
    text = (Path(folder) / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    rows += [
        {k: v for k, v in line.items() if k not in ("time", "seconds")}
        for line in lines
        if line["kind"] in ("train", "epoch", "validate")
    ]
    best = load_latest(Path(folder) / "best")
    assert best is not None
    best_arrays = {name: a.tobytes() for name, a in best.arrays.items()}
    return arrays, plain(found.meta), rows, best_arrays, plain(best.meta)


def plain(value):
    """Nested state with arrays as bytes, so that == compares bits."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.name, value.shape, value.tobytes()
    return value


if __name__ == "__main__":
    trainer, train, val = make(sys.argv[1])
    print("ready", flush=True)
    sys.exit(trainer.fit(train, val, resume=True).exit_code)
