"""What a VAE's training measures and shows on held-out clips, and the principal axes of its latent."""

from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mfm_jax.axes import Params, Wave
from mfm_jax.dsp.spectral import log_magnitudes
from mfm_jax.models.rave import Rave
from mfm_jax.music.audio import write_audio
from mfm_jax.training.data import ClipData, audio_batches
from mfm_jax.training.fidelity import LatentAxes, figures, principal_axes
from mfm_jax.training.pictures import save_panels
from mfm_jax.training.pipeline import WHOLE
from mfm_jax.training.vae import VAEObjective
from mfm_jax.training.vae_wave import WaveObjective

BATCHES = 8
WINDOW = 1_024  # samples, of the spectra in pictures
AXES = "latent"  # name of the principal axes beside a VAE's parameters


class Validation:
    """Held-out batches and what is measured on them."""

    def __init__(self, objective: VAEObjective | WaveObjective, folder: str, data: ClipData) -> None:
        self.model = objective.model
        self.held = list(islice(audio_batches(folder, data, epochs=1, share=WHOLE), BATCHES))
        self._measure = jax.jit(lambda params, batch: objective.measure(params, batch, jax.random.key(0)))
        self._encode = jax.jit(
            lambda params, wave: self.model.apply({"params": params}, wave, method="encode")
        )

    def __call__(self, params: Params, path: Path) -> tuple[dict[str, float], Params]:
        """Measure, and write a picture and a sound to `path`.png and .wav.

        Returns:
            Means by name, `valid/...`, with the fidelity of the latent's principal axes; and the parameters
            with those axes beside them.
        """
        if not self.held:
            return {}, params
        rows = [{**losses, **metrics} for losses, metrics in (self._measure(params, b) for b in self.held)]
        told = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        means = [np.asarray(self._encode(params, _floats(batch["audio"]))[0]) for batch in self.held]
        axes = principal_axes(np.concatenate(means).reshape(-1, means[0].shape[-1]))
        self._show(params, path)
        return {f"valid/{k}": v for k, v in (told | figures(axes)).items()}, self._with_axes(params, axes)

    def _show(self, params: Params, path: Path) -> None:
        """Write the first example and its reconstruction: one after the other, one above the other."""
        wave = _floats(self.held[0]["audio"][:1])
        variables = {"params": params}
        latent: Any = self.model.apply(variables, wave, method="encode")
        made: Any = self.model.apply(variables, latent[0], method="decode")
        spectra = [np.asarray(log_magnitudes(x, WINDOW)[0]) for x in (wave, made)]
        save_panels(path.with_suffix(".png"), spectra)
        write_audio(path.with_suffix(".wav"), np.asarray(jnp.concatenate([wave[0], made[0]])))

    def _with_axes(self, params: Params, axes: LatentAxes) -> Params:
        """Put the principal axes beside the parameters; a RAVE has a place for them."""
        if isinstance(self.model, Rave):
            return {**params, "axes": axes.components, "center": axes.mean, "fidelity": axes.fidelity}
        return {**params, AXES: axes._asdict()}


def _floats(audio: np.ndarray) -> Wave:
    return jnp.asarray(audio, jnp.float32) / 32_768
