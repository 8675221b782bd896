"""The formulas of what training takes, against what a small compiled step has."""

import math

import jax
import pytest
from capacity_check import check
from capacity_model import (
    Case,
    catalogue_bytes,
    flops,
    largest,
    memory,
    network,
    own_parameters,
    parameters,
    state_bytes,
)
from jax.sharding import AbstractMesh, AxisType, NamedSharding

from interestkit import devices
from interestkit.model import ModelConfig, abstract_params
from interestkit.packing import pack

LAYERS = {"layers": 2, "width": 16, "heads": 2}


@pytest.fixture(scope="module", params=[{}, LAYERS], ids=["mlp", "transformer"])
def checked(request):
    return check(items=300, dim=16, batch=32, sampled=64, **request.param)


def shape_of(case):
    """The model of a case."""
    return ModelConfig(
        num_items=case.items,
        num_interests=case.interests,
        content_dim=case.content,
        scales_days=tuple(10.0**n for n in range(case.scales)),
        item_dim=case.dim,
        hidden=(case.hidden, case.hidden),
        encoder="transformer" if case.layers else "mlp",
        num_layers=max(case.layers, 1),
        layer_dim=case.width,
        num_heads=case.heads,
    )


def arrays(case):
    """Names, shapes and placement of all weights as training has them; nothing is allocated."""
    packed = jax.eval_shape(pack, abstract_params(shape_of(case)))
    mesh = AbstractMesh((case.data, case.model), ("data", "model"), (AxisType.Auto,) * 2)
    for path, array in jax.tree_util.tree_flatten_with_path(packed)[0]:
        whole = array.shape
        if devices._has_item_rows(path):
            whole = (case.rows * case.model, *whole[1:])
        yield array.size, NamedSharding(mesh, devices._where(path)).shard_shape(whole)


@pytest.mark.parametrize(
    ("least", "settings"),
    [
        (1e5, {"items": 1_000, "dim": 32, "layers": 2, "width": 64, "heads": 2}),
        (1e6, {"items": 15_000, "dim": 64, "layers": 4, "width": 64, "heads": 2}),
        (1e7, {"items": 60_000, "dim": 128, "layers": 4, "width": 256, "heads": 4}),
        (1e8, {"items": 300_000, "dim": 256, "layers": 12, "width": 512, "heads": 8}),
        (1e9, {"items": 200_000, "dim": 512, "layers": 24, "width": 1792, "heads": 28}),
        (6e8, {"layers": 0}),
    ],
)
@pytest.mark.parametrize(("devices", "model"), [(1, 1), (8, 2), (64, 2)])
def test_parameters_up_to_a_billion_are_those_of_the_model_and_of_each_device(
    least, settings, devices, model
):
    case = Case(**(settings | {"devices": devices, "model": model}))
    found = list(arrays(case))
    assert least <= parameters(case) == sum(size for size, _ in found) < 10 * least
    assert own_parameters(case) == sum(math.prod(shape) for _, shape in found)


def test_the_largest_that_fits_grows_with_devices_and_the_next_one_does_not_fit():
    sizes = {}
    for number in (1, 8, 64):
        case, needed = largest(number, 80.0, items=1_000_000)
        sizes[number] = parameters(case)
        assert needed == sum(memory(case).values()) < 0.9 * 80e9
        assert case.divided_layers > 1e8
    assert sizes[1] < sizes[8] < sizes[64]
    assert parameters(largest(8, 16.0, items=1_000_000)[0]) < sizes[8]
    with pytest.raises(ValueError, match=r"no Transformer fits in 0.1 GB with {'items': 1000000}"):
        largest(1, 0.1, items=1_000_000)


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
