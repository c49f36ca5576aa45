"""What a compiled program sends between devices: kinds, bytes, and whether it leaves the slice."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mfm_jax.pods.hlo import Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
LARGE = 2**15  # numbers of a parameter whose gradient must be scattered
SCATTERED = "all-reduce-scatter"  # a fusion on TPU: an all-reduce of which each device keeps a part
BETWEEN_SLICES = "_xla_megascale_transfer_type"  # of a TPU's message to its host, for other slices
# On TPU a collective may run behind several fusions, each of which names it: the first is where it starts.
BEHIND, STARTS = "async_collective_fusion_config", "AsyncCollectiveStart"


class Collective(NamedTuple):
    """One collective of a program.

    Attributes:
        kind: one of `KINDS`.
        rounds: how often it runs in a call.
        bytes: of the whole arrays, before a scatter or after a gather, on one device.
        sides: shapes of those arrays.
        groups: devices that take part together [groups, devices].
        crosses: whether a group lies in more than one slice.
    """

    kind: str
    rounds: float
    bytes: float
    sides: tuple[tuple[int, ...], ...]
    groups: np.ndarray
    crosses: bool

    @property
    def sent(self) -> float:
        """Bytes that a device sends, and receives, each time by the best algorithm (a ring's count)."""
        size = self.groups.shape[1]
        share = (size - 1) / size
        if self.kind == "collective-permute":
            return self.bytes
        return self.bytes * share * (2 if self.kind == "all-reduce" else 1)


class Sum(NamedTuple):
    """Collectives of one kind: how many lines of the program, how many runs, bytes of arrays, bytes sent."""

    lines: int
    runs: float
    bytes: float
    sent: float


def collectives(program: Program, per_slice: int) -> list[Collective]:
    """Find the collectives of a program, also those inside of fusions.

    Args:
        program: what one device does.
        per_slice: devices of a slice, numbered slice by slice.
    """
    found = []
    for name, body in program.computations.items():
        rounds = program.rounds.get(name, 0.0)
        if not rounds:
            continue
        scattered = _is_scatter(name, body)
        starts = any(STARTS in instruction.text for instruction in body)
        for instruction in body:
            kind = instruction.op.removesuffix("-start")
            goes_on = BEHIND in instruction.text and not starts
            if instruction.op == "send" and BETWEEN_SLICES in instruction.text:
                found.append(_between_slices(rounds, instruction, per_slice))
            if kind in KINDS and not instruction.op.endswith("-done") and not goes_on:
                kind = "reduce-scatter" if scattered and kind == "all-reduce" else kind
                found.append(_described(kind, rounds, instruction, body, per_slice))
    return found


def by_kind(found: Iterable[Collective]) -> dict[str, Sum]:
    """Add up, kind by kind; what leaves its slice is a kind of its own, `KIND (DCN)`."""
    sums: dict[str, Sum] = {}
    for one in found:
        name = one.kind + (" (DCN)" if one.crosses else "")
        old = sums.get(name, Sum(0, 0.0, 0.0, 0.0))
        runs = one.rounds
        sums[name] = Sum(
            old.lines + 1, old.runs + runs, old.bytes + runs * one.bytes, old.sent + runs * one.sent
        )
    return dict(sorted(sums.items()))


def whole_reductions(
    found: Iterable[Collective], sharded: set[tuple[int, ...]], fsdp: int, tensor: int
) -> list[tuple[int, ...]]:
    """Shapes of all-reduces that are those of whole parameters which should have been scattered.

    Args:
        found: collectives of a training step.
        sharded: shapes of the gradients of parameters that `fsdp` cuts, before it does. Those of fewer than
            `LARGE` numbers are not worth a scatter: XLA sums them whole, with others, in one message.
        fsdp: size of that axis. A sum over `data` alone, of parts that happen to be as large, is right.
        tensor: size of the axis inside of it; devices are numbered data, fsdp, tensor.
    """

    def along_fsdp(one: Collective) -> bool:
        place = one.groups // tensor % fsdp
        return bool((place != place[:, :1]).any())

    reduced = (sides for one in found if one.kind == "all-reduce" and along_fsdp(one) for sides in one.sides)
    return [sides for sides in reduced if sides in sharded and math.prod(sides) >= LARGE]


def _is_scatter(name: str, body: list[Instruction]) -> bool:
    return SCATTERED in name and any("dynamic-slice" in i.op or "dynamic-slice" in i.name for i in body)


def _described(
    kind: str, rounds: float, instruction: Instruction, body: list[Instruction], per_slice: int
) -> Collective:
    by_name = {i.name: i for i in body}
    given = [s for name in instruction.operands if name in by_name for s in by_name[name].shapes]
    made = list(instruction.shapes)
    if instruction.op.endswith("-start") and kind != "all-reduce":  # (operands, results, more)
        made = made[len(given) : 2 * len(given)] or made
    arrays = given if kind == "reduce-scatter" and given else made
    groups = _groups(instruction.text)
    crosses = bool((groups // per_slice != groups[:, :1] // per_slice).any())
    return Collective(
        kind,
        rounds,
        sum(s.bytes for s in arrays),
        tuple(s.sides for s in arrays),
        groups,
        crosses,
    )


def _between_slices(rounds: float, instruction: Instruction, per_slice: int) -> Collective:
    """Describe what hosts do for their slices: TPUs hand over their part, and are given the result."""
    kind = re.search(BETWEEN_SLICES + r'="(\w+)"', instruction.text)
    slices = re.search(r'_xla_megascale_target="\{([\d,]+)\}', instruction.text)
    count = len(_numbers(slices[1])) if slices else 2
    part = instruction.shapes[0]
    groups = per_slice * np.arange(count)[None]
    name = kind[1].lower().replace("_", "-") if kind else "send"
    return Collective(name, rounds, part.bytes, (part.sides,), groups, True)


def _groups(text: str) -> np.ndarray:
    """Read who talks to whom -> [groups, devices].

    XLA writes lists, a reshaped and transposed range, axes of a mesh, or pairs of devices.
    """
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if iota:
        return _range(iota[2], iota[3]).reshape(_numbers(iota[1])[0], -1)
    mesh = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\]"
        r"(?:T\(([\d,]+)\))?\))? \{([^}]*)\}",
        text,
    )
    if mesh:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        sides = [int(size) for size in sizes.values()]
        ids = _range(mesh[2] or ",".join(sizes.values()), mesh[3]).reshape(sides)
        inside = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", mesh[4])]
        last = np.moveaxis(ids, inside, range(-len(inside), 0))
        return last.reshape(-1, int(np.prod([sides[axis] for axis in inside])))
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}", text)
    if listed:
        return np.array([_numbers(row) for row in re.findall(r"\{([\d, ]+)\}", listed[1])])
    return np.zeros((1, 1), int)


def _range(sides: str, order: str | None) -> np.ndarray:
    numbers = np.arange(np.prod(_numbers(sides))).reshape(_numbers(sides))
    return numbers.transpose(_numbers(order)) if order else numbers


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
