"""How long a step takes at best: the slowest of computing, memory and the wires between chips."""

from typing import NamedTuple

from mfm_jax.pods.chips import Chip


class Work(NamedTuple):
    """What one device does in a step.

    Attributes:
        model: operations that the model asks for.
        executed: with those that rematerialisation repeats.
        memory: bytes to and from HBM.
        fabric: bytes sent inside the slice.
        network: bytes sent to other slices.
    """

    model: float
    executed: float
    memory: float
    fabric: float
    network: float


class Roofline(NamedTuple):
    """Seconds of each part, if it alone were to be done, at the chip's peak."""

    compute: float
    memory: float
    fabric: float
    network: float
    mfu: float  # at the best step time
    mfu_serial: float  # if nothing overlapped

    @property
    def step(self) -> float:
        """Seconds of a step in which all parts overlap: none can be faster."""
        return max(self[:4])

    @property
    def serial(self) -> float:
        """Seconds of a step in which no two parts overlap."""
        return sum(self[:4])

    @property
    def limit(self) -> str:
        """Name of the slowest part."""
        return max(zip(self[:4], self._fields))[1]


def roofline(chip: Chip, work: Work) -> Roofline:
    """Divide work by what a chip can do."""
    parts = (
        work.executed / chip.flops,
        work.memory / chip.bandwidth,
        work.fabric / chip.fabric,
        work.network / chip.network,
    )
    useful = work.model / chip.flops
    best, worst = max(*parts, 1e-30), max(sum(parts), 1e-30)
    return Roofline(*parts, mfu=useful / best, mfu_serial=useful / worst)
