"""One result on any number of devices and hosts, and no device that holds the whole item table."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from interestkit.devices import join_hosts, make_mesh
from interestkit.examples import TrainingConfig
from interestkit.training import parted

PROGRAM = Path(__file__).parent / "on_devices.py"


def start(*arguments, **variables):
    """The program, started; JAX is told nothing by the environment but `variables`."""
    known = {name: value for name, value in os.environ.items() if "XLA" not in name}
    return subprocess.Popen(
        [sys.executable, PROGRAM, *arguments],
        env=known | {"JAX_PLATFORMS": "cpu"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(process):
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def on_eight():
    found = results(start("8", "2048", "1", "8x1", "2x4", "1x8"))
    return {row["mesh"]: row for row in found}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["8x1", "2x4", "1x8"])
def test_losses_and_weights_are_those_of_one_device(on_eight, mesh):
    one, many = on_eight["1"], on_eight[mesh]
    np.testing.assert_allclose(many["last"], one["last"], rtol=1e-5)
    assert many["shape"] == one["shape"] == [one["items"], 20]
    assert many["sum"] == pytest.approx(one["sum"], rel=1e-4)


@pytest.mark.slow
def test_no_device_holds_the_whole_item_table_or_all_scores(on_eight):
    assert on_eight["1"]["tables"]  # what is looked for is there on one device
    assert on_eight["1"]["scores"]
    assert on_eight["1"]["tables_before"]
    assert on_eight["1"]["items"] % 8  # so that rows are added
    for mesh in ("2x4", "1x8"):
        found = on_eight[mesh]
        assert (found["tables"], found["scores"], found["tables_before"]) == ([], [], [])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["8x1", "2x4", "1x8"])
def test_training_begins_with_the_same_bits_on_any_mesh(on_eight, mesh):
    assert on_eight[mesh]["before"] == on_eight["1"]["before"]


@pytest.mark.slow
def test_a_transformer_is_divided_over_both_axes_and_learns_the_same():
    one, many = results(start("8", "2048", "1", "2x4", INTERESTKIT_TEST_ENCODER="transformer"))
    np.testing.assert_allclose(many["last"], one["last"], rtol=1e-4)
    assert many["sum"] == pytest.approx(one["sum"], rel=1e-3)
    assert many["before"] == one["before"]
    assert one["layers"]
    assert one["layers_before"]
    for name in ("layers", "layers_before", "tables", "scores", "tables_before"):
        assert many[name] == []


@pytest.mark.slow
def test_two_processes_are_as_one():
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    shared = {"INTERESTKIT_COORDINATOR": f"localhost:{port}", "INTERESTKIT_PROCESSES": "2"}
    both = [start("2", "16", "2x2", **shared, INTERESTKIT_PROCESS=f"{n}") for n in range(2)]
    (two,), nothing = (results(process) for process in both)
    (one,) = results(start("1", "16", "1"))
    assert nothing == []
    assert (two["processes"], one["processes"]) == (2, 1)
    np.testing.assert_allclose(two["last"], one["last"], rtol=1e-5)
    assert two["sum"] == pytest.approx(one["sum"], rel=1e-4)
    assert (two["tables"], two["tables_before"], two["shape"]) == ([], [], one["shape"])
    assert two["before"] == one["before"]


def test_a_mesh_names_what_is_wrong():
    here = len(jax.devices())
    assert dict(make_mesh().shape) == {"data": here, "model": 1}
    for arguments, message in (
        ({"data": here + 1}, rf"at most {here} \(devices here\), got {here + 1} x 1 = {here + 1}"),
        ({"model": here + 1}, f"model must divide the {here} devices here, got {here + 1}"),
        ({"data": 0}, "data must be at least 1, got 0"),
        ({"data": 1, "model": 0}, "model must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make_mesh(**arguments)


def test_half_an_address_is_an_error():
    for given in (
        {"INTERESTKIT_PROCESSES": "2"},
        {
            "INTERESTKIT_COORDINATOR": "localhost:1",
            "INTERESTKIT_PROCESSES": "two",
            "INTERESTKIT_PROCESS": "0",
        },
    ):
        with pytest.raises(ValueError, match="must be host:port and two numbers, got"):
            join_hosts(given)


def test_what_a_mesh_cannot_divide_is_named():
    for axes, message in (
        (
            {"data": 3, "model": 1},
            "data axis of the mesh must be a number that divides 128 and 128",
        ),
        (
            {"data": 1, "model": 3},
            "model axis of the mesh must be a number that divides 2048, got 3",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            parted(TrainingConfig(), SimpleNamespace(shape=axes))
