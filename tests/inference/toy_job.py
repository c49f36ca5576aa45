"""A batch job with a workflow that needs no weights: `python toy_job.py MANIFEST OPTIONS`, to be killed."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from mfm_jax.inference.jobs import add_options, job_of, run
from mfm_jax.inference.manifest import open_manifest
from mfm_jax.inference.outputs import staged
from mfm_jax.inference.pieces import Piece
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.notes import Score, Track

PARAMS = {"by": np.float32(0.5)}


def tone(params, phase):
    return params["by"] * phase


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--pause", type=float, default=0.0)
    add_options(parser)
    options = parser.parse_args(arguments)
    job = job_of(options)
    manifest = open_manifest(options.manifest, "prompt", 3)

    def make(item):
        if "bad" in item.source:
            raise ValueError("nothing\ncan be played")
        time.sleep(options.pause)
        phase = np.linspace(0, item.seed, 64, dtype=np.float32)
        wave = phase if job.together is None else job.together.run(tone, (), PARAMS, phase) / PARAMS["by"]
        notes = np.array([[0.0, 12.0, 60.0 + item.seed % 12, 80.0]])
        facts = {"prompt": item.source, "seed": item.seed}
        z = np.full((12, 64), item.seed, np.float32)
        return Piece(np.sin(wave), Score((Track(instrument_of(0), notes),)), z, facts)

    def save(item):
        piece = make(item)
        with staged(job.out) as scratch:
            (scratch / item.name).mkdir()
            np.save(scratch / item.name / "audio.npy", piece.audio)
            time.sleep(options.pause)

    return run(job, manifest, "toys", {"toy": 1}, make, save, lambda item: job.out / item.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
