"""Several devices, on one host or many: a mesh with a data axis and a model axis.

Users of a batch are spread over the data axis; all that has a row per item, and the softmax over
items, over the model axis. Arrays are placed here and the compiler divides the work (GSPMD: Xu et
al. 2021, arXiv:2105.04663), but for one thing that it would fetch the whole table for: `rows`.
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

DATA, MODEL = "data", "model"
# Arrays with a row per item, and the axis of the rows. Parts of optimizer states have these names.
_ITEM_AXIS = {
    **dict.fromkeys(("item_vectors", "item_bias", "repeat_item_bias"), 0),
    **dict.fromkeys(("content", "interest_codes", "interest_shares", "is_candidate", "events"), 0),
    "popularity": 1,
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
    if min(model, 1 if data is None else data) < 1:
        raise ValueError(f"data and model must be at least 1, got {data} and {model}")
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
    """Arrays on the mesh: those with a row per item in parts, all others whole on each device.

    Each device is sent its own part from the memory of the host.

    Args:
        tree: NumPy arrays, recognised by their names.
        mesh: The mesh; None takes the first device, for whole arrays.
        num_items: What `padded_items` says; rows of zeros are added at the end.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)

    def of(path, array):
        axis, array = _ITEM_AXIS.get(_name(path)), np.asarray(array)
        shape, dtype = list(array.shape), jax.dtypes.canonicalize_dtype(array.dtype)
        if axis is None:
            sharding = NamedSharding(mesh, P())
        else:
            shape[axis], sharding = num_items, NamedSharding(mesh, _spec(axis))

        def part(index):
            found = np.asarray(array[index], dtype)
            if axis is None:
                return found
            width = [(0, 0)] * array.ndim
            width[axis] = (0, len(range(num_items)[index[axis]]) - found.shape[axis])
            return np.pad(found, width)

        return jax.make_array_from_callback(tuple(shape), sharding, part)

    return jax.tree_util.tree_map_with_path(of, tree)


def whole(tree, mesh: Mesh | None, num_items: int):
    """The arrays that `place` divided, in NumPy, without the added rows.

    They are put together in the memory of each host: no device has more than two parts.
    """
    if mesh is None:
        return tree

    def of(path, array):
        axis = _ITEM_AXIS.get(_name(path))
        if axis is None:
            return np.asarray(array.addressable_data(0))
        if array.is_fully_addressable:
            return np.asarray(array).take(range(num_items), axis)
        with jax.set_mesh(mesh):
            parts = [  # one after the other, so that a device has one of them at a time
                np.asarray(_part(axis, array, np.int32(n)).addressable_data(0))
                for n in range(mesh.shape[MODEL])
            ]
        return np.concatenate(parts, axis).take(range(num_items), axis)

    return jax.tree_util.tree_map_with_path(of, tree)


@partial(jax.jit, static_argnums=0)
def _part(axis: int, array, number):
    """One part of an array that is divided over the model axis, on every device."""

    @partial(jax.shard_map, in_specs=(_spec(axis), P()), out_specs=P())
    def of(own, number):
        return jax.lax.psum(jnp.where(jax.lax.axis_index(MODEL) == number, own, 0), MODEL)

    return of(array, number)


def first_items(tree, num_items: int):
    """Inside a program: the arrays, with zeros in rows that stand behind those of the items."""

    def of(path, array):
        axis = _ITEM_AXIS.get(_name(path))
        if axis is None or array.shape[axis] == num_items:
            return array
        row = jax.lax.broadcasted_iota(jnp.int32, array.shape, axis)
        return jnp.where(row < num_items, array, 0)

    return jax.tree_util.tree_map_with_path(of, tree)


def stay_placed(tree):
    """Inside a program on a mesh: the arrays are to be where `place` puts them."""
    if not _on_mesh():
        return tree

    def of(path, array):
        axis = _ITEM_AXIS.get(_name(path))
        return jax.lax.with_sharding_constraint(array, P() if axis is None else _spec(axis))

    return jax.tree_util.tree_map_with_path(of, tree)


def spread(tree, *axes: str | None):
    """Inside a program on a mesh: divide the axes of arrays over axes of the mesh."""
    if not _on_mesh():
        return tree
    return jax.tree.map(lambda array: jax.lax.with_sharding_constraint(array, P(*axes)), tree)


def rows(table, codes, *before):
    """table[*before, codes], the rows of a table being divided over the model axis.

    Each device looks up what it has, and the sum over devices is what was asked for. Left to
    the compiler, every device would fetch the whole table first.
    """
    if not _on_mesh():
        return table[*before, codes]
    mesh = jax.sharding.get_abstract_mesh()
    along = DATA if codes.ndim and codes.shape[0] % mesh.shape[DATA] == 0 else None

    axis, specs = len(before), (P(along),) * (1 + len(before))

    @partial(jax.shard_map, in_specs=(_spec(axis), *specs), out_specs=P(along))
    def look_up(part, codes, *before):
        own = codes - jax.lax.axis_index(MODEL) * part.shape[axis]
        is_here = (own >= 0) & (own < part.shape[axis])
        found = part[*before, jnp.where(is_here, own, 0)]
        found = jnp.where(is_here.reshape(is_here.shape + (1,) * (found.ndim - own.ndim)), found, 0)
        return jax.lax.psum(found, MODEL)

    if table.dtype == bool:
        return look_up(table.astype(jnp.int8), codes, *before).astype(bool)
    return look_up(table, codes, *(jnp.broadcast_to(b, codes.shape) for b in before))


def _on_mesh() -> bool:
    return not jax.sharding.get_abstract_mesh().empty


def _spec(axis: int) -> P:
    return P(*[None] * axis, MODEL)


def _name(path) -> str | None:
    """Name of an array in a tree: that of its last part, but for the "value" of a parameter."""
    names = [getattr(part, "key", getattr(part, "name", None)) for part in path]
    return next(
        (name for name in reversed(names) if isinstance(name, str) and name != "value"), None
    )
