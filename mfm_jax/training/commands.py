"""The stages of data preparation as commands: `mfm data STAGE ...` and `tools/prepare_data.py STAGE ...`.

Heavy imports happen inside the stages, so that the command line answers at once.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

Runner = Callable[..., Any]  # a `building.Runner`, whose module is not light

MEAN_CLIP = 27.0  # s: between ClipsConfig's shortest and longest
HELD_OUT_CLIPS = 24  # of each kind, for evaluation


def add_stages(parser: argparse.ArgumentParser) -> None:
    """Add the stages to a parser; `run` takes what it parses."""
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE", parser_class=type(parser))

    stage = _stage(stages, "prepare", "MIDI + sound banks -> score records and clips of every split")
    stage.add_argument("folder", help="MIDI files, with manifest.jsonl or without")
    stage.add_argument(
        "--bank", action="append", default=[], help="a .sf2 file; repeat; the first is the clean one"
    )
    stage.add_argument("--held-out-bank", help="a .sf2 file for test clips only")
    stage.add_argument("--hours", type=float, default=6.0, help="of training clips (6)")
    stage.add_argument("--seed", type=int, default=0)
    add_workers(stage, 2)

    stage = _stage(stages, "scores", "MIDI -> score records")
    stage.add_argument("folder", help="MIDI files, with manifest.jsonl or without")
    add_workers(stage, 2)

    stage = _stage(stages, "clips", "score records + sound banks -> rendered clips")
    stage.add_argument("scores", help="folder of score records")
    stage.add_argument(
        "--bank", action="append", default=[], help="a .sf2 file; repeat; the first is the clean one"
    )
    stage.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of ClipsConfig"
    )
    add_workers(stage, 2)

    stage = _stage(stages, "pairs", "recordings beside MIDI of the same name -> clips of whole pieces")
    stage.add_argument("folder", help="such as MAESTRO's")
    add_workers(stage, 2)

    stage = _stage(stages, "encode", "clips + frozen VAE -> latent records, for the codec")
    stage.add_argument("clips", help="folder of clips")
    stage.add_argument("--vae", required=True, help="vae.safetensors")
    add_workers(stage, 1)

    stage = _stage(stages, "export", "clips -> pairs of .wav and .mid")
    stage.add_argument("clips", help="folder of clips")


def _stage(stages: Any, name: str, summary: str) -> argparse.ArgumentParser:
    stage: argparse.ArgumentParser = stages.add_parser(name, help=summary, description=summary)
    stage.add_argument("--out", required=True, metavar="DIR", help="output folder")
    return stage


def add_workers(parser: argparse.ArgumentParser, default: int) -> None:
    """Add the options that say who makes shards; `workers_of` reads them."""
    parser.add_argument("--workers", type=int, default=default, help=f"processes on this machine ({default})")
    parser.add_argument(
        "--runner", help="make shards by Apache Beam: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner"
    )


def workers_of(options: dict[str, Any]) -> int | Runner:
    """Take `workers`, `runner` and `beam` (Beam's own options) out of parsed options.

    Raises:
        ValueError: Beam's options without a runner, or Apache Beam is not installed.
    """
    workers: int = options.pop("workers")
    runner, given = options.pop("runner"), options.pop("beam", [])
    if runner is None:
        if given:
            raise ValueError(f"{given[0]}: no such option; those of Beam go with --runner")
        return workers
    try:
        from mfm_jax.beam import Beam
    except ImportError:
        raise ValueError("--runner: Apache Beam is missing; pip install 'mfm-jax[beam]'") from None
    return Beam((f"--runner={runner}", *given))


def run(options: dict[str, Any]) -> None:
    """Run the stage that `add_stages` parsed; `options` are its arguments by name."""
    from mfm_jax.config import load
    from mfm_jax.training import preparation
    from mfm_jax.training.clips import ClipsConfig

    stage = options.pop("stage")
    workers = 1 if stage == "export" else workers_of(options)
    match stage:
        case "prepare":
            prepare(**options, workers=workers)
        case "scores":
            preparation.prepare_scores(options["folder"], options["out"], workers=workers)
        case "clips":
            settings = load(ClipsConfig, *options["set"], f"banks={options['bank']}")
            preparation.prepare_clips(options["scores"], options["out"], settings, workers=workers)
        case "pairs":
            preparation.prepare_pairs(options["folder"], options["out"], workers=workers)
        case "encode":
            from mfm_jax.training.latents import encode_latents

            encode_latents(options["clips"], options["vae"], options["out"], workers)
        case "export":
            export(options["clips"], options["out"])


def prepare(
    folder: str,
    out: str,
    bank: list[str],
    held_out_bank: str | None,
    hours: float,
    seed: int,
    workers: int | Runner,
) -> None:
    """Make `scores/`, `train/`, `valid/` (a twentieth); with a held-out bank `test_piano/`, `test_mixed/`.

    A split that no composition fell into (small folders) is left out, and said so.

    Raises:
        ValueError: no MIDI, no bank, or hours that are not positive.
    """
    from mfm_jax.records import read, shards
    from mfm_jax.training.clips import ClipsConfig
    from mfm_jax.training.preparation import prepare_clips, prepare_scores

    if not hours > 0:
        raise ValueError(f"{hours:g} hours: must be positive")
    root = Path(out)
    scores = root / "scores"
    count = max(round(hours * 3600 / MEAN_CLIP), 1)
    wanted = {
        "train": ClipsConfig(seed=seed, count=count, banks=tuple(bank)),
        "valid": ClipsConfig(seed=seed + 1, count=max(count // 20, 1), banks=tuple(bank), split="valid"),
    }
    if held_out_bank is not None:
        plain = ClipsConfig(
            seed=seed + 2,
            count=HELD_OUT_CLIPS,
            plain=True,
            seconds=(30.0, 30.0),
            banks=(held_out_bank,),
            split="test",
        )
        wanted["test_piano"] = dataclasses.replace(plain, piano=1.0)
        wanted["test_mixed"] = dataclasses.replace(plain, piano=0.0)
    prepare_scores(folder, scores, workers=workers)
    present = {facts["split"] for _, facts in read(shards(scores))}
    for name, settings in wanted.items():
        if settings.split in present:
            prepare_clips(scores, root / name, settings, workers=workers)
        else:
            print(f"{name}: no composition of this folder falls into split '{settings.split}'")


def export(clips: str, out: str) -> None:
    """Write every clip of a folder as `KIND_INDEX.wav` and `.mid`."""
    from mfm_jax.axes import SAMPLE_RATE
    from mfm_jax.music.audio import write_audio
    from mfm_jax.music.midi import write_midi
    from mfm_jax.records import read, score_of, shards

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for arrays, facts in read(shards(clips)):
        stem = folder / f"{facts['kind']}_{facts['index']:03d}"
        write_audio(stem.with_suffix(".wav"), arrays["audio"] / 32768.0, SAMPLE_RATE)
        write_midi(stem.with_suffix(".mid"), score_of(arrays, facts))
