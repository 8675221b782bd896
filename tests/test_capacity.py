"""The formulas of what training takes, against what a small compiled step has."""

import pytest
from capacity_check import check
from capacity_model import Case, catalogue_bytes, flops, memory, network, parameters, state_bytes


@pytest.fixture(scope="module")
def checked():
    return check(items=300, dim=16, batch=32, sampled=64)


@pytest.mark.parametrize(
    "name", ["parameters", *(f"{n}_bytes" for n in ("state", "catalogue", "log"))]
)
def test_sizes_of_arrays_are_predicted_exactly(checked, name):
    assert checked[name] == checked[f"{name}_measured"]


def test_arithmetic_is_predicted_to_a_factor_of_two(checked):
    """The compiler counts every elementwise operation, and merges some; formulas count products."""
    assert 0.5 < checked["flops"] / checked["flops_measured"] < 2


def test_a_part_of_the_table_is_as_large_as_the_model_axis_says():
    one, eight = (Case(items=1_000_000, devices=8, model=model) for model in (1, 8))
    assert parameters(one) == parameters(eight)
    small = state_bytes(Case(items=8, devices=1, model=1)) - 8 * 66 * 12
    assert state_bytes(one) - small == 1_000_000 * 66 * 12
    assert state_bytes(eight) - small == 125_000 * 66 * 12
    assert catalogue_bytes(eight) - 65 * 4 == (catalogue_bytes(one) - 65 * 4) / 8


def test_one_device_sends_nothing_and_holds_everything():
    alone = Case(devices=1, model=1)
    assert set(network(alone).values()) == {0}
    for name, size in memory(alone).items():
        assert size >= memory(Case(devices=64, model=8))[name]
    assert sum(flops(alone).values()) > 8 * sum(flops(Case(devices=64, model=8)).values())
