"""The VAE's training from clips to weights."""

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mfm_jax.axes import Params
from mfm_jax.checkpoint import load_weights, save_weights
from mfm_jax.config import build, config, to_dict
from mfm_jax.dsp.spectral import log_magnitudes
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_encoders import LogFrequencyConfig
from mfm_jax.models.vae_heads import SpectralHeadConfig
from mfm_jax.music.audio import write_audio
from mfm_jax.training.data import ClipData, audio_batches
from mfm_jax.training.fidelity import figures, principal_axes
from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.pictures import save_panels
from mfm_jax.training.records import shards
from mfm_jax.training.vae import VAELossConfig, VAEObjective, fitted
from mfm_jax.training.vae_adversarial import VAE_PART, AdversarialConfig, TwoPhaseObjective
from mfm_jax.training.vae_wave import WaveLossConfig, WaveObjective

Trained = VAEObjective | WaveObjective | TwoPhaseObjective

AXES = "latent"  # name of the latent's principal axes in a weights file
FIT_SECONDS = 600.0  # audio that the closed-form start is fitted on
VALID_BATCHES = 8
WINDOW = 1_024  # of the spectra in pictures


@config
class VAERun:
    """Everything about a run.

    Attributes:
        clips: folder of clip records to train on.
        valid: folder of clip records that `sample` measures on; None measures nothing.
        out: folder of the run: checkpoints, metrics, `vae.safetensors` with the latent's principal axes as
            found at the last validation; `vae_phase_1.safetensors` is that of the end of the first phase.
        begin: weights to go on from; their encoder's statistics stay, so latents made with them stay valid.
            None fits the whitening and the linear path on the clips.
        losses: of the `spectral` head.
        wave_losses: of a head that gives a wave.
        adversarial: the second phase of such a head; None for none.
    """

    clips: str
    out: str
    valid: str | None = None
    begin: str | None = None
    model: VAEConfig = VAEConfig()
    losses: VAELossConfig = VAELossConfig()
    wave_losses: WaveLossConfig = WaveLossConfig()
    adversarial: AdversarialConfig | None = None
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
        return {name: part for name, part in weights.params.items() if name != AXES}
    if not isinstance(run.model.encoder, LogFrequencyConfig):
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
    means = jax.jit(lambda params, wave: VAE(run.model).apply({"params": params}, wave, method="encode")[0])
    weights = Path(run.out) / "vae.safetensors"

    def sample(params: Params, step: int) -> dict[str, float] | None:
        vae = params[VAE_PART] if run.adversarial else params
        rows = [{**found, **metrics} for found, metrics in (measure(params, batch) for batch in held)]
        told = (
            {f"valid/{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]} if held else {}
        )
        kept = vae
        if held:
            _show(VAE(run.model), vae, held[0], Path(run.out) / "samples" / f"{step:06d}")
            latents = np.concatenate([np.asarray(means(vae, _floats(batch["audio"]))) for batch in held])
            axes = principal_axes(latents.reshape(-1, latents.shape[-1]))
            told |= {f"valid/{name}": value for name, value in figures(axes).items()}
            kept = {**vae, AXES: axes._asdict()}
        save_weights(weights, kept, to_dict(run.model), {"steps": step, **told}, half=True)
        return told

    def between(params: Params, step: int) -> dict[str, float] | None:
        told = sample(params, step)
        shutil.copyfile(weights, weights.with_name("vae_phase_1.safetensors"))
        return told

    batches = audio_batches(shards(run.clips), run.data)
    about = {"model": to_dict(run.model), "losses": to_dict(objective.loss), "data": to_dict(run.data)}
    if run.adversarial:
        about["adversarial"] = to_dict(run.adversarial)
    params = fit(objective, batches, run.train, run.out, sample, about, between)
    sample(params, run.train.steps)
    return weights


def _show(model: VAE, params: Params, batch: dict[str, np.ndarray], path: Path) -> None:
    """Write the first example and its reconstruction: one after the other as sound, one above the other."""
    wave = _floats(batch["audio"][:1])
    variables = {"params": params}
    latent: Any = model.apply(variables, wave, method="encode")
    made: Any = model.apply(variables, latent[0], method="decode")
    spectra = [np.asarray(log_magnitudes(jnp.asarray(x), WINDOW)[0]) for x in (wave, made)]
    save_panels(path.with_suffix(".png"), spectra)
    write_audio(path.with_suffix(".wav"), np.concatenate([wave[0], np.asarray(made[0])]))


def _floats(audio: np.ndarray) -> np.ndarray:
    return np.asarray(audio, np.float32) / 32_768


def make_objective(run: VAERun, initial: Params | None) -> Trained:
    """Give the objective that suits the head.

    Raises:
        ValueError: a second phase for a head that gives no wave.
    """
    if isinstance(run.model.head, SpectralHeadConfig):
        if run.adversarial:
            raise ValueError("adversarial: the spectral head gives no wave to judge; use head pqmf, or null")
        return VAEObjective(run.model, run.losses, initial)
    first = WaveObjective(run.model, run.wave_losses, initial)
    return TwoPhaseObjective(first, run.adversarial) if run.adversarial else first
