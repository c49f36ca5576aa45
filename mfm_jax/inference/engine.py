"""Weights in memory and the jitted steps that every workflow is made of.

Each step has one static shape (a window of frames or of ticks, one item), so it compiles once for any length
of input, and an item gives the same bytes alone and among others.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from mfm_jax.axes import HOP, Params
from mfm_jax.checkpoint import config_hash, load_weights, weights_hash
from mfm_jax.config import build
from mfm_jax.inference.decoding import stream
from mfm_jax.inference.rave import FrozenRave
from mfm_jax.inference.together import Run, Together, alone
from mfm_jax.models.codec import CodecConfig, MidiAudioCodec
from mfm_jax.models.codec_transcriber import Heard
from mfm_jax.models.generator import Generator, GeneratorConfig
from mfm_jax.models.rave import Rave
from mfm_jax.models.text import TextConfig
from mfm_jax.models.text_loading import Text, load_tokeniser
from mfm_jax.models.vaes import refuse_misfit, vae_of

PRETRAINED = Path(__file__).parents[1] / "pretrained"
WEIGHTS = {"vae": "vae.safetensors", "codec": "codec.safetensors", "generator": "generator.safetensors"}


class Part(NamedTuple):
    """One model: the module, its parameters, and the metadata of its weights."""

    module: Any
    params: Params
    meta: dict[str, Any]


def keep_compiled_code() -> None:
    """Keep compiled code between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "mfm-jax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class Engine:
    """Loads each model on first use from a folder of weights."""

    def __init__(self, folder: str | Path | None = None, together: Together | None = None):
        """Take the folder; None for the weights that come with the package.

        Args:
            folder: of the weights.
            together: batches what the threads of its `map` ask; without it each call is one item's.

        Raises:
            ValueError: there is no such folder.
        """
        self.run: Run = alone if together is None else together.run
        self.folder = PRETRAINED if folder is None else Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder}: no such folder of weights; omit --model for the embedded ones")

    def _load(self, name: str, make: Callable[[dict[str, Any]], Any]) -> Part:
        path = self.folder / WEIGHTS[name]
        if not path.is_file():
            raise ValueError(f"{path}: no weights of the {name}; train them or choose another --model")
        params, config, meta = load_weights(path)
        return Part(make(config), params, meta)

    def has(self, name: str) -> bool:
        """Whether the folder has weights of a model."""
        return (self.folder / WEIGHTS[name]).is_file()

    @property
    def rave(self) -> FrozenRave | None:
        """The VAE, when it is a RAVE."""
        return FrozenRave(self.vae.module, self.vae.params) if isinstance(self.vae.module, Rave) else None

    @functools.cached_property
    def vae(self) -> Part:
        """The VAE."""
        return self._load("vae", vae_of)

    @functools.cached_property
    def codec(self) -> Part:
        """The codec between rolls, z and frames; refuses a VAE of other frames."""
        refuse_misfit(self.vae.module.config, str(self.folder / WEIGHTS["vae"]))
        return self._load("codec", lambda config: MidiAudioCodec(build(CodecConfig, config)))

    @functools.cached_property
    def generator(self) -> Part:
        """The generator of z."""
        return self._load("generator", lambda config: Generator(build(GeneratorConfig, config)))

    @functools.cached_property
    def text(self) -> Text:
        """The text encoder."""
        path = self.folder / "text.safetensors"
        if not path.is_file():
            raise ValueError(f"{path}: no weights of the text encoder; choose another --model")
        params, config, _ = load_weights(path)
        variables = params if "params" in params else {"params": params}
        return Text(build(TextConfig, config), variables, load_tokeniser(self.folder / "tokenizer.json"))

    def load(self, *names: str) -> None:
        """Load parts by name now, such as "codec" or "quiet", before threads ask for them."""
        for name in names:
            getattr(self, name)

    def facts(self) -> dict[str, Any]:
        """Name the weights that are used and their configs, by their hashes."""
        return dict(self._facts)

    @functools.cached_property
    def _facts(self) -> dict[str, Any]:
        files = sorted(self.folder.glob("*.safetensors"))
        return {
            "weights": {path.stem: weights_hash(path) for path in files},
            "config": {path.stem: config_hash(path) for path in files},
        }

    def encode(self, wave: np.ndarray) -> Float[Array | np.ndarray, "F D"]:
        """Encode mono audio [S] at 44.1 kHz to the means of its VAE frames."""
        frames: Float[Array | np.ndarray, "F D"] = self._vae("encode", wave[None])[0][0]
        return frames

    def decode(self, frames: Iterable[np.ndarray], seed: int = 0) -> Iterator[np.ndarray]:
        """Decode VAE frames [n, 256] that arrive in pieces to mono audio, HOP samples for each."""
        if self.rave is not None:
            return (block[0, 0] for block in self.rave.decode_blocks((piece[None] for piece in frames), seed))
        return stream(self.vae.module, self.vae.params, frames, self.quiet, jax.random.key(seed), self.run)

    @functools.cached_property
    def quiet(self) -> np.ndarray:
        """The VAE frame of silence [256]."""
        return np.asarray(self._vae("encode", np.zeros((1, 64 * HOP), np.float32))[0][0, 32])

    def listen(self, latent: Float[Array | np.ndarray, "F D"]) -> Heard:
        """Hear frames once, before asking for instruments."""
        heard: Heard = self._codec("listen", latent[None])
        return heard

    def answer(self, heard: Heard, category: int, percussion: bool) -> np.ndarray:
        """Give roll probabilities [F, 128, 3] of one instrument; -1 is the mixture."""
        return _probabilities(self._codec("answer", heard, np.array([category]), np.array([percussion])))

    def gather(self, heard: Heard, frame_ticks: np.ndarray, n_ticks: int) -> np.ndarray:
        """Pool what was heard to z [n_ticks, 64]."""
        return np.asarray(self._codec("gather", heard, frame_ticks[None], static=(n_ticks,))[0])

    def encode_roll(self, rolls: np.ndarray, categories: np.ndarray, percussion: np.ndarray) -> np.ndarray:
        """Encode rolls [I, T, 128, 3] to z [T, 64]; a category of -1 marks an empty row."""
        mask = categories >= 0
        ask = np.maximum(categories, 0)[None], percussion[None], mask[None]
        return np.asarray(self._codec("encode_roll", rolls[None], *ask)[0])

    def decode_roll(self, z: np.ndarray, category: int, percussion: bool) -> np.ndarray:
        """Decode z [T, 64] to roll probabilities [T, 128, 3] of one instrument."""
        return _probabilities(
            self._codec("decode_roll", z[None], np.array([category]), np.array([percussion]))
        )

    def to_vae(
        self,
        z: np.ndarray,
        frame_ticks: np.ndarray,
        instruments: np.ndarray,
        timbre: np.ndarray | None = None,
    ) -> np.ndarray:
        """Turn z [T, 64] into VAE frames at `frame_ticks` [F]; `instruments` [19] says what sounds."""
        if timbre is None:
            timbre = np.zeros(2 * self.codec.module.config.to_frames.latent, np.float32)
        given = z[None], frame_ticks[None], instruments[None], timbre[None]
        return np.asarray(self._codec("to_vae", *given)[0])

    def _vae(self, method: str, *given: Any) -> Any:
        return self.run(_applied, (self.vae.module, method, ()), self.vae.params, *given)

    def _codec(self, method: str, *given: Any, static: tuple[int, ...] = ()) -> Any:
        return self.run(_applied, (self.codec.module, method, static), self.codec.params, *given)


def _applied(module: Any, method: str, static: tuple[int, ...], params: Params, *given: Any) -> Any:
    return module.apply({"params": params}, *given, *static, method=method)


def _probabilities(logits: Array | np.ndarray) -> np.ndarray:
    return np.asarray(_sigmoid(logits)[0])


@jax.jit
def _sigmoid(logits: Array | np.ndarray) -> Array:
    return jax.nn.sigmoid(logits)
