"""The generator's training, from z records to weights: beat summaries, then all levels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mfm_jax.axes import Params
from mfm_jax.checkpoint import load_weights, save_weights, weights_hash
from mfm_jax.config import build, config, to_dict
from mfm_jax.mesh import MeshConfig, make_mesh, put_batch
from mfm_jax.models.codec import CodecConfig
from mfm_jax.models.generator import GeneratorConfig
from mfm_jax.models.summaries import BeatCoder, BeatCoderConfig
from mfm_jax.models.text import TextConfig
from mfm_jax.models.text_loading import Text as TextEmbedder
from mfm_jax.models.text_loading import load_tokeniser
from mfm_jax.sharding import put_parameters
from mfm_jax.training.generator import (
    CoderLoss,
    CoderObjective,
    PriorLoss,
    PriorObjective,
    rotate,
)
from mfm_jax.training.generator_samples import SampleConfig, report
from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.pipeline import WHOLE, own_share
from mfm_jax.training.reporting import Shown
from mfm_jax.training.stretches import (
    BatchConfig,
    Stretch,
    Text,
    coder_batches,
    load_stretches,
    no_text,
    prior_batches,
)
from mfm_jax.training.text_cache import TextCache
from mfm_jax.training.writers import samples_in

BEATS = 512  # beats summarised at once
SAMPLES, SAMPLE_BEATS = 4, 32  # pieces written at intervals, as MIDI and pictures


@config
class DataConfig:
    """Where things are.

    Attributes:
        z: folder of z records.
        codec: `codec.safetensors` that made them.
        text: folder with `text.safetensors` and `tokenizer.json`, such as `mfm convert t5` writes; None
            trains without text.
        text_cache: folder of captions' embeddings, shared by runs; None for the run's own.
    """

    z: str
    codec: str
    text: str | None = None
    text_cache: str | None = None


@config
class GeneratorRun:
    """Everything about a run.

    Attributes:
        out: folder of the run: checkpoints, metrics, `generator.safetensors`.
        begin: weights to go on from (same sizes), such as those of an earlier z.
        coder: length and optimiser of the beat coder's fit; None keeps that of `begin`.
        prior: of the levels' fit.
    """

    model: GeneratorConfig
    data: DataConfig
    out: str
    begin: str | None = None
    seed: int = 0
    batches: BatchConfig = BatchConfig()
    coder_loss: CoderLoss = CoderLoss()
    prior_loss: PriorLoss = PriorLoss()
    coder: TrainConfig | None = TrainConfig()
    prior: TrainConfig = TrainConfig()


def train(run: GeneratorRun) -> Path:
    """Run both fits -> path of `generator.safetensors`. A finished fit is not repeated.

    Each fit reads the shards that are whole when it starts, so encoding may go on during the first.
    """
    out = Path(run.out)
    path = out / "generator.safetensors"
    begin = load_weights(run.begin).params if run.begin else None
    coder = _fit_coder(run, begin)
    stretches = _stretches(run, "train")
    held_out = _stretches(run, "valid")
    print(f"{len(stretches)} stretches, {sum(len(s.z) for s in stretches)} beats", flush=True)
    beats = summaries(run.model.coder, coder, stretches)
    text = embed(run.data, [*stretches, *held_out], run.model, out / "text_cache")
    objective = PriorObjective(run.model, run.prior_loss, coder, begin)
    stream = prior_batches(stretches, beats, text, run.batches, run.seed, own_share(run.prior.mesh))
    judge = prior_batches(
        held_out, summaries(run.model.coder, coder, held_out), text, run.batches, run.seed + 1, WHOLE
    )
    judged = [next(judge) for _ in range(8)]
    losses = jax.jit(objective.losses)
    heard = SampleConfig(count=SAMPLES, beats=min(SAMPLE_BEATS, max(len(s.z) for s in held_out)))

    def keep(params: Params, step: int) -> None:
        told = {"step": step, **_about(run)}
        save_weights(path, objective.whole(params), to_dict(run.model), told, half=True)

    def sample(params: Params, step: int) -> Shown:
        keep(params, step)
        folder = out / "samples" / str(step)
        report(path, run.data.codec, held_out, folder, heard, text)
        rng, start = jax.random.key(0), jnp.array(0)
        whole = objective.whole(params)
        found = [losses(whole, jax.tree.map(jnp.asarray, b), rng, start)[0] for b in judged]
        figures = {f"valid_{name}": float(np.mean([f[name] for f in found])) for name in found[0]}
        return {**figures, **samples_in(folder)}

    fit(objective, stream, run.prior, out / "prior", sample, _about(run))
    return path


def _about(run: GeneratorRun) -> dict[str, Any]:
    return {"model": to_dict(run.model), "codec": weights_hash(run.data.codec), "seed": run.seed}


def _stretches(run: GeneratorRun, split: str) -> list[Stretch]:
    """Read z records.

    Raises:
        ValueError: they were encoded on another tonic than the model's.
    """
    found = load_stretches(run.data.z, split)
    wrong = next((s for s in found if s.tonic != run.model.tonic), None)
    if wrong is not None:
        told, wanted = (("any key" if t is None else f"tonic {t}") for t in (wrong.tonic, run.model.tonic))
        raise ValueError(
            f"{run.data.z}: {wrong.id} was encoded in {told}, and model.tonic asks for {wanted}; set it so, "
            "or encode again with the same tonic=.."
        )
    return found


def _fit_coder(run: GeneratorRun, begin: Params | None) -> Params:
    """Train the beat coder and turn its bottleneck to its principal directions."""
    path = Path(run.out) / "coder.safetensors"
    if path.is_file():
        return jax.tree.map(jnp.asarray, load_weights(path).params)
    stretches = _stretches(run, "train")
    codec = load_weights(run.data.codec)
    frozen = build(CodecConfig, codec.config), codec.params
    print(f"{len(stretches)} stretches for the beat coder", flush=True)
    known = begin["coder"] if begin else None
    if run.coder is None and known is None:
        raise ValueError("coder: null keeps the beat coder of `begin`, and there is none; give one or fit it")
    if run.coder is None:
        coder: Params = known or {}
    else:
        objective = CoderObjective(run.model, run.coder_loss, *frozen, known)
        stream = coder_batches(stretches, run.batches, run.seed, own_share(run.coder.mesh))
        coder = fit(objective, stream, run.coder, Path(run.out) / "coder", about=_about(run))
    if begin is None:  # going on keeps the directions, which the levels know
        rng = np.random.default_rng(run.seed)
        some = [stretches[i] for i in rng.permutation(len(stretches))[:400]]
        coder = rotate(
            coder, np.concatenate(summaries(run.model.coder, coder, some, wide=True)), run.model.coder.width
        )
    if jax.process_index() == 0:
        save_weights(path, coder, to_dict(run.model.coder))
    return coder


def summaries(
    model: BeatCoderConfig, params: Params, stretches: Sequence[Stretch], wide: bool = False
) -> list[Float[np.ndarray, "N W"]]:
    """Latents of every beat of every stretch, as float16; `wide` gives the bottleneck before its rotation."""
    coder = BeatCoder(model)
    encode = jax.jit(lambda z: coder.apply({"params": params}, z, method="encode_wide" if wide else "encode"))
    lengths = [len(s.z) for s in stretches]
    flat = []
    pending: list[np.ndarray] = []
    held = 0
    for s in [*stretches, None]:
        if s is not None:
            pending.append(s.z)
            held += len(s.z)
        if held >= BEATS * 16 or s is None:
            z = np.concatenate(pending) if pending else np.zeros((0, *stretches[0].z.shape[1:]), np.float16)
            for start in range(0, len(z), BEATS):
                block = z[start : start + BEATS].astype(np.float32)
                padded = np.pad(block, ((0, BEATS - len(block)), (0, 0), (0, 0)))
                flat.append(np.asarray(encode(padded[None]))[0, : len(block)].astype(np.float16))
            pending, held = [], 0
    return np.split(np.concatenate(flat), np.cumsum(lengths)[:-1])


def embed(data: DataConfig, stretches: Sequence[Stretch], model: GeneratorConfig, cache: Path) -> Text:
    """Look up the embedding of every caption; what `cache` does not hold is encoded and kept there.

    The encoder is shared out over the devices of each process, and the captions over processes.
    """
    if data.text is None:
        return no_text(stretches, model.text_width, model.text_tokens)
    weights = Path(data.text) / "text.safetensors"
    params, values, _ = load_weights(weights)
    config = build(TextConfig, values)
    if config.embedding_width != model.text_width:
        raise ValueError(f"{weights}: {config.embedding_width}-d text; set model.text_width to that")
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1), jax.local_devices())
    placed = put_parameters(params if "params" in params else {"params": params}, mesh)
    tokeniser = load_tokeniser(weights.with_name("tokenizer.json"))
    encoder = TextEmbedder(config, placed, tokeniser, put=lambda rows: put_batch(rows, mesh))
    captions = sorted({caption for s in stretches for caption in s.captions})
    lookup = TextCache(data.text_cache or cache, encoder, weights_hash(weights), model.text_tokens)
    found = lookup(captions)
    rows = {caption: row for row, caption in enumerate(captions)}
    return Text(found.pooled, found.tokens, found.mask, rows)
