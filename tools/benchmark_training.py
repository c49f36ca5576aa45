"""Tell how much of this machine's peak a training step gets, and where the rest goes.

    python tools/benchmark_training.py configs/generator/tiny.yaml [--stage prior] [--core N] [--json FILE]

Operations are counted, not measured (`mfm_jax/flops.py`). One core, CPU seconds, the least of several rounds;
the peak is that of the best float32 matrix product between those rounds, so that other work on the machine
hardly matters. The table is of XLA's own trace of some steps: time by part of the model and operation.
"""

import argparse
import json
import os
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mfm_jax.mesh import MeshConfig, make_mesh, put_batch
from mfm_jax.models.codec import CodecConfig
from mfm_jax.training.outlines import Outline, load_run, outlines
from mfm_jax.training.state import abstract_state, begin_state, frozen_parameters
from mfm_jax.training.step import make_step
from mfm_jax.training.work import step_flops

SIDES = (256, 512, 1_024, 2_048)  # of the matrices of the peak: the best of them counts
TRACED = 3  # steps
SHOWN = 14  # rows of the table
HOLDERS = ("while", "call", "conditional", "ThunkExecutor", "Thunk", "PjRt", "jit_", "Tfrt", "Execute")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="+", help="YAML of a run, and name=value overrides")
    parser.add_argument("--stage", default="prior")
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})  # before JAX counts cores
    jax.config.update("jax_platforms", "cpu")
    found = outlines(load_run(*options.config), CodecConfig())
    outline = next((o for o in found if o.name == options.stage), None)
    if outline is None:
        raise SystemExit(f"--stage {options.stage}: one of {', '.join(o.name for o in found)}")
    figures = measure(outline, options.rounds)
    print(
        f"{outline.name}: {figures['flops'] / 1e9:.2f} GFLOP a step, {figures['seconds']:.3f} CPU s, "
        f"{figures['rate'] / 1e9:.1f} GFLOP/s of {figures['peak'] / 1e9:.1f}: "
        f"efficiency {figures['efficiency']:.2f}"
    )
    print("\n| part and operation | share of the step |\n|---|---|")
    for name, share in figures["profile"]:
        print(f"| {name} | {share:.3f} |")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure(outline: Outline, rounds: int) -> dict[str, Any]:
    """Run steps between products, then trace some."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    objective, batch = outline.objective, filled(outline.batch)
    objective.frozen = filled(getattr(objective, "frozen", {}))
    like = abstract_state(objective, batch, outline.train, mesh)
    rng = jax.random.key(0)
    state = begin_state(objective, rng, batch, outline.train, mesh, like)
    frozen = frozen_parameters(objective, mesh)
    step: Any = make_step(objective, outline.train, like, frozen, mesh)
    placed = put_batch(batch, mesh)
    flops = step_flops(objective, state.params, frozen, placed).model.total
    compiled = step.lower(state, frozen, placed, rng, np.float32(0)).compile()
    matrices = [jnp.ones((side, side), jnp.float32) for side in SIDES]
    product = jax.jit(jnp.matmul)
    for matrix in matrices:
        product(matrix, matrix).block_until_ready()
    steps, rates = [], []
    for _ in range(rounds):
        begun = time.process_time()
        state, _ = jax.block_until_ready(compiled(state, frozen, placed, rng, np.float32(0)))
        steps.append(time.process_time() - begun)
        for side, matrix in zip(SIDES, matrices):
            begun = time.process_time()
            product(matrix, matrix).block_until_ready()
            rates.append(2 * side**3 / max(time.process_time() - begun, 1e-6))
    seconds, peak = min(steps), max(rates)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(TRACED):
                state, _ = jax.block_until_ready(compiled(state, frozen, placed, rng, np.float32(0)))
        profile = by_part(Path(folder), compiled.as_text())
    rate = flops / seconds
    told = {"flops": flops, "seconds": seconds, "rate": rate, "peak": peak, "efficiency": rate / peak}
    return {**told, "all_seconds": steps, "profile": profile}


def filled(shapes: Any) -> Any:
    """Make arrays of such shapes: plausible numbers, which cost what others do."""
    rng = np.random.default_rng(0)

    def one(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if np.issubdtype(leaf.dtype, np.floating):
            return (0.5 + 0.1 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
        return np.ones(leaf.shape, leaf.dtype)

    return jax.tree.map(one, shapes)


def by_part(folder: Path, text: str) -> list[tuple[str, float]]:
    """Add up a trace's events by what they were compiled from; the largest shares first."""
    names = dict(re.findall(r"%?([\w.\-]+) = .*?op_name=\"([^\"]+)\"", text))
    spent: Counter[str] = Counter()
    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            if "CPU" not in plane.name:
                continue
            for line in plane.lines:
                for event in line.events:
                    if event.name in names and not event.name.startswith(HOLDERS):
                        spent[label(names[event.name], event.name)] += event.duration_ns
    total = sum(spent.values()) or 1
    return [(name, nanoseconds / total) for name, nanoseconds in spent.most_common(SHOWN)]


def label(source: str, name: str) -> str:
    """Shorten where an instruction comes from: pass, part of the model, kind."""
    passed = "backward" if "transpose(" in source else "forward"
    if "rematted" in source or "checkpoint" in source:
        passed += ", again"
    inner = re.sub(
        r"\b(jit|jvp|transpose|vmap|custom_vjp_call|checkpoint|rematted_computation)\b", "", source
    )
    words = re.sub(r"[()]", "/", inner).split("/")
    skipped = {"", "while", "body", "cond", "closed_call", "step", "Generator", "scan", "branch_1_fun"}
    parts = [word for word in words if word not in skipped]
    kind = re.sub(r"[._]\d+$|\.\d+", "", name)
    return f"{passed}: {'/'.join(parts[:2])} .. {parts[-1] if parts else ''} ({kind})"


if __name__ == "__main__":
    main()
