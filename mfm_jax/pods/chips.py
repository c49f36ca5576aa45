"""What one chip can do, from its maker's public pages.

TPU: docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e} (peak bf16, HBM, bidirectional interconnect a chip, data
centre network a pod or chip). H100: NVIDIA's data sheet of the SXM5 board (dense bf16, HBM3, NVLink both
ways), one 400 Gb/s adapter a GPU as in a DGX H100.
"""

from typing import NamedTuple

GIB = 2.0**30
GIGABIT = 1e9 / 8


class Chip(NamedTuple):
    """One accelerator; the units are bytes, seconds and floating-point operations.

    Attributes:
        name: as in a target.
        platform: of JAX.
        flops: peak in bfloat16 with float32 sums, a second.
        memory: bytes of HBM.
        bandwidth: of it, bytes a second.
        fabric: bytes a second that a chip can send to the others of its slice (ICI, NVLink) while it receives
            as many: half of the bidirectional figure.
        network: the same between slices (DCN), the host's adapters shared among its chips.
    """

    name: str
    platform: str
    flops: float
    memory: float
    bandwidth: float
    fabric: float
    network: float


V5E = Chip("v5e", "tpu", 197e12, 16 * GIB, 819e9, 400e9 / 2, 25 * GIGABIT)
V5P = Chip("v5p", "tpu", 459e12, 95 * GIB, 2765e9, 1200e9 / 2, 50 * GIGABIT)
V6E = Chip("v6e", "tpu", 918e12, 32 * GIB, 1638e9, 800e9 / 2, 100 * GIGABIT)
H100 = Chip("h100", "gpu", 989e12, 80e9, 3352e9, 900e9 / 2, 400 * GIGABIT)
CHIPS = (V5E, V5P, V6E, H100)

# What `jax.Device.device_kind` says of each.
_KINDS = {"TPU v5 lite": V5E, "TPU v5": V5P, "TPU v5p": V5P, "TPU v6 lite": V6E, "NVIDIA H100": H100}


def chip_named(name: str) -> Chip:
    """Find a chip by the first half of a target.

    Raises:
        ValueError: there is none; the message lists them.
    """
    for chip in CHIPS:
        if chip.name == name:
            return chip
    raise ValueError(f"chip {name!r}: unknown; one of {', '.join(chip.name for chip in CHIPS)}")


def chip_of(kind: str) -> Chip | None:
    """Find a chip by a device's kind; None for what is not in the table, such as a CPU."""
    return next((chip for name, chip in _KINDS.items() if kind == name or kind.startswith(name + " ")), None)
