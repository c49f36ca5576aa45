"""The kinds of evaluation as commands: `mfm evaluate KIND ...`.

Heavy imports happen inside, so that the command line answers at once.
"""

import argparse
import shlex
from pathlib import Path
from typing import Any


def add_evaluations(parser: argparse.ArgumentParser) -> None:
    """Add the kinds to a parser; `run` takes what it parses."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", parser_class=type(parser))
    kind = _kind(kinds, "notes", "MIDI against reference MIDI: note, velocity and frame scores")
    _two_sources(kind, "MIDI files or tables of notes")

    kind = _kind(kinds, "fad", "audio against reference audio: Frechet and kernel distance of embeddings")
    _two_sources(kind, "recordings")
    _embedding(kind)
    kind.add_argument("--seed", type=int, default=0, help="of FAD-infinity's subsamples (0)")
    kind.add_argument(
        "--resamples", type=int, default=50, help="of the songs, for the interval (50; 0: none)"
    )

    kind = _kind(kinds, "codec", "rebuilt audio against the originals, beside Opus and Griffin-Lim")
    _two_sources(kind, "recordings")
    kind.add_argument("--alone", action="store_true", help="judge GEN without the baselines beside it")

    kind = _kind(
        kinds, "prompts", "music against the prompts it was made for: tempo, key, metre, instruments"
    )
    kind.add_argument("manifest", type=Path, metavar="MANIFEST", help="JSON lines, each with a prompt")
    kind.add_argument("generated", type=Path, metavar="GEN", help="folder of MIDI files, or of mfm generate")
    kind.add_argument("--weights", type=Path, metavar="WHEEL", help="musicnn's, to judge recordings by tags")

    kind = _kind(kinds, "agreement", "recordings against the scores that came with them, by an outside ear")
    kind.add_argument("generated", type=Path, metavar="GEN", help="folder of recordings and their MIDI files")
    kind.add_argument(
        "--scores", type=Path, metavar="DIR", help="where the MIDI files lie, if elsewhere: a round trip"
    )
    kind.add_argument("--referee", default="basic-pitch", help="basic-pitch (default) or transkun")

    kind = _kind(kinds, "all", "every kind that the two folders allow, each with its own record")
    _two_sources(kind, "recordings, MIDI or both")
    _embedding(kind)
    kind.add_argument("--rebuilt", action="store_true", help="GEN is REF after a codec: judge that too")
    kind.add_argument("--manifest", type=Path, help="the prompts that GEN was made for: judge that too")
    kind.add_argument("--referee", default="basic-pitch", help="basic-pitch (default) or transkun")


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mfm benchmark`; `run_benchmark` takes what it parses."""
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.json", help="the record to write")
    parser.add_argument("--seconds", type=float, default=24.0, help="of music in each file (24)")
    parser.add_argument("--workflows", help="such as 'generate,transcribe' (default: all)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="folder of weights (default: embedded)")


def run_benchmark(options: dict[str, Any]) -> None:
    """Run what `add_benchmark` parsed.

    Raises:
        ValueError: bad input, in one line.
    """
    from mfm_jax.evaluation import records, speed

    seconds, wanted = options["seconds"], options["workflows"]
    if not 1 <= seconds <= 3600:
        raise ValueError(f"{seconds:g} seconds: must be from 1 to 3600")
    records.check_out(options["out"])
    words = ["mfm", "benchmark", "--seconds", f"{seconds:g}"] + (["--workflows", wanted] if wanted else [])
    workflows = tuple(wanted.split(",")) if wanted else speed.WORKFLOWS
    report = speed.benchmark(seconds, workflows, options["model"])
    _finish(report, options["out"], shlex.join([*words, "--out", str(options["out"])]))


def _kind(kinds: Any, name: str, summary: str) -> argparse.ArgumentParser:
    kind: argparse.ArgumentParser = kinds.add_parser(name, help=summary, description=summary)
    kind.add_argument("--out", required=True, type=Path, metavar="FILE.json", help="the record to write")
    return kind


def _two_sources(kind: argparse.ArgumentParser, what: str) -> None:
    kind.add_argument(
        "reference", type=Path, metavar="REF", help=f"{what}: a file, a folder or a .jsonl manifest"
    )
    kind.add_argument("generated", type=Path, metavar="GEN", help="what is judged, under the same names")


def _embedding(kind: argparse.ArgumentParser) -> None:
    kind.add_argument(
        "--embedder", default="vae", help="vae (default), musicnn-mtt, musicnn-msd, vggish, clap-laion"
    )
    kind.add_argument("--weights", type=Path, metavar="FILE", help="the embedder's published weights")
    kind.add_argument(
        "--cache", type=Path, metavar="DIR", help="of embeddings (default: the user's cache folder)"
    )


def run(options: dict[str, Any]) -> None:
    """Run the kind that `add_evaluations` parsed; `options` are its arguments by name.

    Raises:
        ValueError: bad input, in one line.
    """
    from mfm_jax.evaluation import records

    kind, out = options.pop("kind"), options.pop("out")
    records.check_out(out)
    command = _spelled(kind, options, out)
    match kind:
        case "notes":
            from mfm_jax.evaluation import notes

            report = notes.evaluate(**options)
        case "fad":
            from mfm_jax.evaluation import fad
            from mfm_jax.evaluation.embedders import embedder

            network = embedder(options.pop("embedder"), options.pop("weights"))
            report = fad.evaluate(network=network, **options)
        case "codec":
            from mfm_jax.evaluation import codec

            report = codec.evaluate(options["reference"], options["generated"], not options["alone"])
        case "prompts":
            from mfm_jax.evaluation import prompts

            report = prompts.evaluate(**options)
        case "agreement":
            from mfm_jax.evaluation import agreement

            report = agreement.evaluate(options["generated"], options["referee"], options["scores"])
        case "all":
            from mfm_jax.evaluation import everything
            from mfm_jax.evaluation.embedders import embedder

            network = embedder(options.pop("embedder"), options.pop("weights"))
            report = everything.evaluate(network=network, out=out, command=command, **options)
    _finish(report, out, command)


def _finish(report: Any, out: Path, command: str) -> None:
    from mfm_jax.evaluation import records

    written = records.save(report, out, command)
    print("\n".join(records.summary(report)))
    print(written[0])


def _spelled(kind: str, options: dict[str, Any], out: Path) -> str:
    """Give the command line that makes the record again."""
    words = ["mfm", "evaluate", kind]
    for name, value in options.items():
        if name in ("reference", "generated") or (kind, name) == ("prompts", "manifest"):
            words.append(str(value))
        elif value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return shlex.join([*words, "--out", str(out)])
