"""Do recordings sound like the words of their prompts? musicnn's tags as the judge."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mfm_jax.evaluation import musicnn
from mfm_jax.evaluation.records import Row
from mfm_jax.music.audio import read_audio

_ALIKE = (("vocal", "vocals", "voice", "singing"), ("beat", "beats"), ("classical", "classic"))
_BATCH = 4  # windows tagged at once


def agreement(works: Sequence[tuple[str, Path]], weights: Path) -> tuple[Row, list[Row]]:
    """Compare tags that prompts name with tags heard in the recordings.

    For each tag that some prompts name and some do not: the chance that a recording asked to have it has more
    of it than one that was not (area under the ROC curve; 50 % is chance).

    Returns:
        Facts of the tagger, and a row for the mean over tags (weighted by the prompts that name each).
    """
    network, digest = musicnn.load(weights, "MTT")
    heard = np.stack([_heard(network, audio) for _, audio in works])
    named = np.array([[_names(prompt, tag) for tag in musicnn.TAGS["MTT"]] for prompt, _ in works])
    areas, counts = [], []
    for column in range(named.shape[1]):
        asked = named[:, column]
        if asked.any() and not asked.all():
            areas.append(_area(heard[asked, column], heard[~asked, column]))
            counts.append(int(asked.sum()))
    value = 100 * float(np.average(areas, weights=counts)) if areas else None
    return (
        {"name": "musicnn-mtt", "weights": digest},
        [{"measure": "tag agreement (AUC; chance 50)", "percent": value, "n": sum(counts)}],
    )


def _heard(network: musicnn.Weights, audio: Path) -> Float[np.ndarray, "50"]:
    """Average the tags over windows of 3 s."""
    wave = read_audio(audio, musicnn.RATE)
    count = max(len(wave) // musicnn.SPAN, 1)
    windows = np.zeros((-(-count // _BATCH) * _BATCH, musicnn.SPAN), np.float32)
    flat = wave[: count * musicnn.SPAN]
    windows.reshape(-1)[: len(flat)] = flat
    found = [
        np.asarray(musicnn.tag(network, windows[i : i + _BATCH])) for i in range(0, len(windows), _BATCH)
    ]
    mean: Float[np.ndarray, 50] = np.concatenate(found)[:count].mean(0)
    return mean


def _names(prompt: str, tag: str) -> bool:
    """Tell whether a prompt names a tag; tags that deny something ('no vocals') are never taken as named."""
    words = next((group for group in _ALIKE if tag in group), (tag,))
    spelled = "|".join(map(re.escape, words))
    return not tag.startswith("no ") and re.search(rf"\b(?:{spelled})s?\b", prompt.lower()) is not None


def _area(asked: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"]) -> float:
    above = asked[:, None] > others[None]
    equal = asked[:, None] == others[None]
    return float(np.mean(above + 0.5 * equal))
