"""Training a VAE in RAVE's two phases (Caillon & Esling 2021): magnitudes, then against a discriminator.

In the second phase the encoder is frozen, so that the latent stays what it is, and the decoder learns what
magnitudes do not say. Every n-th step moves the discriminator, the others the decoder.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfm_jax.axes import Params, Wave
from mfm_jax.config import config
from mfm_jax.models.discriminator import Discriminator, DiscriminatorConfig, Judgement
from mfm_jax.training.optim import OptimConfig
from mfm_jax.training.state import Turn
from mfm_jax.training.vae import Batch, gaussian_kl, waves
from mfm_jax.training.vae_wave import WaveObjective

VAE_PART, JUDGE_PART = "vae", "discriminator"  # top names of a run's parameters
Criterion = Literal["hinge", "least_squares"]
Matching = Literal["relative", "absolute"]


@config
class AdversarialConfig:
    """The second phase.

    Attributes:
        discriminator: its kind and sizes.
        after_steps: the phase begins at this step,
        after_minutes: or after so many minutes of training, whichever is first. A run that is resumed across
            a border of steps repeats itself exactly; the clock does not.
        every: every so many steps are the discriminator's (RAVE v1: 2, v2: 4).
        adversarial: weight of the decoder's score.
        features: weight of the distance of features.
        criterion: hinge, or least squares (Mao et al. 2017).
        matching: distance of features relative to their size, layer by layer (RAVE v2), or as they are (v1).
        optim: of the discriminator.
    """

    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    after_steps: int | None = None
    after_minutes: float | None = None
    every: int = 4
    adversarial: float = 1.0
    features: float = 10.0
    criterion: Criterion = "hinge"
    matching: Matching = "relative"
    optim: OptimConfig = OptimConfig(rate=1e-4, warmup=1, final=1.0, decay=0.0, beta1=0.5, beta2=0.9, ema=0.0)

    def __post_init__(self) -> None:
        """Refuse a phase that never begins, and one in which the decoder never moves."""
        if self.after_steps is None and self.after_minutes is None:
            raise ValueError("adversarial: never begins; give after_steps or after_minutes")
        if self.every < 2:
            raise ValueError(f"adversarial.every {self.every}: must be 2 or more, or the decoder never moves")


class TwoPhaseObjective:
    """Both phases for `fit`; parameters are in parts `vae` and `discriminator`."""

    def __init__(self, first: WaveObjective, settings: AdversarialConfig) -> None:
        self.first = first
        self.settings = settings
        self.judge = Discriminator(settings.discriminator)
        self.weights = first.weights
        self.initial = None if first.initial is None else {VAE_PART: first.initial}
        self.optims: dict[str, OptimConfig | None] = {VAE_PART: None, JUDGE_PART: settings.optim}
        self._alone = Turn(VAE_PART, _Alone(first), 1)
        self._decoder = Turn(VAE_PART, _Decoding(self), 2)
        self._judge = Turn(JUDGE_PART, _Judging(self), 2, "discriminator_")

    def init(self, rng: Array, batch: Batch) -> Params:
        """Draw the parameters of both."""
        first, second = jax.random.split(rng)
        wave = self.first.cropped(waves(batch))
        judge = jax.jit(self.judge.init)(second, wave)["params"]
        return {VAE_PART: self.first.init(first, batch), JUDGE_PART: judge}

    def turn(self, step: int, minutes: float) -> Turn:
        """Say what a step does."""
        by_steps = self.settings.after_steps is not None and step >= self.settings.after_steps
        by_clock = self.settings.after_minutes is not None and minutes >= self.settings.after_minutes
        if not (by_steps or by_clock):
            return self._alone
        return self._judge if step % self.settings.every == 0 else self._decoder

    def losses(
        self, params: Params, batch: Batch, rng: Array, step: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Give those of the first phase."""
        return self.first.losses(params[VAE_PART], batch, rng, step)

    def judged(self, params: Params, wave: Wave) -> list[Judgement]:
        """Give what the discriminator says of a wave."""
        said: Any = self.judge.apply({"params": params[JUDGE_PART]}, wave)
        judgements: list[Judgement] = said
        return judgements


class _Alone:
    """Phase 1: the VAE by itself."""

    def __init__(self, first: WaveObjective) -> None:
        self.first = first
        self.weights = first.weights
        self.trainable = first.trainable

    def losses(
        self, params: Params, batch: Batch, rng: Array, step: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        return self.first.losses(params[VAE_PART], batch, rng, step)


class _Decoding:
    """Phase 2, the decoder's steps: magnitudes as before, and what the discriminator says."""

    def __init__(self, whole: "TwoPhaseObjective") -> None:
        self.whole = whole
        kept = {name: whole.weights[name] for name in ("wave", "bands")}
        self.weights = {
            **kept,
            "adversarial": whole.settings.adversarial,
            "features": whole.settings.features,
        }

    def trainable(self, params: Params) -> Params:
        """All but the encoder and the whitening."""
        free = self.whole.first.trainable(params)
        return {**free, "encoder": jax.tree.map(lambda _: False, free["encoder"])}

    def losses(
        self, params: Params, batch: Batch, rng: Array, step: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        first, settings = self.whole.first, self.whole.settings
        wave, made, mean, std = first.passed(params[VAE_PART], batch, rng)
        fake, real = self.whole.judged(params, made), self.whole.judged(params, wave)
        found = {
            **first.distances(made, wave),
            "adversarial": persuasion(fake, settings.criterion),
            "features": feature_distance(fake, real, settings.matching),
        }
        return found, {"phase": jnp.full((), 2.0), "kl": gaussian_kl(mean, std), "std": jnp.mean(std)}


class _Judging:
    """Phase 2, the discriminator's steps."""

    def __init__(self, whole: "TwoPhaseObjective") -> None:
        self.whole = whole
        self.weights = {"real": 1.0, "fake": 1.0}

    def losses(
        self, params: Params, batch: Batch, rng: Array, step: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        wave, made, _, _ = self.whole.first.passed(params[VAE_PART], batch, rng)
        real, fake = self.whole.judged(params, wave), self.whole.judged(params, made)
        return judging(real, fake, self.whole.settings.criterion), {"right": share_right(real, fake)}


def judging(real: list[Judgement], fake: list[Judgement], criterion: Criterion) -> dict[str, Array]:
    """Give the discriminator's losses, averaged over its networks: `real` and `fake`."""
    if criterion == "hinge":
        good = [jnp.mean(jnp.maximum(1 - one.scores, 0)) for one in real]
        bad = [jnp.mean(jnp.maximum(1 + one.scores, 0)) for one in fake]
    else:
        good = [jnp.mean((1 - one.scores) ** 2) for one in real]
        bad = [jnp.mean(one.scores**2) for one in fake]
    return {"real": _mean(good), "fake": _mean(bad)}


def persuasion(fake: list[Judgement], criterion: Criterion) -> Float[Array, ""]:
    """Give the decoder's loss: how far its sound is from being taken for real."""
    if criterion == "hinge":
        return _mean([-jnp.mean(one.scores) for one in fake])
    return _mean([jnp.mean((1 - one.scores) ** 2) for one in fake])


def feature_distance(fake: list[Judgement], real: list[Judgement], matching: Matching) -> Float[Array, ""]:
    """Give the mean absolute difference of features, over all layers of all networks.

    With `relative` matching, each layer's is divided by the mean size of the real features.
    """
    found = []
    for one, other in zip(fake, real, strict=True):
        for made, wanted in zip(one.features, other.features, strict=True):
            distance = jnp.mean(jnp.abs(made - wanted))
            size = jnp.mean(jnp.abs(wanted)) + 1e-7 if matching == "relative" else 1.0
            found.append(distance / size)
    return _mean(found)


def share_right(real: list[Judgement], fake: list[Judgement]) -> Float[Array, ""]:
    """Give the share of scores on the right side of the middle between the mean of real and of fake ones."""
    found = []
    for good, bad in zip(real, fake, strict=True):
        middle = 0.5 * (jnp.mean(good.scores) + jnp.mean(bad.scores))
        found += [jnp.mean(good.scores > middle), jnp.mean(bad.scores < middle)]
    return _mean(found)


def _mean(values: list[Array]) -> Float[Array, ""]:
    return jnp.mean(jnp.stack(values))
