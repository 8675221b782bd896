"""Several devices, on one host or many: a mesh with a data axis and a model axis.

Users of a batch are spread over the data axis; all that has a row per item, and the softmax over
items, over the model axis; the weights of a Transformer's layers over both. Arrays are placed here
and the compiler divides the work (GSPMD: Xu et al. 2021, arXiv:2105.04663), but for one thing that
it would fetch the whole table for: `rows`.
"""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from interestkit.counting import pad
from interestkit.limits import check_counts

DATA, MODEL = "data", "model"
# Arrays with a row per item: weights, and of the catalogue. Parts of optimizer states have these
# names too.
ITEM_TABLES = ("item_vectors", "item_bias", "repeat_item_bias")
# Stacked weights of layers, and which axes divide layers, inputs and outputs: the heads and units
# of a layer are spread over the model axis (Shoeybi et al. 2019, arXiv:1909.08053), the rest is
# fetched from the data axis when the layer needs it (ZeRO: Rajbhandari et al. 2020, SC).
LAYERS = {
    **dict.fromkeys(("attend_in", "attend_gate", "feed_in", "feed_gate"), P(None, DATA, MODEL)),
    **dict.fromkeys(("attend_out", "feed_out"), P(None, MODEL, DATA)),
}
_HAVE_ITEM_ROWS = {
    *ITEM_TABLES,
    *("content", "interest_codes", "interest_shares", "is_candidate", "popularity", "width"),
}


def make_mesh(*, data: int | None = None, model: int = 1) -> Mesh:
    """A mesh of data x model devices.

    Args:
        data: Groups of devices that share a batch; None takes all devices that there are.
        model: Devices in a group that share the item table.

    Raises:
        ValueError: If there are not so many devices, or `model` does not divide their number.

    Example:
        >>> dict(make_mesh(data=1).shape)
        {'data': 1, 'model': 1}
    """
    devices = jax.devices()
    check_counts(1, model=model, data=1 if data is None else data)
    if data is None and len(devices) % model:
        raise ValueError(f"model must divide the {len(devices)} devices here, got {model}")
    data = len(devices) // model if data is None else data
    if data * model > len(devices):
        what = f"{data} x {model} = {data * model}"
        raise ValueError(f"data x model must be at most {len(devices)} (devices here), got {what}")
    if left_out := {d.process_index for d in devices[data * model :]} - {
        d.process_index for d in devices[: data * model]
    }:
        raise ValueError(f"the mesh must have a device of each process, got none of {left_out}")
    axes = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, model), (DATA, MODEL), axes, devices=devices[: data * model])


def join_hosts(environment: Mapping[str, str] | None = None) -> int:
    """Join the processes of a job, before JAX is used; returns the number of processes.

    On Cloud TPU, SLURM and Open MPI JAX finds out everything by itself. Elsewhere three variables
    say it: INTERESTKIT_COORDINATOR (host:port of process 0), INTERESTKIT_PROCESSES and
    INTERESTKIT_PROCESS (0 for the first).

    Args:
        environment: Variables; None takes those of this process.

    Raises:
        ValueError: If only some of the three are set, one is no number, or none is set and
            there is no such cluster.
        RuntimeError: If JAX has been used already, or the processes were joined before.
    """
    environment = os.environ if environment is None else environment
    # on processors one program ends before the next begins: their exchanges must not mix
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    names = [f"INTERESTKIT_{name}" for name in ("COORDINATOR", "PROCESSES", "PROCESS")]
    given = {name: environment[name] for name in names if environment.get(name)}
    if not given:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ValueError(
                f"no cluster was found here ({error}); set {', '.join(names)}"
            ) from error
        return jax.process_count()
    if len(given) < len(names) or not all(given[name].isdecimal() for name in names[1:]):
        raise ValueError(f"{', '.join(names)} must be host:port and two numbers, got {given}")
    address, total, own = given.values()
    jax.distributed.initialize(address, int(total), int(own))
    return jax.process_count()


def use_compilation_cache() -> None:
    """Keep compiled programs on disk between processes, unless JAX is already told where."""
    if jax.config.jax_compilation_cache_dir is None:
        from platformdirs import user_cache_path

        jax.config.update("jax_compilation_cache_dir", str(user_cache_path("interestkit") / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def on_mesh(mesh: Mesh | None):
    """A context in which programs run on the mesh; None changes nothing."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def padded_items(num_items: int, mesh: Mesh | None) -> int:
    """Rows of the item table that give each device of the model axis as many."""
    parts = mesh.shape[MODEL] if mesh else 1
    return -(-num_items // parts) * parts


def place(tree, mesh: Mesh | None = None, num_items: int = 0):
    """Arrays on the mesh: those of items and layers in parts, all others whole on each device.

    Each device is sent its own part from the memory of the host.

    Args:
        tree: NumPy arrays, recognised by their names.
        mesh: The mesh; None takes the first device, for whole arrays.
        num_items: What `padded_items` says; rows of zeros are added at the end of item tables.
    """
    if mesh is None:
        return jax.device_put(tree)

    def of(path, array):
        array = np.asarray(array)
        divided, dtype = _has_item_rows(path), jax.dtypes.canonicalize_dtype(array.dtype)
        shape = (num_items, *array.shape[1:]) if divided else array.shape

        def part(index):
            found = np.asarray(array[index], dtype)
            return pad(found, len(range(num_items)[index[0]])) if divided else found

        sharding = NamedSharding(mesh, _where(path))
        return jax.make_array_from_callback(shape, sharding, part)

    return jax.tree_util.tree_map_with_path(of, tree)


def whole(tree, mesh: Mesh | None, num_items: int):
    """The arrays that `place` divided, in NumPy, without the added rows.

    They are put together in the memory of each host: no device has more than two parts, or a layer.
    """
    if mesh is None:
        return tree

    def of(path, array):
        if _where(path) == P():
            return np.asarray(array.addressable_data(0))
        if array.is_fully_addressable:
            return np.asarray(array)[: num_items if _has_item_rows(path) else None]
        if not _has_item_rows(path):
            with jax.set_mesh(mesh):
                layers = (_layer(array, np.int32(n)) for n in range(len(array)))
                return np.stack([np.asarray(layer.addressable_data(0)) for layer in layers])
        with jax.set_mesh(mesh):
            parts = [  # one after the other, so that a device has one of them at a time
                np.asarray(_part(array, np.int32(n)).addressable_data(0))
                for n in range(mesh.shape[MODEL])
            ]
        return np.concatenate(parts)[:num_items]

    return jax.tree_util.tree_map_with_path(of, tree)


@jax.jit
def _part(array, number):
    """One part of an array that is divided over the model axis, on every device."""

    @partial(jax.shard_map, in_specs=(P(MODEL), P()), out_specs=P())
    def of(own, number):
        return jax.lax.psum(jnp.where(jax.lax.axis_index(MODEL) == number, own, 0), MODEL)

    return of(array, number)


@jax.jit
def _layer(array, number):
    """The weights of one layer, on every device."""
    return jax.lax.with_sharding_constraint(array[number], P())


def first_items(tree, num_items: int):
    """Inside a program: the arrays, with zeros in rows that stand behind those of the items."""

    def of(path, array):
        if not _has_item_rows(path) or len(array) == num_items:
            return array
        row = jax.lax.broadcasted_iota(jnp.int32, array.shape, 0)
        return jnp.where(row < num_items, array, 0)

    return jax.tree_util.tree_map_with_path(of, tree)


def stay_placed(tree):
    """Inside a program on a mesh: the arrays are to be where `place` puts them."""
    if not _on_mesh():
        return tree

    def of(path, array):
        return jax.lax.with_sharding_constraint(array, _where(path))

    return jax.tree_util.tree_map_with_path(of, tree)


def spread(tree, *axes: str | None):
    """Inside a program on a mesh: divide the axes of arrays over axes of the mesh."""
    if not _on_mesh():
        return tree
    return jax.tree.map(lambda array: jax.lax.with_sharding_constraint(array, P(*axes)), tree)


def rows(table, codes, *after):
    """table[codes, *after], the rows of a table being divided over the model axis.

    Each device looks up what it has, and the sum over devices is what was asked for. Left to
    the compiler, every device would fetch the whole table first.
    """
    if not _on_mesh():
        return table[codes, *after]
    mesh = jax.sharding.get_abstract_mesh()
    along = P(DATA if codes.ndim and codes.shape[0] % mesh.shape[DATA] == 0 else None)

    @partial(jax.shard_map, in_specs=(P(MODEL), *(along,) * (1 + len(after))), out_specs=along)
    def look_up(part, codes, *after):
        own = codes - jax.lax.axis_index(MODEL) * len(part)
        is_here = (own >= 0) & (own < len(part))
        found = part[jnp.where(is_here, own, 0), *after]
        found = jnp.where(is_here.reshape(is_here.shape + (1,) * (found.ndim - own.ndim)), found, 0)
        return jax.lax.psum(found, MODEL)

    if table.dtype == bool:
        return look_up(table.astype(jnp.int8), codes, *after).astype(bool)
    return look_up(table, codes, *after)


def _on_mesh() -> bool:
    return not jax.sharding.get_abstract_mesh().empty


def _where(path) -> P:
    """The axes of the mesh that divide an array of a tree."""
    return P(MODEL) if _has_item_rows(path) else LAYERS.get(_name(path), P())


def _has_item_rows(path) -> bool:
    return _name(path) in _HAVE_ITEM_ROWS


def _name(path) -> str:
    """The last part of an array's name but for "value" of a weight."""
    names = [getattr(part, "key", getattr(part, "name", None)) for part in path]
    names = [name for name in names if isinstance(name, str) and name != "value"]
    return names[-1].rpartition(".")[2] if names else ""
