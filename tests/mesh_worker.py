"""Losses of small runs on a mesh, in a process of their own, because the number of devices is fixed at start.

    python mesh_worker.py '{"devices": 8, "meshes": [[8, 1, 1]], "stages": ["codec"], "steps": 3}'

prints a line for each stage and mesh, {"stage": .., "mesh": .., "losses": [{name: value} of each step, ..]}.
Several processes also get their place (see `mfm_jax.mesh.start_processes`).
"""

import json
import os
import sys

if __name__ == "__main__":
    TOLD = json.loads(sys.argv[1])
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Compiling takes longer than running here.
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={TOLD['devices']} --xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true"
    )

import jax
import numpy as np
from orbax.checkpoint.multihost import get_barrier_sync_fn

from mfm_jax.mesh import MeshConfig, batch_share, make_mesh, put_batch, random_key, start_processes
from mfm_jax.training.loop import TrainConfig
from mfm_jax.training.optim import OptimConfig
from mfm_jax.training.state import abstract_state, begin_state, frozen_parameters
from mfm_jax.training.step import make_turns
from tests.stages import numbers, tiny

# A judge's gradients double a difference of rounding at every step or two; slower steps, fewer doublings.
RATES = {"vae": 5e-5}


def train(stage, shape, steps, **settings):
    """Train on a mesh of a shape; give the loss of every step, with all others, by name."""
    objective, shapes = tiny(stage)
    mesh = make_mesh(MeshConfig(data=shape[0], fsdp=shape[1], tensor=shape[2]))
    recipe = TrainConfig(optim=OptimConfig(rate=RATES.get(stage, 1e-3), warmup=2), **settings)
    part, parts = batch_share(mesh)
    rng = random_key(7, mesh)

    def own(values):
        return {name: np.split(value, parts)[part] for name, value in values.items()}

    batches = [own(numbers(shapes, seed)) for seed in range(steps)]
    like = abstract_state(objective, batches[0], recipe, mesh)
    state = begin_state(objective, rng, batches[0], recipe, mesh, like)
    frozen = frozen_parameters(objective, mesh)
    turn_at = make_turns(objective, recipe, like, frozen, mesh)
    found = []
    compiled = {}
    for number, batch in enumerate(batches):
        turn, step = turn_at(number, 0.0)
        given = state, frozen, put_batch(batch, mesh), rng, np.float32(0)
        if turn not in compiled:
            compiled[turn] = step.lower(*given).compile()
            # Gloo waits half a minute for a process that compiles more slowly.
            get_barrier_sync_fn()(key=f"{stage} {shape} {len(compiled)}", timeout_ms=1_200_000)
        state, scalars = compiled[turn](*given)
        found.append({name: float(value) for name, value in scalars.items()})
    return found


def main():
    start_processes()
    for stage in TOLD["stages"]:
        for shape in TOLD["meshes"]:
            found = train(stage, shape, TOLD["steps"], **TOLD.get("settings", {}))
            if jax.process_index() == 0:
                print(json.dumps({"stage": stage, "mesh": shape, "losses": found}), flush=True)


if __name__ == "__main__":
    main()
