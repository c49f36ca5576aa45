"""The VAE's training from clips to weights."""

from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mfm_jax.axes import Params
from mfm_jax.checkpoint import load_weights, save_weights
from mfm_jax.config import build, config, to_dict
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_pqmf import PqmfConfig
from mfm_jax.music.audio import write_audio
from mfm_jax.training.data import ClipData, audio_batches
from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.pictures import save_panels
from mfm_jax.training.records import shards
from mfm_jax.training.vae import VAELossConfig, VAEObjective, fitted
from mfm_jax.training.vae_wave import WaveLossConfig, WaveObjective

FIT_SECONDS = 600.0  # audio that the closed-form start is fitted on
VALID_BATCHES = 8


@config
class VAERun:
    """Everything about a run.

    Attributes:
        clips: folder of clip records to train on.
        valid: folder of clip records that `sample` measures on; None measures nothing.
        out: folder of the run: checkpoints, metrics, `vae.safetensors`.
        begin: weights to go on from; their encoder's statistics stay, so latents made with them stay valid.
            None fits the whitening and the linear path on the clips.
        losses: of the `spectral` head.
        wave_losses: of the `pqmf` head.
    """

    clips: str
    out: str
    valid: str | None = None
    begin: str | None = None
    model: VAEConfig = VAEConfig()
    losses: VAELossConfig = VAELossConfig()
    wave_losses: WaveLossConfig = WaveLossConfig()
    data: ClipData = ClipData(batch=8, frames=256)
    train: TrainConfig = TrainConfig()


def begin(run: VAERun) -> Params | None:
    """Give the parameters that a run starts from; None where there is nothing but chance."""
    if run.begin is not None:
        weights = load_weights(run.begin)
        if build(VAEConfig, weights.config) != run.model:
            raise ValueError(
                f"{run.begin}: its config is not the run's model; use the same sizes, or begin=null"
            )
        return weights.params
    if isinstance(run.model.encoder, PqmfConfig):
        return None
    batches = audio_batches(shards(run.clips), run.data)
    seconds = run.data.batch * run.data.frames * run.model.hop / run.model.sample_rate
    waves = (np.asarray(batch["audio"], np.float32) / 32_768 for batch in batches)
    count = int(FIT_SECONDS / seconds) + 1
    return fitted(run.model, islice(waves, count), jax.random.key(run.train.seed))


def train(run: VAERun) -> Path:
    """Train, or go on training; gives the weights file. Validation figures go into the log as `valid/...`."""
    objective = make_objective(run, begin(run))
    held = (
        list(islice(audio_batches(shards(run.valid), run.data, epochs=1), VALID_BATCHES)) if run.valid else []
    )
    measure = jax.jit(lambda params, batch: objective.measure(params, batch, jax.random.key(0)))

    def sample(params: Params, step: int) -> dict[str, float] | None:
        save_weights(
            Path(run.out) / "vae.safetensors", params, to_dict(run.model), {"steps": step}, half=True
        )
        if not held:
            return None
        _show(objective.model, params, held[0], Path(run.out) / "samples" / f"{step:06d}")
        rows = [{**found, **metrics} for found, metrics in (measure(params, batch) for batch in held)]
        return {f"valid/{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}

    batches = audio_batches(shards(run.clips), run.data)
    about = {"model": to_dict(run.model), "losses": to_dict(objective.loss), "data": to_dict(run.data)}
    params = fit(objective, batches, run.train, run.out, sample, about)
    sample(params, run.train.steps)
    return Path(run.out) / "vae.safetensors"


def _show(model: VAE, params: Params, batch: dict[str, np.ndarray], path: Path) -> None:
    """Write the first example and its reconstruction: one after the other as sound, one above the other."""
    wave = np.asarray(batch["audio"][:1], np.float32) / 32_768
    variables = {"params": params}
    latent: Any = model.apply(variables, wave, method="encode")
    made: Any = model.apply(variables, latent[0], method="decode")
    again: Any = model.apply(variables, made, method="encode")
    save_panels(path.with_suffix(".png"), [np.asarray(latent[0][0]), np.asarray(again[0][0])])
    write_audio(path.with_suffix(".wav"), np.concatenate([wave[0], np.asarray(made[0])]))


def make_objective(run: VAERun, initial: Params | None) -> VAEObjective | WaveObjective:
    """Give the objective that suits the head."""
    if isinstance(run.model.head, PqmfConfig):
        return WaveObjective(run.model, run.wave_losses, initial)
    return VAEObjective(run.model, run.losses, initial)
