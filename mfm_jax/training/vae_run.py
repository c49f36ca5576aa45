"""The VAE's training from clips to weights."""

import shutil
from itertools import islice
from pathlib import Path

import jax
import numpy as np

from mfm_jax.axes import Params
from mfm_jax.checkpoint import load_weights, save_weights
from mfm_jax.config import config, to_dict
from mfm_jax.models.rave_config import RaveConfig
from mfm_jax.models.vae import VAEConfig
from mfm_jax.models.vae_encoders import LogFrequencyConfig
from mfm_jax.models.vae_heads import SpectralHeadConfig
from mfm_jax.models.vaes import vae_of
from mfm_jax.training.data import ClipData, audio_batches
from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.pipeline import WHOLE, Mix, own_share
from mfm_jax.training.reporting import Shown
from mfm_jax.training.vae import VAELossConfig, VAEObjective, fitted
from mfm_jax.training.vae_adversarial import VAE_PART, AdversarialConfig, TwoPhaseObjective
from mfm_jax.training.vae_validation import AXES, Validation
from mfm_jax.training.vae_wave import WaveLossConfig, WaveObjective
from mfm_jax.training.writers import PICTURE, SOUND

FIT_SECONDS = 600.0  # audio that the closed-form start is fitted on


@config
class VAERun:
    """Everything about a run.

    Attributes:
        clips: folder of clip records to train on; or several, `{A: 2, B: 1}`: two examples of A for one of B.
        valid: folder of clip records that `sample` measures on; None measures nothing.
        out: folder of the run: checkpoints, metrics, `vae.safetensors` with the latent's principal axes as
            found at the last validation; `vae_phase_1.safetensors` is that of the end of the first phase.
        begin: weights to go on from; their encoder's statistics stay, so latents made with them stay valid.
            None fits the whitening and the linear path on the clips.
        losses: of the `spectral` head.
        wave_losses: of a head that gives a wave.
        adversarial: the second phase of such a head; None for none.
    """

    clips: Mix
    out: str
    valid: str | None = None
    begin: str | None = None
    model: VAEConfig | RaveConfig = VAEConfig()
    losses: VAELossConfig = VAELossConfig()
    wave_losses: WaveLossConfig = WaveLossConfig()
    adversarial: AdversarialConfig | None = None
    data: ClipData = ClipData(batch=8, frames=256)
    train: TrainConfig = TrainConfig()


def begin(run: VAERun) -> Params | None:
    """Give the parameters that a run starts from; None where there is nothing but chance."""
    if run.begin is not None:
        weights = load_weights(run.begin)
        if vae_of(weights.config).config != run.model:
            raise ValueError(
                f"{run.begin}: its config is not the run's model; use the same sizes, or begin=null"
            )
        return {name: part for name, part in weights.params.items() if name != AXES}
    if not (isinstance(run.model, VAEConfig) and isinstance(run.model.encoder, LogFrequencyConfig)):
        return None
    batches = audio_batches(run.clips, run.data, share=WHOLE)
    seconds = run.data.batch * run.data.frames * run.model.hop / run.model.sample_rate
    waves = (np.asarray(batch["audio"], np.float32) / 32_768 for batch in batches)
    count = int(FIT_SECONDS / seconds) + 1
    return fitted(run.model, islice(waves, count), jax.random.key(run.train.seed))


def train(run: VAERun) -> Path:
    """Train, or go on training; gives the weights file. Validation figures go into the log as `valid/...`."""
    objective = make_objective(run, begin(run))
    alone = objective.first if isinstance(objective, TwoPhaseObjective) else objective
    validation = Validation(alone, run.valid, run.data) if run.valid else None
    weights = Path(run.out) / "vae.safetensors"

    def sample(params: Params, step: int) -> Shown:
        kept = params[VAE_PART] if run.adversarial else params
        told: dict[str, float] = {}
        path = Path(run.out) / "samples" / f"{step:06d}"
        if validation is not None:
            told, kept = validation(kept, path)
        save_weights(weights, kept, to_dict(run.model), {"steps": step, **told}, half=True)
        shown = {name: path.with_suffix(name) for name in (PICTURE, SOUND)}
        return {**told, **{f"sample{name}": file for name, file in shown.items() if file.exists()}}

    def between(params: Params, step: int) -> Shown:
        told = sample(params, step)
        shutil.copyfile(weights, weights.with_name("vae_phase_1.safetensors"))
        return told

    batches = audio_batches(run.clips, run.data, share=own_share(run.train.mesh))
    about = {"model": to_dict(run.model), "losses": to_dict(alone.loss), "data": to_dict(run.data)}
    if run.adversarial:
        about["adversarial"] = to_dict(run.adversarial)
    params = fit(objective, batches, run.train, run.out, sample, about, between)
    if jax.process_index() == 0:
        sample(params, run.train.steps)
    return weights


def make_objective(run: VAERun, initial: Params | None) -> VAEObjective | WaveObjective | TwoPhaseObjective:
    """Give the objective that suits the head.

    Raises:
        ValueError: a second phase for a head that gives no wave.
    """
    if isinstance(run.model, VAEConfig) and isinstance(run.model.head, SpectralHeadConfig):
        if run.adversarial:
            raise ValueError("adversarial: the spectral head gives no wave to judge; use head pqmf, or null")
        return VAEObjective(run.model, run.losses, initial)
    first = WaveObjective(run.model, run.wave_losses, initial)
    return TwoPhaseObjective(first, run.adversarial) if run.adversarial else first
