"""A folder of random weights, small enough that workflows run in seconds; the shapes are real."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.checkpoint import save_weights
from mfm_jax.config import to_dict
from mfm_jax.layers.attention import TransformerConfig
from mfm_jax.layers.mixture import MixtureConfig
from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.models.codec import CodecConfig, MidiAudioCodec
from mfm_jax.models.codec_audio import FromFramesConfig, ToFramesConfig
from mfm_jax.models.codec_score import ScoreConfig
from mfm_jax.models.codec_transcriber import TranscriberConfig
from mfm_jax.models.conditions import unknown
from mfm_jax.models.generator import Generator, GeneratorConfig, LevelConfig, Plan
from mfm_jax.models.summaries import BeatCoderConfig
from mfm_jax.models.text import TextConfig, TextEncoder
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_heads import SpectralHeadConfig

WORDS = "a calm fast sad piano waltz march in major minor bpm [UNK]"


def random_params(init: Callable[..., Any], seed: int) -> Any:
    """Fill the shapes of an initialiser with small random numbers; nothing is compiled."""
    shapes = jax.eval_shape(init)["params"]
    rng = np.random.default_rng(seed)
    leaves, tree = jax.tree.flatten(shapes)
    values = [rng.standard_normal(leaf.shape).astype(np.float32) * 0.1 for leaf in leaves]
    return jax.tree.unflatten(tree, values)


def _vae(rng: jax.Array) -> tuple[VAEConfig, Any]:
    config = VAEConfig(head=SpectralHeadConfig(width=8, hidden=8, dilations=(1,), low_steps=1, high_steps=2))
    params = random_params(lambda: VAE(config).init(rng, jnp.zeros((1, 2_048))), 0)
    for part in ("encoder", "head"):
        params[part]["mean"], params[part]["scale"] = (
            np.full(256, -7, np.float32),
            np.full(256, 2.5, np.float32),
        )
    return config, params


def _codec(rng: jax.Array) -> tuple[CodecConfig, Any]:
    small = {"width": 8, "dilations": (1,)}
    config = CodecConfig(
        score=ScoreConfig(
            instrument_width=8,
            decoder_dilations=(1,),
            context=8,
            transformer=TransformerConfig(layers=1, width=8, heads=2),
            embedding=4,
            **small,
        ),
        transcriber=TranscriberConfig(key_width=4, summary_width=2, embedding=4, **small),
        to_frames=ToFramesConfig(hidden=8, embedding=4, timbre=4, **small),
        from_frames=FromFramesConfig(**small),
    )

    def every(codec: MidiAudioCodec) -> Any:
        rolls, one = jnp.zeros((1, 1, 12, 128, 3)), jnp.zeros((1, 1), int)
        z = codec.encode_roll(rolls, one, one > 0, one == 0)
        ticks = jnp.linspace(0, 11, 64)[None]
        frames = codec.to_vae(z, ticks, jnp.zeros((1, 19)))
        first, second = one[:, 0], one[:, 0] > 0
        return (
            codec.decode_roll(z, first, second),
            codec.transcribe(frames, first, second),
            codec.from_vae(frames, ticks, 12),
        )

    return config, random_params(lambda: MidiAudioCodec(config).init(rng, method=every), 1)


def _generator(rng: jax.Array) -> tuple[GeneratorConfig, Any]:
    def level(width: int) -> LevelConfig:
        mixture = MixtureConfig(width=width, group=4, components=2, hidden=4)
        return LevelConfig(xlstm=XLSTMConfig(layers=1, width=8, heads=2), mixture=mixture)

    config = GeneratorConfig(
        section=level(8),
        beat=level(8),
        tick=level(64),
        coder=BeatCoderConfig(hidden=(8,), wide=8, width=8),
        text_width=12,
        text_tokens=6,
        condition_width=8,
        section_width=4,
        section_hidden=8,
        max_sections=4,
    )
    zero, whole = jnp.zeros((1, 2)), jnp.zeros((1, 2), int)
    plan = Plan(
        whole, zero, zero + 2, whole, jnp.zeros((1, 2, 4)), zero, zero + 48, zero, whole == 0,
        jnp.ones(1, int), jnp.ones(1, int),
    )  # fmt: skip
    z = jnp.zeros((1, 2, TICKS_PER_BEAT, 64))
    return config, random_params(lambda: Generator(config).init(rng, unknown(1, 12, 6), plan, z), 2)


def _text(rng: jax.Array) -> tuple[TextConfig, Any]:
    config = TextConfig(vocabulary=16, width=8, layers=1, heads=2, head_width=4, ffn=8, output_width=12)
    ids = jnp.zeros((1, 4), int)
    return config, random_params(lambda: TextEncoder(config).init(rng, ids, ids == 0), 3)


def make(folder: Path) -> Path:
    """Write weights and a tokeniser into a folder."""
    rng = jax.random.key(0)
    for name, build in {"vae": _vae, "codec": _codec, "generator": _generator, "text": _text}.items():
        config, params = build(rng)
        save_weights(folder / f"{name}.safetensors", params, to_dict(config))
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS.split())}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
