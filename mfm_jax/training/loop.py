"""The one training loop: every stage is an objective and a stream of batches given to `fit`."""

import itertools
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np

from mfm_jax.axes import Params
from mfm_jax.checkpoint import Checkpoints
from mfm_jax.config import config, to_dict
from mfm_jax.mesh import MeshConfig, make_mesh, put_batch, replicated
from mfm_jax.training.log import MetricsLog, progress_line
from mfm_jax.training.optim import OptimConfig
from mfm_jax.training.state import (
    Batch,
    Objective,
    abstract_state,
    averaged,
    begin_state,
    frozen_parameters,
)
from mfm_jax.training.step import make_turns

INIT_KEY = 2**31 - 1  # folded into the seed for the initial parameters: no step has this number
DIVERGED = 20  # steps in a row without a finite loss that end a run

Sample = Callable[[Params, int], dict[str, float] | None]


@config
class TrainConfig:
    """How long and how a run trains.

    Attributes:
        steps: the run ends after so many.
        minutes: or after so many minutes of training, whichever is first; the learning rate follows that.
        seed: of parameters and of every draw in the objective.
        optim: the optimiser.
        mesh: how devices share out the batch and the parameters.
        log_every: steps between lines of metrics (means since the last).
        checkpoint_every: steps between checkpoints.
        checkpoint_minutes: longest time between checkpoints.
        sample_every: steps between calls of `sample`; 0 calls it at the end only.
        keep: newest checkpoints kept.
        tensorboard: also write TensorBoard events.
    """

    steps: int = 10_000
    minutes: float | None = None
    seed: int = 0
    optim: OptimConfig = OptimConfig()
    mesh: MeshConfig = MeshConfig()
    log_every: int = 50
    checkpoint_every: int = 5_000
    checkpoint_minutes: float = 5.0
    sample_every: int = 0
    keep: int = 2
    tensorboard: bool = False


def fit(
    objective: Objective,
    batches: Iterable[Batch],
    config: TrainConfig,
    run_dir: str | Path,
    sample: Sample | None = None,
    about: dict[str, Any] | None = None,
    between: Sample | None = None,
) -> Params:
    """Train, or go on training from the newest checkpoint in `run_dir`.

    Args:
        objective: what to minimise; it may be `Staged`, its parameters in parts with optimisers of their own.
        batches: dicts of NumPy arrays, batch first. An iterator with `get_state` and `set_state` (Grain's)
            resumes where it was; another is wound forward by reading.
        config: length, seed, optimiser, intervals.
        run_dir: gets `checkpoints/`, `metrics.jsonl`.
        sample: called with the averaged parameters and the step; figures that it returns are logged.
        about: configs of model and data, kept in every checkpoint; a run begun with others is refused.
        between: called like `sample` before the first step of another phase.

    Returns:
        The averaged parameters.

    Raises:
        SystemExit: SIGTERM or SIGINT came: there is a checkpoint, and nothing after `fit` must take the run
            for finished. The code is 128 and the signal's number.
        ValueError: names of losses and weights differ, or the run was begun with other configs.
        FloatingPointError: no finite loss for some steps.
    """
    run = Path(run_dir)
    run.mkdir(parents=True, exist_ok=True)
    mesh = make_mesh(config.mesh)
    checkpoints = Checkpoints(run / "checkpoints", config.keep)
    stream = iter(batches)
    rng = jax.device_put(jax.random.key(config.seed), replicated(mesh))
    start = _position(stream)
    first = next(stream)
    shape = abstract_state(objective, first, config, mesh)
    state = begin_state(objective, jax.random.fold_in(rng, INIT_KEY), first, config, mesh, shape)
    frozen = frozen_parameters(objective, mesh)
    trained = 0.0  # seconds, in all sessions of this run
    phase = None  # of the last step
    latest = checkpoints.latest()
    if latest is not None:
        facts = checkpoints.facts(latest)
        if facts["about"] != (about or {}):
            raise ValueError(f"{run}: begun with other configs; use another folder or the same configs")
        state = checkpoints.restore(latest, state)
        trained, phase = facts["seconds"], facts.get("phase")
        stream = _wound(stream, first, start, facts["data"], latest)
        print(f"resumed at step {latest}", flush=True)
    else:
        stream = _wound(stream, first, start, start, 0)
    log = MetricsLog(run, latest or 0, config.tensorboard)
    turn_at = make_turns(objective, config, shape, frozen, mesh)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    print(f"{count / 1e6:.2f} M parameters, {mesh.size} device(s)", flush=True)

    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    begun = time.monotonic() - trained
    window: dict[str, list[dict[str, jax.Array]]] = {}
    saved_at, step = time.monotonic(), int(state.step)
    ended = False

    def done() -> float:
        by_steps = step / config.steps
        by_time = (time.monotonic() - begun) / (60 * config.minutes) if config.minutes else 0.0
        return max(by_steps, by_time)

    def save() -> None:
        data = _position(stream)
        seconds = time.monotonic() - begun
        told = {"about": about or {}, "train": to_dict(config), "data": data, "seconds": seconds}
        checkpoints.save(step, state, {**told, "phase": phase})

    def show(call: Sample, name: str) -> None:
        figures = call(averaged(state), step)
        if figures:
            log.write(step, figures)
            progress_line(f"{run.name} {name}", step, figures, done(), begun)

    try:
        while not (ended or stopped):
            progress = np.float32(min(done(), 1.0))
            turn, step_function = turn_at(step, (time.monotonic() - begun) / 60)
            if between is not None and phase is not None and turn.phase != phase:
                show(between, f"before phase {turn.phase}")
            phase = turn.phase
            state, scalars = step_function(state, frozen, put_batch(next(stream), mesh), rng, progress)
            window.setdefault(turn.prefix, []).append(scalars)
            step += 1
            ended = done() >= 1
            due = step % config.checkpoint_every == 0
            due |= time.monotonic() - saved_at > 60 * config.checkpoint_minutes
            if step % config.log_every == 0 or due or ended or stopped:
                means = _means(window)
                window = {}
                log.write(step, {**means, "skipped": int(state.skipped), "seconds": time.monotonic() - begun})
                progress_line(run.name, step, means, done(), begun)
            if due or ended or stopped:
                save()
                saved_at = time.monotonic()
            if sample is not None and (ended or (config.sample_every and step % config.sample_every == 0)):
                show(sample, "sample")
        if stopped and checkpoints.latest() != step:  # the signal came while `sample` ran
            save()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        log.close()
        checkpoints.close()
    if stopped and not ended:
        print(f"stopped at step {step}; the same command goes on from there", flush=True)
        raise SystemExit(128 + stopped[0])
    return averaged(state)


def _means(window: dict[str, list[dict[str, jax.Array]]]) -> dict[str, float]:
    """Average the scalars of some steps, each kind for itself; steps that were skipped do not count."""
    found: dict[str, float] = {}
    for prefix, scalars in sorted(window.items()):
        values = jax.device_get(scalars)
        finite = [v for v in values if np.isfinite(v["loss"]) and np.isfinite(v["grad_norm"])]
        if not finite and len(values) >= DIVERGED:
            raise FloatingPointError(f"no finite loss in {len(values)} steps: lower optim.rate or optim.clip")
        rows = finite or values
        found |= {prefix + name: float(np.mean([v[name] for v in rows])) for name in values[0]}
    return found


def _position(stream: Iterator[Batch]) -> Any:
    """Give the place of a stream in its data as JSON, or None if it does not know."""
    get = getattr(stream, "get_state", None)
    state = get() if get else None
    return state.decode() if isinstance(state, bytes) else state


def _wound(stream: Iterator[Batch], first: Batch, start: Any, position: Any, steps: int) -> Iterator[Batch]:
    """Put a stream, of which `first` has been read, to a position or after so many steps."""
    if start is not None and position is not None:
        stream.set_state(position)  # type: ignore[attr-defined]
        return stream
    return itertools.islice(itertools.chain([first], stream), steps, None)
