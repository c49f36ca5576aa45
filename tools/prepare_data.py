"""Prepare training data: `python tools/prepare_data.py STAGE ...`; STAGE --help says what each needs."""

import argparse
import sys
from pathlib import Path

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.config import load
from mfm_jax.music.audio import write_audio
from mfm_jax.music.midi import write_midi
from mfm_jax.training.clips import ClipsConfig
from mfm_jax.training.preparation import prepare_clips, prepare_pairs, prepare_scores
from mfm_jax.training.records import read, score_of, shards


def main() -> int:
    """Run one stage; 0 done, 2 bad input (one line on stderr)."""
    parser = argparse.ArgumentParser(description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)

    stage = stages.add_parser("scores", help="a folder of MIDI -> score records")
    stage.add_argument("folder")
    stage.add_argument("--out", required=True)
    stage.add_argument("--workers", type=int, default=2)

    stage = stages.add_parser("clips", help="score records + sound banks -> rendered clips")
    stage.add_argument("scores")
    stage.add_argument("--out", required=True)
    stage.add_argument(
        "--bank", action="append", default=[], help="a .sf2 file; repeat; the first is the clean one"
    )
    stage.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of ClipsConfig"
    )
    stage.add_argument("--workers", type=int, default=2)

    stage = stages.add_parser("pairs", help="recordings beside .mid files of the same name -> clip records")
    stage.add_argument("folder")
    stage.add_argument("--out", required=True)
    stage.add_argument("--workers", type=int, default=2)

    stage = stages.add_parser("encode", help="clip records + frozen VAE -> latent records")
    stage.add_argument("clips")
    stage.add_argument("--vae", required=True, help="vae.safetensors")
    stage.add_argument("--out", required=True)

    stage = stages.add_parser("export", help="clip records -> pairs of .wav and .mid")
    stage.add_argument("clips")
    stage.add_argument("--out", required=True)

    arguments = parser.parse_args()
    try:
        if arguments.stage == "scores":
            prepare_scores(arguments.folder, arguments.out, workers=arguments.workers)
        elif arguments.stage == "clips":
            settings = load(ClipsConfig, *arguments.set, f"banks={arguments.bank}")
            prepare_clips(arguments.scores, arguments.out, settings, workers=arguments.workers)
        elif arguments.stage == "pairs":
            prepare_pairs(arguments.folder, arguments.out, workers=arguments.workers)
        elif arguments.stage == "encode":
            # Only this stage needs JAX: the workers of the others start faster without it.
            from mfm_jax.training.latents import encode_latents

            encode_latents(arguments.clips, arguments.vae, arguments.out)
        else:
            export(arguments.clips, arguments.out)
    except ValueError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    return 0


def export(clips: str, out: str) -> None:
    """Write every clip of a folder as `KIND_INDEX.wav` and `.mid`."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for arrays, facts in read(shards(clips)):
        stem = folder / f"{facts['kind']}_{facts['index']:03d}"
        write_audio(stem.with_suffix(".wav"), arrays["audio"] / 32768.0, SAMPLE_RATE)
        write_midi(stem.with_suffix(".mid"), score_of(arrays, facts))


if __name__ == "__main__":
    sys.exit(main())
