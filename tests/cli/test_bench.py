"""`cartograd bench` measures a training step, compiled and eager, and kernel by kernel."""

import pytest

import cartograd as cg
from cartograd.cli.bench import WORKLOADS, training_step


def test_help(run):
    done = run("bench", "--help")
    assert done.code == 0
    for option in ("--profile", "--json", "--batch-size", "--repeats"):
        assert option in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_times(run):
    done = run("bench", "digits", "--batch-size", 8, "--repeats", 2)
    assert done.code == 0
    for word in ("batch of 8", "compiled", "eager", "first"):
        assert word in done.out


def test_times_as_json(run):
    told = run("bench", "--batch-size", 8, "--repeats", 2, "--json").told
    assert (told["workload"], told["batch_size"]) == ("digits", 8)
    for name in ("first_step_seconds", "step_seconds", "eager_step_seconds"):
        assert told[name] > 0


def test_profile(run):
    done = run("bench", "digits", "--profile", "--batch-size", 8, "--repeats", 2, "--rows", 5)
    assert done.code == 0
    for word in ("kernel", "layer", "roofline", "GFLOP/s", "GB/s", "ceilings", "more"):
        assert word in done.out


def test_profile_as_json(run):
    told = run("bench", "--profile", "--batch-size", 8, "--repeats", 2, "--json").told
    kernels = told["kernels"]
    assert sum(k["share"] for k in kernels) == pytest.approx(1)
    layers = {layer for k in kernels for layer in k["layers"]}
    assert {"Sequential.0", "~Sequential.0", "AdamW"} <= layers


def test_what_is_no_workload(run):
    done = run("bench", "cats")
    assert done.code == 2
    assert "no workload is called 'cats': choose from digits, text" in done.err


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_step_trains(name):
    step, batch = training_step(name, 4)
    losses = [float(cg.asarray(step(*batch))) for _ in range(3)]
    assert losses[-1] < losses[0]
