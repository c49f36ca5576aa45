"""Devices and processes: one mesh with axes 'data', 'fsdp' and 'tensor', and the batch on it."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from mfm_jax.config import config
from mfm_jax.placement import BATCH, DATA, FSDP, TENSOR


@config
class MeshConfig:
    """How devices are arranged; at most one axis may be -1, which takes all the devices that are left.

    Attributes:
        data: copies of the model that share out the batch, over all slices; gradients are summed over them.
        fsdp: devices that share out the parameters, their moments and averages, and the batch too: weights
            are gathered where they are used, gradients scattered back. It stays inside a slice.
        tensor: devices that share out heads and hidden channels of one product. It wants near neighbours.
        slices: groups of devices whose link to each other is slow (TPU slices, GPU nodes without a fast
            fabric); they are the outermost part of `data`.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    slices: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that mean nothing."""
        sizes = {DATA: self.data, FSDP: self.fsdp, TENSOR: self.tensor}
        bad = [f"{name}={size}" for name, size in sizes.items() if size < 1 and size != -1]
        if bad:
            raise ValueError(f"mesh.{bad[0]}: must be 1 or more, or -1 to take all devices that are left")
        if list(sizes.values()).count(-1) > 1:
            raise ValueError(f"mesh {sizes}: only one axis can take the devices left; give the others sizes")
        if self.slices < 1:
            raise ValueError(f"mesh.slices={self.slices}: must be 1 or more")

    def shape(self, devices: int) -> tuple[int, int, int]:
        """Give the sizes of data, fsdp and tensor on so many devices.

        Raises:
            ValueError: they do not divide.
        """
        sizes = [self.data, self.fsdp, self.tensor]
        told = f"data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}, slices={self.slices}"
        known = int(np.prod([size for size in sizes if size > 0]))
        filled = [size if size > 0 else devices // known for size in sizes]
        if int(np.prod(filled)) != devices:
            raise ValueError(
                f"mesh {told}: the product must be the {devices} devices that there are; use -1 for the axis "
                "that takes the rest"
            )
        if filled[0] % self.slices:
            raise ValueError(
                f"mesh {told}: data is {filled[0]} and must be a multiple of slices; parameters are not "
                "split across slices"
            )
        return filled[0], filled[1], filled[2]


ALL_DATA = MeshConfig()


def make_mesh(config: MeshConfig = ALL_DATA, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arrange all devices of all processes, or the given ones, as (data, fsdp, tensor).

    Neighbours on `tensor`, then on `fsdp`, are neighbours in the machine.

    Raises:
        ValueError: the sizes do not divide the devices.
    """
    found = list(devices) if devices is not None else jax.devices()
    data, fsdp, tensor = config.shape(len(found))
    if config.slices > 1 and getattr(found[0], "slice_index", None) is not None:
        inside = (data // config.slices, fsdp, tensor)
        grid = mesh_utils.create_hybrid_device_mesh(
            inside, (config.slices, 1, 1), found, allow_split_physical_axes=True
        )
    elif found[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh((data, fsdp, tensor), found, allow_split_physical_axes=True)
    else:
        grid = np.asarray(found).reshape(data, fsdp, tensor)  # in order: process by process
    return Mesh(grid, (DATA, FSDP, TENSOR))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def random_key(seed: int, mesh: Mesh) -> Key[Array, ""]:
    """Give a random key that every device has."""
    key: Key[Array, ""] = jax.jit(lambda: jax.random.key(seed), out_shardings=replicated(mesh))()
    return key


def by_example(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def batch_share(mesh: Mesh) -> tuple[int, int]:
    """Say which part of every batch this process reads: (its number, how many parts there are).

    Processes whose devices hold the same examples, because `tensor` reaches across them, read the same part.
    """
    rows: dict[int, set[int]] = {}
    for row, devices in enumerate(mesh.devices.reshape(-1, mesh.shape[TENSOR])):
        for device in devices:
            rows.setdefault(device.process_index, set()).add(row)
    parts = sorted({tuple(sorted(part)) for part in rows.values()})
    return parts.index(tuple(sorted(rows[jax.process_index()]))), len(parts)


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Put a process's part of a batch on its devices.

    Args:
        batch: tree of NumPy arrays, batch first; with several processes, each gives its own part.
        mesh: from `make_mesh`.

    Raises:
        ValueError: the batch does not divide among this process's devices.
    """
    sharding = by_example(mesh)
    local = max(mesh.shape[DATA] * mesh.shape[FSDP] // batch_share(mesh)[1], 1)

    def put(array: np.ndarray) -> jax.Array:
        if array.shape[0] % local:
            raise ValueError(
                f"batch of {array.shape[0]}: must be a multiple of {local}, the devices of a process that "
                "share it out (data * fsdp); change the batch or the mesh"
            )
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(put, batch)


def on_this_host(tree: Any) -> Any:
    """Give arrays whole, on the first device of this process; with several processes, all must call it."""

    def one(array: jax.Array) -> jax.Array:
        if len(array.sharding.device_set) == 1:
            return array
        if not array.is_fully_addressable:
            return jnp.asarray(multihost_utils.process_allgather(array, tiled=True))
        return jnp.asarray(np.asarray(array))

    return jax.tree.map(one, tree)


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Let a script be told its place among processes; `start_processes` takes what is parsed."""
    group = parser.add_argument_group("processes", "found out on Cloud TPU, GKE, Slurm; elsewhere all three")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process", type=int, metavar="I", help="number of this one, from 0")


def start_processes(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Join the other processes of this run, before anything else touches JAX; alone, do nothing.

    On Cloud TPU, GKE, Kubernetes, Slurm and under Open MPI the place among them is found out. Elsewhere give
    all three, or set MFM_COORDINATOR, MFM_PROCESSES and MFM_PROCESS. On CPU, processes talk by gloo.

    Args:
        coordinator: HOST:PORT of process 0, which all can reach.
        processes: how many.
        process: the number of this one, from 0.

    Raises:
        ValueError: only some of the three are given, or they contradict each other.
    """
    address = coordinator or os.environ.get("MFM_COORDINATOR")
    count = processes if processes is not None else _number("MFM_PROCESSES")
    number = process if process is not None else _number("MFM_PROCESS")
    if address is None and count is None and number is None:
        if _cluster():
            jax.distributed.initialize()
        return
    if address is None or count is None or number is None:
        raise ValueError(
            f"--coordinator {address}, --processes {count}, --process {number}: give all three, or none"
        )
    if not 0 <= number < count:
        raise ValueError(f"--process {number}: must be 0 to {count - 1}, as --processes is {count}")
    if ":" not in address:
        raise ValueError(f"--coordinator {address}: must be HOST:PORT of process 0")
    jax.distributed.initialize(address, count, number)


def _number(name: str) -> int | None:
    value = os.environ.get(name)
    if value is None:
        return None
    if not value.isdigit():
        raise ValueError(f"{name}={value}: must be a whole number, 0 or more")
    return int(value)


def _cluster() -> bool:
    """Say whether something started several processes of us, as far as the environment tells."""
    env = os.environ
    if any(int(env.get(name, "1")) > 1 for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")):
        return True
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return True
    if "," in env.get("TPU_WORKER_HOSTNAMES", "") or "MEGASCALE_COORDINATOR_ADDRESS" in env:
        return True
    return "TPU_SKIP_MDS_QUERY" not in env and any(Path("/dev").glob("accel*"))
