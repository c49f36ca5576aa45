"""MidiAudioCodec: every way between piano rolls, the music latent z, and VAE frames."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mfm_jax.config import config
from mfm_jax.layers.film import MIXTURE
from mfm_jax.models.codec_audio import FromFrames, FromFramesConfig, ToFrames, ToFramesConfig, multi_hot
from mfm_jax.models.codec_score import RollDecoder, RollEncoder, ScoreConfig
from mfm_jax.models.codec_transcriber import Heard, Transcriber, TranscriberConfig


@config
class CodecConfig:
    """Sizes of the codec's parts."""

    score: ScoreConfig = ScoreConfig()
    transcriber: TranscriberConfig = TranscriberConfig()
    to_frames: ToFramesConfig = ToFramesConfig()
    from_frames: FromFramesConfig = FromFramesConfig()


def everyone(batch: int) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:
    """Category and percussion flag that ask for all instruments together."""
    return jnp.full(batch, MIXTURE), jnp.zeros(batch, bool)


class MidiAudioCodec(nn.Module):
    """Five operations that share one latent. A category of -1 asks for all instruments together."""

    config: CodecConfig

    def setup(self) -> None:
        """Name the parts."""
        c = self.config
        self.roll_encoder = RollEncoder(c.score)
        self.roll_decoder = RollDecoder(c.score)
        self.transcriber = Transcriber(c.transcriber)
        self.to_frames = ToFrames(c.to_frames)
        self.from_frames = FromFrames(c.from_frames)

    def encode_roll(
        self,
        rolls: Float[Array, "B I T P R"],
        categories: Int[Array, "B I"],
        percussion: Bool[Array, "B I"],
        mask: Bool[Array, "B I"],
    ) -> Float[Array, "B T D"]:
        """Rolls by instrument to z, of zero mean and unit variance at each tick."""
        return self.roll_encoder(rolls, categories, percussion, mask)

    def decode_roll(
        self, z: Float[Array, "B T D"], category: Int[Array, " B"], percussion: Bool[Array, " B"]
    ) -> Float[Array, "B T P R"]:
        """Z to the roll logits of one instrument on ticks."""
        return self.roll_decoder(z, category, percussion)

    def to_vae(
        self,
        z: Float[Array, "B T D"],
        frame_ticks: Float[Array, "B F"],
        instruments: Float[Array, "B I"],
        timbre: Float[Array, "B E"] | None = None,
    ) -> Float[Array, "B F V"]:
        """Z to VAE frames.

        Args:
            z: music latent.
            frame_ticks: position of each frame, in ticks.
            instruments: 1 for each of the 19 categories that sounds.
            timbre: `codec_audio.statistics` of a recording whose sound is wanted; None for the average sound.
        """
        if timbre is None:
            timbre = jnp.zeros((z.shape[0], 2 * self.config.to_frames.latent), z.dtype)
        roll = jax.lax.stop_gradient(jax.nn.sigmoid(self.decode_roll(z, *everyone(z.shape[0]))))
        return self.to_frames(z, roll, frame_ticks, instruments, timbre)

    def listen(self, latent: Float[Array, "B F D"]) -> Heard:
        """First half of `transcribe`, to ask for several instruments at the price of one."""
        return self.transcriber.listen(latent)

    def answer(
        self, heard: Heard, category: Int[Array, " B"], percussion: Bool[Array, " B"]
    ) -> Float[Array, "B F P R"]:
        """Second half of `transcribe`; F is rounded up to the transcriber's stride."""
        return self.transcriber.answer(heard, category, percussion)

    def transcribe(
        self, latent: Float[Array, "B F D"], category: Int[Array, " B"], percussion: Bool[Array, " B"]
    ) -> Float[Array, "B F P R"]:
        """VAE frames to the roll logits of one instrument on frames."""
        return self.answer(self.listen(latent), category, percussion)[:, : latent.shape[1]]

    def from_vae(
        self, latent: Float[Array, "B F D"], frame_ticks: Float[Array, "B F"], n_ticks: int
    ) -> Float[Array, "B T V"]:
        """VAE frames to z on ticks 0 .. n_ticks."""
        return self.gather(self.listen(latent), frame_ticks, n_ticks)

    def gather(self, heard: Heard, frame_ticks: Float[Array, "B F"], n_ticks: int) -> Float[Array, "B T D"]:
        """Second half of `from_vae`."""
        stride = self.config.transcriber.stride
        positions = jnp.pad(frame_ticks, ((0, 0), (0, -frame_ticks.shape[1] % stride)), mode="edge")
        roll = jax.lax.stop_gradient(jax.nn.sigmoid(self.answer(heard, *everyone(positions.shape[0]))))
        return self.from_frames(heard.whole, roll, positions, n_ticks)

    def __call__(
        self,
        rolls: Float[Array, "B I T P R"],
        categories: Int[Array, "B I"],
        percussion: Bool[Array, "B I"],
        mask: Bool[Array, "B I"],
        frame_ticks: Float[Array, "B F"],
    ) -> Float[Array, "B F P R"]:
        """Go once round, score to frames to score: touches every parameter."""
        z = self.encode_roll(rolls, categories, percussion, mask)
        latent = self.to_vae(z, frame_ticks, multi_hot(categories, mask))
        self.from_vae(latent, frame_ticks, z.shape[1])
        return self.transcribe(latent, *everyone(z.shape[0]))
