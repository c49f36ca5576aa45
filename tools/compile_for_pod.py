"""Compile a run's training steps for accelerators that are not here, and say what they will cost there.

    python tools/compile_for_pod.py configs/generator/paper.yaml --target v5e:16x16 [--json FILE]
    python tools/compile_for_pod.py configs/codec/paper.yaml --stage joint --target 2xv5e:4x4 --mesh fsdp=8
    python tools/compile_for_pod.py configs/generator/paper.yaml --target h100:8 --inference

Targets: v5e:2x4 v5e:16x16 v5p:4x4x4 v5p:8x8x16 v6e:16x16 2xv5e:4x4 (two slices) h100:8, and others of these
kinds. TPUs need `pip install 'libtpu==0.0.42.*'`; H100s the packages that the message names, and `ptxas`.
What is compiled is what trains: the same step, objective and batches, described by shapes. Sizes are those of
one device.
Exit code 2: a bad config or target, or a step that does not fit.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from mfm_jax.config import load
from mfm_jax.flops import count
from mfm_jax.inference.outlines import decoding, generating, sounding
from mfm_jax.layers.platform import made_for
from mfm_jax.mesh import MeshConfig, by_example, make_mesh
from mfm_jax.models.codec import CodecConfig
from mfm_jax.models.vae import VAEConfig
from mfm_jax.pods.report import DoesNotFit, check_fits, figures, overflow, table
from mfm_jax.pods.targets import Target, devices, parse
from mfm_jax.sharding import abstract
from mfm_jax.training.ahead import Ahead, size_in_bytes, steps
from mfm_jax.training.codec_run import CodecRun
from mfm_jax.training.generator_run import GeneratorRun
from mfm_jax.training.outlines import Outline, Run, load_run, outlines, state_bytes, trained_shapes
from mfm_jax.training.vae_adversarial import VAE_PART
from mfm_jax.training.vae_run import VAERun
from mfm_jax.training.volume import volume

FSDP = 16  # devices that share out the parameters unless told otherwise, if a slice has as many
QUICK = -1.0  # effort that compiles several times sooner; sharding, donation and arguments are the same
SHARE = 4  # parts of a chip's memory, of which parameters and moments may take one


def main() -> int:
    """Compile, print, write; give the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="+", help="YAML of a run, and name=value overrides")
    parser.add_argument("--target", required=True, help="such as v5e:16x16")
    parser.add_argument("--stage", help="only this one: its name, or the beginning of it")
    parser.add_argument("--mesh", help="data=..,fsdp=..,tensor=.. in place of the config's")
    parser.add_argument("--batch", type=int, help="examples in the global batch")
    parser.add_argument("--codec", type=Path, help="YAML of the codec that a generator is for")
    parser.add_argument(
        "--inference", action="store_true", help="compile what the trained model does instead"
    )
    parser.add_argument(
        "--effort",
        type=float,
        default=QUICK,
        help=f"of the compiler for speed, {QUICK:g} (quick, the default) to 0, as a run has it, or 1",
    )
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # what is plugged in here is not what is compiled for
    try:
        if not -1 <= options.effort <= 1:
            raise ValueError(
                f"--effort {options.effort:g}: must be from -1 (quick) to 1; 0 is as a run has it"
            )
        rows = compiled(options)
    except ValueError as error:
        print(f"compile_for_pod: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def compiled(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Compile every stage that is asked for.

    Raises:
        ValueError: the config or the target is bad, or a step does not fit.
    """
    target = parse(options.target)
    run, codec = load_run(*options.config), codec_of(options)
    stage = options.stage or ""
    wanted = [o for o in outlines(run, codec, options.batch) if o.name.startswith(stage.split("/")[0])]
    wanted = wanted[-1:] if options.inference else wanted  # the last stage leaves the whole model
    if not wanted:
        raise ValueError(f"--stage {stage!r}: this run has none of that name; leave it out to see all")
    settled = []
    for outline in wanted:  # refuse before anything takes long
        mesh = settle(outline, target, options.mesh or ("fsdp=1" if options.inference else None))
        settled.append((divided(outline, run, codec, mesh, target, options.batch), mesh))
    everything = devices(target)
    rows = []
    with made_for(target.chip.platform):
        for outline, mesh_config in settled:
            mesh = make_mesh(mesh_config, everything)
            found = [call_of(run, outline, mesh)] if options.inference else steps(outline, mesh)
            for step in found:
                if options.inference or step.name.startswith(stage):
                    rows.append(compile_step(step, outline, target, mesh, options.effort))
    return rows


def call_of(run: Run, outline: Outline, mesh: Mesh) -> Ahead:
    """Trace what a batch job calls with the parameters that a stage leaves behind."""
    rows = max(leaf.shape[0] for leaf in outline.batch.values())
    if isinstance(run, GeneratorRun):
        call = generating(run.model, rows)
    elif isinstance(run, CodecRun):
        call = decoding(run.model, rows)
    elif isinstance(run.model, VAEConfig):
        call = sounding(run.model, rows)
    else:
        raise ValueError("--inference: a converted RAVE decodes as a stream; give a VAE's config")
    shapes = trained_shapes(outline)
    params = abstract(shapes.get(VAE_PART, shapes) if isinstance(run, VAERun) else shapes, mesh)
    split = by_example(mesh)
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split), call.batch
    )
    flops = count(call.function, params, batch).total
    lowered = jax.jit(call.function).lower(params, batch)
    leaves = jax.tree.leaves(params)
    sizes = size_in_bytes(params), size_in_bytes(call.batch)
    return Ahead(call.name, lowered, (flops, flops), sum(leaf.size for leaf in leaves), *sizes, set())


def compile_step(step: Ahead, outline: Outline, target: Target, mesh: Any, effort: float) -> dict[str, Any]:
    """Compile one step and measure it.

    Args:
        step: traced.
        outline: of its stage.
        target: what it is compiled for.
        mesh: of the target's devices.
        effort: of the compiler, -1 to 1; 0 is its own.

    Raises:
        DoesNotFit: it needs more memory than there is.
    """
    print(f"{step.name}: compiling for {target.name} ..", file=sys.stderr, flush=True)
    begun, clock = time.process_time(), time.monotonic()
    try:
        program = step.lowered.compile({"exec_time_optimization_effort": effort} if effort else None)
    except jax.errors.JaxRuntimeError as error:
        need = overflow(str(error))
        if need is None:
            raise
        check_fits(step.name, need, target)
        raise DoesNotFit(f"{step.name}: {str(error).splitlines()[0]}") from None
    spent = {"compile_cpu_seconds": time.process_time() - begun, "compile_seconds": time.monotonic() - clock}
    sizes = dict(mesh.shape)
    found = figures(
        program,
        target,
        sizes,
        step.held,
        step.batch,
        step.flops,
        step.sharded,
    )
    check_fits(step.name, found["memory"]["peak"], target)
    return {
        "stage": step.name,
        "target": target.name,
        "devices": target.size,
        "mesh": {**sizes, "slices": target.slices},
        "batch": next(iter(outline.batch.values())).shape[0],
        "parameters": step.parameters,
        **volume(outline.batch)._asdict(),
        "flops": {"model": step.flops[0], "executed": step.flops[1]},
        **found,
        "effort": effort,
        **spent,
    }


def settle(outline: Outline, target: Target, told: str | None) -> MeshConfig:
    """Choose the mesh: what the command line says, else the config, else what suits the target.

    Raises:
        ValueError: it does not fit the target, or the batch does not divide.
        DoesNotFit: parameters and state alone are too large.
    """
    per_slice = target.size // target.slices
    state = state_bytes(outline)
    chosen: MeshConfig = outline.train.mesh
    if told:
        chosen = load(MeshConfig, *told.split(","))
    elif chosen == MeshConfig():
        # Over a whole slice of TPUs XLA sums gradients whole; inside of it, it scatters them.
        inside = per_slice if target.chip.platform == "gpu" else max(per_slice // 2, 1)
        fsdp = min(FSDP, inside)
        while fsdp < per_slice and state / fsdp > target.chip.memory / SHARE:
            fsdp *= 2
        chosen = MeshConfig(fsdp=fsdp)
    chosen = load(
        MeshConfig,
        *(f"{axis}={getattr(chosen, axis)}" for axis in ("data", "fsdp", "tensor")),
        f"slices={target.slices}",
    )
    _, fsdp, tensor = chosen.shape(target.size)
    check_fits(outline.name, state / (fsdp * tensor), target)
    return chosen


def divided(
    outline: Outline, run: Run, codec: CodecConfig, mesh: MeshConfig, target: Target, told: int | None
) -> Outline:
    """Give the stage with a batch that divides among devices: the config's, or the next that does.

    Raises:
        ValueError: the batch was given and does not.
    """
    data, fsdp, _ = mesh.shape(target.size)
    rows = data * fsdp
    sizes = {leaf.shape[0] for leaf in outline.batch.values()}
    if all(size % rows == 0 for size in sizes):
        return outline
    wanted = max(sizes) * math.lcm(*(rows // math.gcd(size, rows) for size in sizes))
    if told:
        raise ValueError(
            f"{outline.name}: batches of {sorted(sizes)} do not divide among {rows} devices (data x fsdp); "
            f"give --batch {wanted}, or --mesh with more tensor"
        )
    print(
        f"{outline.name}: batch {wanted} instead of {max(sizes)}, to divide among {rows} devices", flush=True
    )
    return next(o for o in outlines(run, codec, wanted) if o.name == outline.name)


def codec_of(options: argparse.Namespace) -> CodecConfig:
    """Read the codec's sizes: `--codec`, or the codec's config of the same name beside the generator's."""
    path = options.codec or Path(options.config[0]).parents[1] / "codec" / Path(options.config[0]).name
    if options.codec is None and not path.is_file():
        return CodecConfig()
    run = load_run(str(path))
    if not isinstance(run, CodecRun):
        raise ValueError(f"{path}: not the config of a codec's run")
    return run.model


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())
