"""How fast is the input, beside the step that eats it? One JSON line for each fit of a stage.

    python tools/benchmark_input.py configs/vae/tiny.yaml clips=DATA/train
    python tools/benchmark_input.py configs/codec/tiny.yaml latents=DATA/latents scores=DATA/scores
    python tools/benchmark_input.py configs/generator/tiny.yaml data.z=DATA/z data.codec=codec.safetensors

- `input`: examples a second from the pipeline alone, after the first batches; `times`: that over what the
  step eats from a constant batch. `cpu_times`: the same in processor time, of all threads, which says
  more where the machine is shared; `at_worst`: the ratio below if input and step never overlapped.
- `ratio`: time of a step on batches from the pipeline over that on one batch again and again: the median of
  paired blocks in one process, one of each kind side by side, first one and then the other, so that what else
  runs on the machine falls on both. `same` is the median of pairs of two constant blocks: what pairing cannot
  tell apart.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mfm_jax.checkpoint import load_weights
from mfm_jax.config import build, load
from mfm_jax.mesh import make_mesh, put_batch
from mfm_jax.models.codec import CodecConfig
from mfm_jax.models.summaries import BeatCoder
from mfm_jax.training.codec import CodecObjective
from mfm_jax.training.codec_run import CodecRun
from mfm_jax.training.data import audio_batches, codec_batches
from mfm_jax.training.generator import CoderObjective, PriorObjective
from mfm_jax.training.generator_run import GeneratorRun, summaries
from mfm_jax.training.loop import TrainConfig
from mfm_jax.training.score_batches import score_batches
from mfm_jax.training.state import abstract_state, begin_state, frozen_parameters
from mfm_jax.training.step import make_turns
from mfm_jax.training.stretches import coder_batches, load_stretches, no_text, prior_batches
from mfm_jax.training.vae_run import VAERun, make_objective

WARM = 3  # batches and steps that are not counted
Fit = tuple[str, Any, Iterable[Any], TrainConfig]


def fits(settings: list[str], data: list[str]) -> Iterator[Fit]:
    """Give name, objective, batches and recipe of every fit of a config; parameters are random."""
    stage = Path(settings[0]).parent.name
    given = (*settings, *data, "out=unused")
    if stage == "vae":
        vae = load(VAERun, *given)
        yield "vae", make_objective(vae, None), audio_batches(vae.clips, vae.data), vae.train
    elif stage == "codec":
        codec = load(CodecRun, *given)
        for part in codec.stages:
            if part.scores is None:
                batches = codec_batches(codec.latents, part.data)
            elif codec.scores is not None:
                batches = score_batches(codec.scores, part.scores)
            else:
                continue
            yield f"codec {part.name}", CodecObjective(codec.model, part.loss, None), batches, part.train
    elif stage == "generator":
        yield from _generator(load(GeneratorRun, *given))
    else:
        raise ValueError(f"{settings[0]}: must lie in a folder named vae, codec or generator")


def _generator(run: GeneratorRun) -> Iterator[Fit]:
    weights = load_weights(run.data.codec)
    codec = build(CodecConfig, weights.config)
    stretches = load_stretches(run.data.z, "train")
    objective = CoderObjective(run.model, run.coder_loss, codec, weights.params, None)
    yield "generator coder", objective, coder_batches(stretches, run.batches, run.seed), run.coder
    beats = np.zeros((1, 2, *stretches[0].z.shape[1:]), np.float32)
    coder = jax.jit(BeatCoder(run.model.coder).init)(jax.random.key(0), beats)["params"]
    held = summaries(run.model.coder, coder, stretches)
    text = no_text(stretches, run.model.text_width, run.model.text_tokens)
    stream = prior_batches(stretches, held, text, run.batches, run.seed)
    yield "generator prior", PriorObjective(run.model, run.prior_loss, coder), stream, run.prior


def measure(fit: Fit, seconds: float) -> dict[str, Any]:
    """Time one fit, for about so many seconds in each of the three measurements."""
    name, objective, batches, recipe = fit
    stream = iter(batches)
    first = next(stream)
    examples = len(next(iter(first.values())))
    step = stepping(objective, first, recipe)
    for _ in range(WARM):
        step(first)
    alone, alone_cpu = _seconds(lambda: step(first), seconds)
    for _ in range(WARM):
        next(stream)
    fed, fed_cpu = _seconds(lambda: next(stream), seconds)
    block = max(1, round(1.0 / alone))
    pairs, same = [], []
    until = time.monotonic() + 2 * seconds
    for turn in itertools.count():
        if time.monotonic() > until and turn >= 6 and turn % 2 == 0:
            break
        kinds = [itertools.repeat(first), stream]
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        took = {kind: _block(step, kinds[kind], block) for kind in order}
        pairs.append(took[1] / took[0])
        again = [_block(step, kinds[0], block) for _ in range(2)]
        same.append(again[turn % 2] / again[1 - turn % 2])
    return {
        "fit": name,
        "step_seconds": round(alone, 4),
        "eats": round(examples / alone, 2),
        "input": round(examples / fed, 1),
        "times": round(alone / fed, 1),
        "step_cpu": round(alone_cpu, 4),
        "input_cpu": round(fed_cpu, 5),
        "cpu_times": round(alone_cpu / fed_cpu, 1),
        "at_worst": round(1 + fed_cpu / alone_cpu, 4),
        "ratio": round(statistics.median(pairs), 4),
        "same": round(statistics.median(same), 4),
        "pairs": len(pairs),
        "steps_in_block": block,
    }


def stepping(objective: Any, batch: Any, recipe: TrainConfig) -> Callable[[Any], Any]:
    """Give a function that takes a training step on a batch and holds the state; it does not wait."""
    mesh = make_mesh(recipe.mesh)
    shape = abstract_state(objective, batch, recipe, mesh)
    rng = jax.random.key(0)
    state = begin_state(objective, rng, batch, recipe, mesh, shape)
    frozen = frozen_parameters(objective, mesh)
    _, function = make_turns(objective, recipe, shape, frozen, mesh)(0, 0.0)

    def step(batch: Any) -> Any:
        nonlocal state
        state, scalars = function(state, frozen, put_batch(batch, mesh), rng, np.float32(0.5))
        return scalars

    return step


def _block(step: Callable[[Any], Any], batches: Iterator[Any], count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        scalars = step(next(batches))
    jax.block_until_ready(scalars)
    return time.perf_counter() - begun


def _seconds(call: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Give the mean time of a call and its processor time, over about so many seconds."""
    begun, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begun < seconds:
        jax.block_until_ready(call())
        count += 1
    return (time.perf_counter() - begun) / count, (time.process_time() - cpu) / count


def main() -> None:
    """Measure every fit of a config."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="+", help="a YAML file of configs/ and name=value overrides")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement (15)")
    parser.add_argument("--only", help="measure fits whose name holds this")
    options = parser.parse_args()
    files = [text for text in options.settings if "=" not in text]
    data = [text for text in options.settings if "=" in text]
    for fit in fits(files, data):
        if options.only is None or options.only in fit[0]:
            print(json.dumps(measure(fit, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
