"""From a compiled program to figures and a table."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mfm_jax.pods.collectives import by_kind, collectives, whole_reductions
from mfm_jax.pods.hlo import read, traffic
from mfm_jax.pods.roofline import Work, roofline
from mfm_jax.pods.targets import Target

MIB, GIB = 2**20, 2**30


class DoesNotFit(ValueError):
    """A program needs more memory than a chip has."""


def check_fits(name: str, need: float, target: Target) -> None:
    """Refuse a program that is too large.

    Raises:
        DoesNotFit: says what it needs, what there is, and what helps.
    """
    memory = target.chip.memory
    if need > memory:
        raise DoesNotFit(
            f"{name}: needs {need / GIB:.1f} GiB on each {target.chip.name}, which has {memory / GIB:.1f} "
            "GiB; raise --mesh fsdp= or tensor=, lower --batch, or set remat: layer in the config"
        )


def overflow(message: str) -> float | None:
    """Read from a compiler's message how many bytes were too many; None when it says something else."""
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    found = re.search(r"Used ([\d.]+)([KMGT]) of", message)
    scale = {"K": 2**10, "M": MIB, "G": GIB, "T": 2**40}
    return float(found[1]) * scale[found[2]] if found else float("inf")


def figures(
    compiled: Any,
    target: Target,
    sizes: Mapping[str, int],
    held: int,
    batch: int,
    flops: tuple[float, float],
    sharded: set[tuple[int, ...]],
) -> dict[str, Any]:
    """Measure a compiled program; memory, traffic and messages are those of one device.

    Args:
        compiled: from `jax.jit(...).lower(...).compile()`.
        target: it was compiled for.
        sizes: of the mesh's axes data, fsdp and tensor.
        held: bytes of parameters and state over all devices, each once.
        batch: bytes of a batch over all devices.
        flops: that the model asks for, and that are executed, over all devices.
        sharded: shapes that an all-reduce must not have; see `collectives.whole_reductions`.
    """
    analysis = compiled.memory_analysis()
    memory = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "temporary": analysis.temp_size_in_bytes,
        "alias": analysis.alias_size_in_bytes,
    }
    whole = memory["arguments"] + memory["temporary"] + memory["outputs"] - memory["alias"]
    memory["peak"] = getattr(analysis, "peak_memory_in_bytes", 0) or whole
    program = read(compiled.as_text())
    found = collectives(program, target.size // target.slices)
    sums = by_kind(found)
    work = Work(
        model=flops[0] / target.size,
        executed=flops[1] / target.size,
        memory=traffic(program),
        fabric=sum(one.sent for name, one in sums.items() if "DCN" not in name),
        network=sum(one.sent for name, one in sums.items() if "DCN" in name),
    )
    line = roofline(target.chip, work)
    fsdp, tensor = sizes["fsdp"], sizes["tensor"]
    ideal = held / (fsdp * tensor)
    per_device = batch / (sizes["data"] * fsdp)
    return {
        "memory": {**memory, "hbm": target.chip.memory},
        "ideal_arguments": ideal,
        "arguments_ratio": (memory["arguments"] - per_device) / ideal,
        "donated": memory["alias"] / max(memory["outputs"], 1),
        "collectives": {name: one._asdict() for name, one in sums.items()},
        "scatters": sum(one.runs for name, one in sums.items() if name.startswith("reduce-scatter")),
        "whole_reductions": [list(sides) for sides in whole_reductions(found, sharded, fsdp, tensor)],
        "loops_guessed": program.guessed,
        "work": work._asdict(),
        "roofline": {**line._asdict(), "step": line.step, "serial": line.serial, "limit": line.limit},
    }


COLUMNS = (
    "stage",
    "mesh (data, fsdp, tensor)",
    "batch",
    "arguments MiB (x ideal)",
    "alias",
    "temporary",
    "peak of HBM GiB",
    "collectives: runs (MiB sent)",
    "GFLOP",
    "step at best, ms",
    "MFU",
    "compile CPU s",
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay figures out as Markdown; sizes are those of one device."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    memory, line = row["memory"], row["roofline"]
    sends = [
        f"{name} {one['runs']:.0f} ({one['sent'] / MIB:.0f})" for name, one in row["collectives"].items()
    ]
    parts = ("compute", "memory", "fabric", "network")
    times = ", ".join(f"{part} {1e3 * line[part]:.1f}" for part in parts if line[part])
    return [
        row["stage"],
        ", ".join(str(row["mesh"][axis]) for axis in ("data", "fsdp", "tensor")),
        str(row["batch"]),
        f"{memory['arguments'] / MIB:.1f} ({row['arguments_ratio']:.2f})",
        f"{memory['alias'] / MIB:.1f}",
        f"{memory['temporary'] / MIB:.1f}",
        f"{memory['peak'] / GIB:.2f} of {memory['hbm'] / GIB:.0f}",
        "; ".join(sends) or "none",
        f"{row['flops']['model'] / 1e9 / row['devices']:.1f}",
        f"{1e3 * line['step']:.1f} ({times})",
        f"{line['mfu_serial']:.2f}-{line['mfu']:.2f}",
        f"{row['compile_cpu_seconds']:.0f}",
    ]
