"""The form of a piece by simple rules: where its sections begin, and what each is called."""

import numpy as np
from jaxtyping import Bool, Float, Int

from mfm_jax.models.plan import LABELS, MAX_SECTION

SHORTEST = 4  # beats
REACH = 8  # beats compared on either side of a boundary
USUAL_BARS = {8: 0.0, 4: 0.15, 6: 0.3, 5: 0.4, 7: 0.4, 9: 0.45, 10: 0.4, 12: 0.3, 16: 0.2, 3: 0.5, 2: 0.5}
UNUSUAL = 0.6
BAR_COSTS = np.array([USUAL_BARS.get(bars, UNUSUAL) for bars in range(MAX_SECTION + 1)])


def cut_sections(
    features: Float[np.ndarray, "N D"], bar_starts: Bool[np.ndarray, " N"]
) -> Int[np.ndarray, " S"]:
    """Choose the beats on which sections begin, the first being 0.

    Sections last 4 to 32 beats, begin with a bar where bars allow, like 4 or 8 bars, and begin where the
    beats after differ from the beats before. The best cut under these rules is found by dynamic programming.

    Args:
        features: what each beat sounds like (pitch classes, rhythm, density..), of comparable scales.
        bar_starts: beats on which a bar begins.
    """
    n = len(features)
    novelty = _novelty(features)
    bars = np.concatenate([[0], np.cumsum(bar_starts)]).astype(int)
    best = np.full(n + 1, np.inf)
    best[0] = 0.0
    came = np.zeros(n + 1, int)
    for end in range(1, n + 1):
        start = np.arange(max(end - MAX_SECTION, 0), end)
        cost = (
            best[start] + BAR_COSTS[bars[end] - bars[start]] + np.where(end - start < SHORTEST, UNUSUAL, 0.0)
        )
        if end < n:
            cost += 0.5 - novelty[end] + (0.0 if bar_starts[end] else 3.0)
        came[end] = start[np.argmin(cost)]
        best[end] = cost.min()
    starts = []
    at = n
    while at > 0:
        at = int(came[at])
        starts.append(at)
    return np.array(starts[::-1])


def _novelty(features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """Cosine distance between the means of the REACH beats before and after each beat, scaled to 0..1."""
    total = np.concatenate([np.zeros((1, features.shape[1])), np.cumsum(features, 0)])
    at = np.arange(len(features))
    low, high = np.maximum(at - REACH, 0), np.minimum(at + REACH, len(features))
    before = (total[at] - total[low]) / np.maximum(at - low, 1)[:, None]
    after = (total[high] - total[at]) / np.maximum(high - at, 1)[:, None]
    sizes = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    distance = 1 - (before * after).sum(1) / np.maximum(sizes, 1e-6)
    return distance / max(float(distance[1:].max(initial=0.0)), 1e-6)


def name_sections(
    features: Float[np.ndarray, "N D"], onsets: Float[np.ndarray, " N"], starts: Int[np.ndarray, " S"]
) -> Int[np.ndarray, " S"]:
    """Name each section by how full it is and how often its like comes back -> indices in LABELS.

    Sparse first and last sections are intro and outro; the fuller of those that come back are the chorus; one
    in the later half that is like no other is the bridge; the rest are verses.
    """
    ends = np.append(starts[1:], len(features))
    means = np.stack([features[a:b].mean(0) for a, b in zip(starts, ends)])
    fullness = np.array([onsets[a:b].mean() for a, b in zip(starts, ends)])
    middle = max(float(onsets.mean()), 1e-6)
    unit = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)
    alike = unit @ unit.T - 2 * np.eye(len(starts))
    back = alike.max(1, initial=-2.0)
    usual = np.median(back)
    labels = np.full(len(starts), LABELS.index("verse"))
    labels[(fullness > 1.1 * middle) & (back >= usual)] = LABELS.index("chorus")
    late = np.arange(len(starts)) >= len(starts) / 2
    if len(starts) >= 4:
        odd = int(np.argmin(np.where(late, back, np.inf)))
        if back[odd] < usual - 0.1:
            labels[odd] = LABELS.index("bridge")
    if len(starts) >= 2:
        if fullness[0] < 0.85 * middle:
            labels[0] = LABELS.index("intro")
        if fullness[-1] < 0.95 * middle:
            labels[-1] = LABELS.index("outro")
    return labels
