"""`mfm evaluate fad`: how far the sound of one set of recordings is from another's, by their embeddings."""

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mfm_jax.evaluation.charts import Series, chart
from mfm_jax.evaluation.embedding import Embedder, Heard, default_cache, listen
from mfm_jax.evaluation.frechet import Kernel, Limit, fad_infinity, frechet, kernel_distance
from mfm_jax.evaluation.inputs import AUDIO_SUFFIXES, described, gather
from mfm_jax.evaluation.moments import Gathering, Moments, moments
from mfm_jax.evaluation.records import Report, Row

ENOUGH = 10  # frames for each number of an embedding: with fewer, FAD measures the sample's size


def evaluate(
    reference: Path,
    generated: Path,
    network: Embedder,
    seed: int = 0,
    resamples: int = 50,
    cache: Path | None = None,
) -> Report:
    """Compare two sets of recordings.

    Raises:
        ValueError: nothing to compare, a file that cannot be read, or frames too few for a covariance.
    """
    if seed < 0 or resamples < 0:
        raise ValueError(f"seed {seed}, {resamples} resamples: neither may be negative")
    named = [gather(source, AUDIO_SUFFIXES) for source in (reference, generated)]
    sides = [_heard(network, list(files.values()), cache or default_cache()) for files in named]
    names = {path: name for files in named for name, path in files.items()}
    whole, made = (_together(side) for side in sides)
    n = [sum(len(song.frames) for song in side) for side in sides]
    warnings = _warnings(network, sides, n)
    row: Row = {"embedder": network.name, "d": network.width, "n_reference": n[0], "n_generated": n[1]}
    limit, kernel = _unbiased(sides, seed, resamples, warnings)
    rows = [{"measure": "FAD", "value": frechet(whole, made)} | row]
    if limit:
        interval = {"low": limit.low, "high": limit.high, "r2": limit.r2}
        rows.append({"measure": "FAD-infinity", "value": limit.value} | interval | row)
    rows.append({"measure": "KAD", "value": kernel.value} | row)
    facts = {
        "reference": described(reference, [song.path for song in sides[0]]),
        "generated": described(generated, [song.path for song in sides[1]]),
        "n_files": {"reference": len(sides[0]), "generated": len(sides[1])},
        "n_frames": {"reference": n[0], "generated": n[1]},
        "seconds": {
            "reference": sum(song.seconds for song in sides[0]),
            "generated": sum(song.seconds for song in sides[1]),
        },
        "embedding": _described(network),
        "settings": {
            "seed": seed,
            "audio": "mono by the mean of the channels, soxr HQ resampling, level untouched",
            "subsampling": "whole songs, without replacement, both sides at once",
            "interval": f"95 %, basic bootstrap over songs, {resamples} resamples",
            "kernel": "Gaussian, bandwidth: median distance within the reference; 100 x unbiased MMD^2",
        },
    }
    figures: Row = {"kad_bandwidth": kernel.bandwidth}
    if limit:
        figures["extrapolation"] = {"parts": limit.parts, "fad": limit.fads, "slope": limit.slope}
    files = [_file_row(names[song.path], song, whole) for song in sides[1]]
    files.sort(key=lambda file: (file["fad"] is None, file["fad"], file["name"]))
    return Report("fad", facts, rows, figures, files, warnings, _charts(limit))


def _unbiased(
    sides: Sequence[Sequence[Heard]], seed: int, resamples: int, warnings: list[str]
) -> tuple[Limit | None, Kernel]:
    """Give FAD-infinity, where there is enough audio for it, and KAD.

    Both take the sets for independent samples. Equal sets are not: their distance is 0, by definition.
    """
    hashes = [[song.sha256 for song in side] for side in sides]
    frames = [[song.frames for song in side] for side in sides]
    kernel = kernel_distance(np.concatenate(frames[0]), np.concatenate(frames[1]), seed)
    if hashes[0] == hashes[1]:
        warnings.append("reference and generated are the same files: every distance is 0")
        return Limit(0.0, 0.0, 1.0, None, None, (1,), (0.0,)), kernel._replace(value=0.0)
    shared = set(hashes[0]) & set(hashes[1])
    if shared:
        warnings.append(f"{len(shared)} recordings are in both sets: the scores flatter")
    try:
        return fad_infinity(frames[0], frames[1], seed, resamples), kernel
    except ValueError as error:
        warnings.append(f"no FAD-infinity: {error}")
        return None, kernel


def _heard(network: Embedder, files: Sequence[Path], cache: Path) -> list[Heard]:
    """Embed files, in the order of their contents' hashes: names and folders change no bit of a score."""
    heard = [listen(network, path, cache) for path in files]
    return sorted(heard, key=lambda song: song.sha256)


def _together(side: Sequence[Heard]) -> Moments:
    gathering = Gathering(side[0].frames.shape[1])
    for song in side:
        gathering.add(song.frames)
    return gathering.moments()


def _described(network: Embedder) -> Row:
    return {
        "name": network.name,
        "weights": network.weights,
        "rate": network.rate,
        "d": network.width,
        "span_s": network.span / network.rate,
        "step_s": network.step / network.rate,
    }


def _warnings(network: Embedder, sides: Sequence[Sequence[Heard]], n: Sequence[int]) -> list[str]:
    """Say loudly what makes the scores doubtful.

    Raises:
        ValueError: fewer than two frames on a side.
    """
    found = []
    for name, side, count in zip(("reference", "generated"), sides, n):
        if count < 2:
            raise ValueError(
                f"{name}: {count} frame of {network.name}: a distance needs at least 2; give more audio"
            )
        if count < ENOUGH * network.width:
            found.append(
                f"{name}: {count} frames are TOO FEW for {network.width} dimensions (at least "
                f"{ENOUGH * network.width} wanted): FAD is biased upwards, compare FAD-infinity and KAD only"
            )
        faults = collections.defaultdict(list)
        for song in side:
            for fault in song.faults(network):
                faults[fault].append(song.path.name)
        for fault, files in faults.items():
            found.append(f"{name}: {len(files)} of {len(side)} files are {fault}, such as {min(files)}")
    rates = sorted({song.rate for side in sides for song in side})
    if len(rates) > 1:
        found.append(
            f"mixed sample rates ({', '.join(map(str, rates))} Hz): the band limit shifts the scores"
        )
    return found


def _file_row(name: str, song: Heard, reference: Moments) -> Row:
    part = moments(song.frames)
    return {
        "name": name,
        "fad": frechet(reference, part) if part.n > 1 else None,  # one frame has no covariance
        "n_frames": part.n,
        "seconds": round(song.seconds, 3),
        "rate": song.rate,
        "peak": song.peak,
        "clipped": song.clipped,
        "sha256": song.sha256,
    }


def _charts(limit: Limit | None) -> dict[str, Image.Image]:
    if limit is None:
        return {}
    ends = [0, limit.parts[-1]]
    line = [limit.value + limit.slope * k for k in ends]
    series = [
        Series(f"line (R2 {limit.r2:.4f})", ends, line, "line"),
        Series("mean FAD of parts", limit.parts, limit.fads),
    ]
    title = f"FAD-infinity {limit.value:.4g}"
    return {
        "extrapolation": chart(title, "parts that the sets are divided into (0: endless data)", "FAD", series)
    }
