"""Devices: one mesh whose axis 'data' shares out the batch; parameters are the same everywhere."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Give the mesh of all devices (of all hosts), or of the given ones."""
    return Mesh(np.asarray(devices if devices is not None else jax.devices()), (DATA,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Put a host's batch on its devices.

    Args:
        batch: tree of NumPy arrays, batch first; with several hosts, each gives its own part.
        mesh: from `make_mesh`.

    Raises:
        ValueError: the batch does not divide among this host's devices.
    """
    sharding = by_example(mesh)
    local = len(mesh.local_devices)

    def put(array: np.ndarray) -> jax.Array:
        if array.shape[0] % local:
            raise ValueError(
                f"batch of {array.shape[0]}: must be a multiple of the {local} devices of a host"
            )
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(put, batch)
