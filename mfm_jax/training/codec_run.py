"""Train a codec from shards of latents, stage after stage, and write its weights."""

import dataclasses
import functools
import itertools
from pathlib import Path

import grain
import jax

from mfm_jax.axes import Params
from mfm_jax.checkpoint import load_weights, save_weights
from mfm_jax.config import config, digest, to_dict
from mfm_jax.models.codec import CodecConfig, MidiAudioCodec
from mfm_jax.training.codec import CodecLoss, CodecObjective
from mfm_jax.training.codec_measure import measure, panels
from mfm_jax.training.data import ClipData, codec_batches
from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.pictures import save_panels
from mfm_jax.training.pipeline import WHOLE, Mix, own_share
from mfm_jax.training.reporting import Shown
from mfm_jax.training.score_batches import ScoreData, score_batches


@config
class Stage:
    """One `fit`: what is trained, on what, how long; with `scores`, on rolls alone, from whole scores."""

    name: str
    loss: CodecLoss = CodecLoss()
    data: ClipData = ClipData()
    scores: ScoreData | None = None
    train: TrainConfig = TrainConfig()


@config
class CodecRun:
    """A codec's training.

    Attributes:
        latents: folder of training shards ('latent' records); or several with weights, `{A: 2, B: 1}`.
        valid: folders of validation shards, by the name that their figures get.
        out: run folder; `codec.safetensors` appears in it, renewed at each measurement.
        model: sizes.
        scores: folder of score records, or several with weights, for stages that ask for them.
        stages: run one after the other, each from the weights of the one before.
        initial: weights file to go on from.
        measured: validation batches in a measurement.
    """

    latents: Mix
    out: str
    valid: dict[str, str] = dataclasses.field(default_factory=dict)
    scores: Mix | None = None
    model: CodecConfig = CodecConfig()
    stages: tuple[Stage, ...] = (Stage(name="joint"),)
    initial: str | None = None
    measured: int = 6


def train(run: CodecRun) -> Path:
    """Run the stages that are not done yet -> the weights file.

    Raises:
        ValueError: a folder without shards, or a run folder begun with other configs.
    """
    out = Path(run.out)
    params = load_weights(run.initial).params if run.initial else None
    figures: dict[str, float] = {}
    target = out / "codec.safetensors"
    for stage in run.stages:
        done = out / f"{stage.name}.safetensors"
        if done.exists():
            params = load_weights(done).params
            continue
        objective = CodecObjective(run.model, stage.loss, params)

        sample = functools.partial(_sample, run, stage, objective.model, figures)
        about = {"model": to_dict(run.model), "stage": to_dict(stage) | {"train": None}}
        stream = _stream(run, stage)
        params = fit(objective, stream, stage.train, out / stage.name, sample, about)
        params = jax.device_get(params)
        if jax.process_index() == 0:
            for path in (done, target):
                _save(run.model, stage.name, figures, path, params)
    return target


def _stream(run: CodecRun, stage: Stage) -> grain.IterDataset:
    share = own_share(stage.train.mesh)
    if stage.scores is None:
        return codec_batches(run.latents, stage.data, share=share)
    if run.scores is None:
        raise ValueError(
            f"stage {stage.name!r} reads scores: give scores=FOLDER of tools/prepare_data.py scores"
        )
    return score_batches(run.scores, stage.scores, share=share)


def _save(model: CodecConfig, stage: str, figures: dict[str, float], path: Path, params: Params) -> None:
    meta = {"config_hash": digest(model), "stage": stage, "figures": figures}
    save_weights(path, params, to_dict(model), meta)


def _sample(
    run: CodecRun, stage: Stage, model: MidiAudioCodec, figures: dict[str, float], params: Params, step: int
) -> Shown:
    """Measure on every validation folder, draw an example, and write the weights with their figures."""
    figures.clear()
    pictures: dict[str, Path] = {}
    settings = ClipData(batch=4, frames=1024, ticks=192, nominal=0.0, mixture=1.0, stray=0.0, seed=1)
    for name, folder in run.valid.items():
        stream = iter(codec_batches(folder, settings, epochs=4, share=WHOLE))
        batches = itertools.islice(stream, run.measured)
        first = next(batches, None)
        if first is None:
            raise ValueError(f"{folder}: fewer than {settings.batch} clips to measure on; prepare more")
        pictures[f"sample/{name}"] = Path(run.out) / "samples" / f"{stage.name}-{step:06d}-{name}.png"
        save_panels(pictures[f"sample/{name}"], panels(model, params, first))
        found = measure(model, params, itertools.chain([first], batches), stage.loss.noise)
        figures.update({f"{name}/{figure}": value for figure, value in found.items()})
    _save(run.model, stage.name, figures, Path(run.out) / "codec.safetensors", params)
    return {**figures, **pictures}
