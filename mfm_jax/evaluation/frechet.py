"""Distances between two sets of embeddings: Frechet (FAD), its limit for endless data, and kernel (KAD).

FAD: Kilgour et al., Interspeech 2019. FAD-infinity: Chong and Forsyth, CVPR 2020; Gui et al., ICASSP 2024.
KAD: Chung et al., 2025. All in float64.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from mfm_jax.evaluation.moments import Frames, Moments, merged, moments

POINTS = 5  # sizes at which FAD-infinity measures, at most: smaller parts bend the line
FEWEST = 16  # parts that the mean FAD of a size is taken of, at least
RESAMPLES = 50  # of the confidence interval
BUNDLES = 128  # units of songs that a side is dealt in; more songs share units, which bounds the memory
_CONFIDENCE = (2.5, 97.5)  # percentiles
_KERNEL_ROWS = 8_192  # frames of each set that KAD compares at most
_MEDIAN_ROWS = 2_048  # frames whose distances give the bandwidth


def frechet(a: Moments, b: Moments) -> float:
    """Frechet distance of two Gaussians: |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)).

    The trace of the root is that of the symmetric (A^(1/2) B A^(1/2))^(1/2), by eigenvalues without rounding:
    always real, also where covariances are singular. Equal moments give exactly 0.

    Raises:
        ValueError: fewer than two frames on a side.
    """
    if a.n == b.n and np.array_equal(a.mean, b.mean) and np.array_equal(a.scatter, b.scatter):
        return 0.0
    first, second = a.covariance, b.covariance
    values, vectors = np.linalg.eigh(first)
    root = (vectors * _roots(values)[None]) @ vectors.T
    inner = root @ second @ root
    shared = float(_roots(np.linalg.eigvalsh((inner + inner.T) / 2)).sum())
    apart = float(((a.mean - b.mean) ** 2).sum())
    return max(apart + float(np.trace(first)) + float(np.trace(second)) - 2 * shared, 0.0)


def _roots(eigenvalues: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
    """Square roots; what is below the rounding of the largest is 0, as in a covariance of too few frames."""
    least = max(float(eigenvalues.max()), 0.0) * len(eigenvalues) * np.finfo(np.float64).eps
    roots: Float64[np.ndarray, " D"] = np.sqrt(np.where(eigenvalues > least, eigenvalues, 0.0))
    return roots


class Limit(NamedTuple):
    """FAD-infinity: where a line through FAD at smaller and smaller sets meets endless data.

    Attributes:
        value: the line at 1/n = 0.
        slope: FAD gained each time the sets are halved, thirded ... (per part).
        r2: share of the variance of the points that the line explains.
        low, high: 95 % interval from resampled songs; None where it was not asked for.
        parts: into how many parts both sets were divided, a point each.
        fads: the mean FAD of the parts.
    """

    value: float
    slope: float
    r2: float
    low: float | None
    high: float | None
    parts: tuple[int, ...]
    fads: tuple[float, ...]


def fad_infinity(
    reference: Sequence[Frames], generated: Sequence[Frames], seed: int = 0, resamples: int = RESAMPLES
) -> Limit:
    """Extrapolate FAD to endless reference and generated data.

    Whole songs are dealt at random into k equal parts, for each of some k, on both sides at once: a part is a
    sample without replacement, and parts of one division share no song. FAD of a part is biased by nearly
    c / n, so a line in k through the means of many parts, at k = 0, has neither side's bias. (Drawing with
    replacement, or from frames instead of songs, would keep most of it.)

    The interval is the basic bootstrap's: songs are drawn anew with replacement, which turns the sets into
    populations whose true FAD is that of the sets themselves; how far the estimate falls from that is how far
    ours may be from the truth.

    Raises:
        ValueError: a side has too few songs or frames to divide.
    """
    parts = _divisions(reference, generated)
    rng = np.random.default_rng(seed)
    sides = [_bundled(side, rng) for side in (reference, generated)]
    value, slope, r2, fads = _line(sides, parts, rng, FEWEST)
    low = high = None
    if resamples:
        few = parts if len(parts) < 4 else (1, 2, 4)
        errors = []
        for _ in range(resamples):
            drawn = [[side[i] for i in rng.integers(0, len(side), len(side))] for side in sides]
            errors.append(_line(drawn, few, rng, 1)[0] - fads[0])
        below, above = np.percentile(errors, _CONFIDENCE)
        low, high = value - float(above), value - float(below)
    return Limit(value, slope, r2, low, high, parts, fads)


def _bundled(side: Sequence[Frames], rng: np.random.Generator) -> list[Moments]:
    """Give the moments of songs, or of bundles of whole songs where there are very many."""
    order = rng.permutation(len(side))
    count = min(len(side), BUNDLES)
    return [moments(np.concatenate([side[i] for i in order[k::count]])) for k in range(count)]


def _divisions(reference: Sequence[Frames], generated: Sequence[Frames]) -> tuple[int, ...]:
    width = generated[0].shape[1]
    songs = min(len(reference), len(generated))
    frames = min(sum(map(len, side)) for side in (reference, generated))
    most = min(songs // 2, frames // (2 * width), POINTS)
    if most < 2:
        raise ValueError(
            f"{songs} songs with {frames} frames of {width} numbers: FAD-infinity needs at least 4 songs and "
            f"{4 * width} frames on each side; give more audio"
        )
    return tuple(range(1, most + 1))


def _line(
    sides: Sequence[Sequence[Moments]], parts: Sequence[int], rng: np.random.Generator, fewest: int
) -> tuple[float, float, float, tuple[float, ...]]:
    """Measure the mean FAD for each number of parts, and fit a line: value at 0, slope, R^2, the means."""
    fads = []
    for k in parts:
        found: list[float] = []
        while len(found) < (fewest if k > 1 else 1):
            dealt = [_deal(side, k, rng) for side in sides]
            found += [frechet(merged(a), merged(b)) for a, b in zip(*dealt)]
        fads.append(float(np.mean(found)))
    design = np.column_stack([np.ones(len(parts)), parts])
    value, slope = np.linalg.lstsq(design, np.array(fads), rcond=None)[0].tolist()
    left = np.array(fads) - design @ np.array([value, slope])
    spread = float(np.var(fads))
    return value, slope, 1.0 - float(np.mean(left**2)) / spread if spread > 0 else 1.0, tuple(fads)


def _deal(side: Sequence[Moments], k: int, rng: np.random.Generator) -> list[list[Moments]]:
    order = rng.permutation(len(side))
    return [[side[i] for i in order[part::k]] for part in range(k)]


class Kernel(NamedTuple):
    """KAD and what it was measured with."""

    value: float
    bandwidth: float
    n_reference: int
    n_generated: int


def kernel_distance(
    reference: Float[np.ndarray, "n D"], generated: Float[np.ndarray, "m D"], seed: int = 0
) -> Kernel:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012) times 100.

    The kernel is Gaussian, its width the median distance between frames of the *reference*, so that scores of
    several systems against one reference compare. Larger sets are sampled without replacement.

    Raises:
        ValueError: fewer than two frames on a side, or a reference of equal frames.
    """
    rng = np.random.default_rng(seed)
    x, y = (_sample(side, _KERNEL_ROWS, rng) for side in (reference, generated))
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{len(x)} and {len(y)} frames: KAD needs at least 2 on each side; give more audio")
    few = _sample(x, _MEDIAN_ROWS, rng)
    bandwidth = float(np.sqrt(np.median(_squares(few, few)[np.triu_indices(len(few), 1)])))
    if bandwidth == 0:
        raise ValueError("the reference's frames are all alike (silence?): KAD has no bandwidth; give music")

    def kernel_sum(a: Float64[np.ndarray, "n D"], b: Float64[np.ndarray, "m D"]) -> float:
        blocks = (_squares(a[i : i + 1024], b) for i in range(0, len(a), 1024))
        return math.fsum(float(np.exp(-block / (2 * bandwidth**2)).sum()) for block in blocks)

    n, m = len(x), len(y)
    within = (kernel_sum(x, x) - n) / (n * (n - 1)) + (kernel_sum(y, y) - m) / (m * (m - 1))
    return Kernel(100 * (within - 2 * kernel_sum(x, y) / (n * m)), bandwidth, n, m)


def _sample(side: Frames, most: int, rng: np.random.Generator) -> Float64[np.ndarray, "_ D"]:
    rows = side if len(side) <= most else side[np.sort(rng.choice(len(side), most, replace=False))]
    return rows.astype(np.float64)


def _squares(a: Float64[np.ndarray, "n D"], b: Float64[np.ndarray, "m D"]) -> Float64[np.ndarray, "n m"]:
    """Squared distances of all rows of a from all of b; a row's from itself is 0 within rounding."""
    lengths = (a**2).sum(1)[:, None] + (b**2).sum(1)[None]
    distances: Float64[np.ndarray, "n m"] = np.maximum(lengths - 2 * a @ b.T, 0.0)
    return distances
