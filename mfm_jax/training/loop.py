"""The one training loop: every stage is an objective and a stream of batches given to `fit`."""

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from mfm_jax.axes import Params
from mfm_jax.config import config, to_dict
from mfm_jax.layers.precision import Precision
from mfm_jax.layers.remat import Remat
from mfm_jax.mesh import MeshConfig, make_mesh, on_this_host, put_batch, random_key
from mfm_jax.training.checkpointing import Checkpoints
from mfm_jax.training.clock import Clock
from mfm_jax.training.guards import GuardConfig
from mfm_jax.training.optim import OptimConfig
from mfm_jax.training.progress import Progress
from mfm_jax.training.reporting import Report, Shown
from mfm_jax.training.resuming import check_same, position, wound
from mfm_jax.training.state import (
    Batch,
    Objective,
    abstract_state,
    averaged,
    begin_state,
    frozen_parameters,
    guarded_anew,
    skipped,
)
from mfm_jax.training.step import make_turns
from mfm_jax.training.stopping import Stopper
from mfm_jax.training.telemetry import Meter, Tracer, peak_flops
from mfm_jax.training.writers import WandbConfig, make_writers

INIT_KEY = 2**31 - 1  # folded into the seed for the initial parameters: no step has this number

Sample = Callable[[Params, int], Shown | None]


@config
class TrainConfig:
    """How long and how a run trains.

    Attributes:
        steps: the run ends after so many.
        minutes: or after so many minutes of training, whichever is first; the learning rate follows that.
        seed: of parameters and of every draw in the objective.
        optim: the optimiser.
        guard: which steps are skipped, and when the run ends for it.
        mesh: how devices share out the batch and the parameters.
        precision: of products; parameters, losses and recurrent states are float32 always.
        remat: what the backward pass keeps of residual blocks of the VAE and the codec: everything ('none'),
            their inputs ('layer'), or also their products with weights ('dots'). Stacks of xLSTM blocks have
            a setting of their own in the model.
        accumulate: parts that a batch is computed in, one after the other, to save memory; noise that an
            objective draws differs from that of the whole batch.
        log_every: steps between lines of metrics (means since the last).
        checkpoint_every: steps between checkpoints.
        checkpoint_minutes: longest time between checkpoints.
        sample_every: steps between calls of `sample`; 0 calls it at the end only.
        keep: newest checkpoints kept.
        keep_every: checkpoints of every so many steps are kept for good; 0 for none.
        best: name of a logged figure; the checkpoint where it is best is kept beside the newest.
        best_is: which is best.
        profile: steps, after the first few, whose XLA trace is written to `profile/`; 0 for none.
        tensorboard: also write TensorBoard events.
        wandb: also write a run of Weights & Biases.
    """

    steps: int = 10_000
    minutes: float | None = None
    seed: int = 0
    optim: OptimConfig = OptimConfig()
    guard: GuardConfig = GuardConfig()
    mesh: MeshConfig = MeshConfig()
    precision: Precision = "float32"
    remat: Remat = "none"
    accumulate: int = 1
    log_every: int = 50
    checkpoint_every: int = 5_000
    checkpoint_minutes: float = 5.0
    sample_every: int = 0
    keep: int = 2
    keep_every: int = 0
    best: str | None = None
    best_is: Literal["lowest", "highest"] = "lowest"
    profile: int = 0
    tensorboard: bool = False
    wandb: WandbConfig | None = None

    def __post_init__(self) -> None:
        """Refuse a batch of no parts."""
        if self.accumulate < 1:
            raise ValueError(f"accumulate={self.accumulate}: must be 1 (the whole batch at once) or more")


def fit(
    objective: Objective,
    batches: Iterable[Batch],
    config: TrainConfig,
    run_dir: str | Path,
    sample: Sample | None = None,
    about: dict[str, Any] | None = None,
    between: Sample | None = None,
) -> Params:
    """Train, or go on training from the newest whole checkpoint in `run_dir`.

    Args:
        objective: what to minimise; it may be `Staged`, its parameters in parts with optimisers of their own.
        batches: dicts of NumPy arrays, batch first. An iterator with `get_state` and `set_state` (Grain's)
            resumes where it was; another is wound forward by reading.
        config: length, seed, optimiser, intervals.
        run_dir: gets `checkpoints/`, `metrics.jsonl`; several processes share it.
        sample: called in the first process with the averaged parameters and the step, after a checkpoint of
            it. It returns figures, which are logged, and paths of pictures and sounds, which are shown.
        about: configs of model and data, kept in every checkpoint; a run begun with others is refused.
        between: called like `sample` before the first step of another phase.

    Returns:
        The averaged parameters.

    Raises:
        SystemExit: SIGTERM, SIGINT or a preemption notice came: there is a checkpoint, and nothing after
            `fit` must take the run for finished. The code is 128 and the signal's number.
        ValueError: names of losses and weights differ, the run was begun with other configs, or none of its
            checkpoints is whole.
        FloatingPointError: the guards skipped too many steps in a row; there is a checkpoint.
    """
    run, told, settings = Path(run_dir), about or {}, to_dict(config)
    mesh = make_mesh(config.mesh)
    highest = config.best_is == "highest"
    checkpoints = Checkpoints(run / "checkpoints", config.keep, config.keep_every, highest)
    first_process = jax.process_index() == 0
    progress = Progress(run.name, prints=first_process)
    rng = random_key(config.seed, mesh)

    stream = iter(batches)
    start = position(stream)
    first = next(stream)
    shape = abstract_state(objective, first, config, mesh)
    newest = checkpoints.newest()
    if newest is None:
        state = begin_state(objective, jax.random.fold_in(rng, INIT_KEY), first, config, mesh, shape)
        step, trained, phase = 0, 0.0, None
        stream = wound(stream, first, start, start, 0)
    else:
        facts = checkpoints.facts(newest)
        check_same(run, facts, told, settings)
        state = checkpoints.restore(newest, shape)
        step, trained, phase = newest, facts["seconds"], facts["phase"]
        stream = wound(stream, first, start, facts["data"], step)
        progress.say(f"resumed at step {step}")
    frozen = frozen_parameters(objective, mesh)
    turn_at = make_turns(objective, config, shape, frozen, mesh)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    progress.say(f"{count / 1e6:.2f} M parameters, {mesh.size} device(s)")
    shown = {"train": settings, **told}
    writers = make_writers(run, step, config.tensorboard, config.wandb, shown) if first_process else []
    clock = Clock(trained, config.log_every)
    saved, saved_at, rated = step, clock.seconds, checkpoints.best() is not None

    def done() -> float:
        by_time = clock.seconds / (60 * config.minutes) if config.minutes else 0.0
        return max(step / config.steps, by_time)

    def save() -> None:
        nonlocal saved, saved_at
        place = {"data": position(stream), "seconds": clock.seconds, "phase": phase}
        checkpoints.save(step, state, {"about": told, "train": settings, **place})
        saved, saved_at = step, clock.seconds

    def rate(figures: dict[str, float]) -> None:
        nonlocal rated
        if saved == step and config.best in figures:
            checkpoints.rate(step, figures[config.best])
            rated = True

    def kept() -> Params:  # whole, on one device of this process, which can then use it alone
        params: Params = on_this_host(averaged(state))
        return params

    def show(call: Sample, note: str) -> None:
        params = kept()
        if first_process:
            rate(report.show(step, call(params, step) or {}, note, done(), clock.seconds))
            if config.best and not rated:
                progress.say(f"best={config.best}: no figure of this name yet, so no checkpoint is the best")

    report = Report(run.name, writers, progress, skipped(state))
    meter = Meter(peak_flops(list(mesh.devices.flat)), int(skipped(state).sum()))
    tracer = Tracer(run / "profile", config.profile if first_process else 0)
    last = None  # a result of the step before
    ended, stopping, diverged = done() >= 1, False, False
    with closing(checkpoints), closing(report), closing(tracer), Stopper() as stopper:
        if ended and sample is not None:  # killed after its last step, or run again
            show(sample, "sample")
        while not (ended or stopping or diverged):
            turn, step_function = turn_at(step, clock.seconds / 60)
            if phase is not None and turn.phase != phase:
                if between is not None:
                    show(between, f"before phase {turn.phase}")
                state = guarded_anew(state)  # of other losses nothing is known
            phase = turn.phase
            share = np.float32(min(done(), 1.0))
            with meter.fetching(last):
                batch = put_batch(next(stream), mesh)
            given = (state, frozen, batch, rng, share)
            with meter.first_time(turn, step_function, *given):
                state, scalars = step_function(*given)
            step, last = step + 1, scalars["loss"]
            tracer.step(last)
            clock.read(step)
            ended, stopping = done() >= 1, stopper.after(step)
            diverged = report.add(turn.prefix, scalars) >= config.guard.patience
            meter.lap(turn)
            sampling = ended or (config.sample_every > 0 and step % config.sample_every == 0)
            due = step % config.checkpoint_every == 0
            due |= clock.seconds - saved_at > 60 * config.checkpoint_minutes
            due |= ended or stopping or diverged or (sampling and sample is not None)
            means = {}
            if due or step % config.log_every == 0:
                lost = skipped(state)
                extra = {"seconds": clock.seconds, **meter.figures(int(lost.sum()))}
                means = report.log(step, lost, extra, done())
            if due:
                with meter.lost("checkpoint"):
                    save()
                    rate(means)
            if sample is not None and sampling and not diverged:
                with meter.lost("sample"):
                    show(sample, "sample")
    if diverged:
        raise FloatingPointError(
            f"{run}: {config.guard.patience} steps in a row were skipped, up to step {step} "
            f"({report.cause()}); there is a checkpoint: lower optim.rate or optim.clip, or look at the data"
        )
    if stopping and not ended:
        progress.say(f"stopped at step {step}; the same command goes on from there")
        raise SystemExit(128 + stopper.signal)
    return kept()
