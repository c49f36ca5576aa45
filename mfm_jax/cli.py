"""The `mfm` command: checks arguments, calls a workflow, turns errors into one line and an exit code.

Exit codes: 0 done; 2 bad input or usage, one line on stderr; 1 anything else.
Heavy imports happen inside the commands, so that `mfm --help` answers at once.
"""

import argparse
import math
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from mfm_jax.convert.commands import add_kinds
from mfm_jax.convert.commands import run as run_convert
from mfm_jax.evaluation.commands import add_benchmark, add_evaluations, run_benchmark
from mfm_jax.evaluation.commands import run as run_evaluation
from mfm_jax.training.commands import add_stages
from mfm_jax.training.commands import run as run_data

DONE, FAILED, BAD_INPUT = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Report a bad command line and exit with code 2."""
        sys.stderr.write(f"{self.prog}: {_one_line(message)} (see {self.prog} --help)\n")
        sys.exit(BAD_INPUT)


def _one_line(message: object, limit: int = 400) -> str:
    line = " ".join(str(message).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _number(low: float | int, high: float | int, unit: str) -> Any:
    """Make an argument type: a finite number within a range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: must be a number from {low:g} to {high:g} {unit}")
        return value

    return parse


def _whole(low: int, high: int, unit: str) -> Any:
    """Make an argument type: a whole number within a range."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from {low} to {high} {unit}")
        return value

    return parse


def _turn(text: str) -> tuple[int | None, float]:
    """Read 3=0.5, of dimension 3, or 0.5, of every one."""
    place, equals, amount = text.rpartition("=")
    return _whole(0, 2**20, "")(place) if equals else None, _number(-1e6, 1e6, "")(amount)


_TEMPO = _number(20, 400, "quarter notes a minute")


def build_parser() -> argparse.ArgumentParser:
    """Lay out every command and option."""
    parser = Parser(prog="mfm", description="One model that generates, transcribes and synthesises music.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    command = _command(commands, "generate", "prompts -> audio, MIDI, latents, a picture: a folder each")
    command.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to play, in words")
    length = command.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=_number(1, 3600, "seconds"), help="length (20, or the prompt's)")
    length.add_argument("--bars", type=_whole(1, 2000, "bars"), help="length in bars")
    command.add_argument("--seed", type=_whole(0, 2**31 - 1, ""), default=0, help="same seed, same music (0)")
    command.add_argument("--tempo", type=_TEMPO, metavar="BPM", help="quarter notes a minute")
    command.add_argument("--key", help="such as 'G major' or 'c# minor'")
    command.add_argument("--metre", help="such as 3/4")
    command.add_argument("--instruments", help="such as 'piano, cello'")
    command.add_argument("--temperature", type=_number(0.05, 2, ""), default=1.0, help="how bold (1)")
    command.add_argument(
        "--guidance", type=_number(0, 10, ""), help="nearness to the prompt (1; 2 with --negative)"
    )
    command.add_argument("--density", type=_number(0.1, 40, "notes a beat"), help="notes a beat")
    command.add_argument("--register", metavar="WHERE", help="high, low or a mean MIDI pitch")
    command.add_argument(
        "--truncation", type=_number(0.05, 1, ""), default=1.0, help="share of likely choices kept (1: all)"
    )
    command.add_argument("--negative", metavar="PROMPT", help="what the music shall not be")

    command = _command(commands, "synthesise", "MIDI files -> audio")
    command.add_argument("files", nargs="+", metavar="FILE.mid", type=Path)

    command = _command(commands, "transcribe", "audio files -> MIDI and a table of notes")
    command.add_argument("files", nargs="+", metavar="FILE", type=Path)
    command.add_argument("--instruments", help="what plays: 'piano, drums' (default: found by listening)")
    command.add_argument("--tempo", type=_TEMPO, metavar="BPM", help="write the notes on this tempo's grid")

    command = _command(commands, "resynthesise", "audio -> MIDI -> your edit -> audio")
    command.add_argument("file", metavar="FILE", type=Path)
    command.add_argument("--transpose", type=_whole(-48, 48, "semitones"), default=0, metavar="N")
    command.add_argument("--tempo", type=_TEMPO, metavar="BPM", help="new tempo (the recording's is 120)")
    command.add_argument("--midi", type=Path, metavar="EDITED.mid", help="the transcription, edited")

    command = _command(commands, "reconstruct", "audio -> latents -> audio, to hear what they keep")
    command.add_argument("files", nargs="+", metavar="FILE", type=Path)

    command = _command(commands, "explore", "move in latent space; audio and MIDI move together")
    command.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="MIDI, audio or result folder: one to vary, two to blend",
    )
    command.add_argument("--steps", type=_whole(1, 64, "steps"), default=5, help="how many results (5)")
    command.add_argument("--vary", choices=["section", "beat", "tick"], help="vary at this level")
    command.add_argument("--direction", help="move along: louder, higher, longer, denser")
    command.add_argument("--amount", type=_number(0, 4, ""), default=1.0, help="how far to vary or move (1)")
    command.add_argument("--seconds", type=_number(1, 3600, "seconds"), help="use only the beginning")
    command.add_argument("--seed", type=_whole(0, 2**31 - 1, ""), default=0)

    _add_stream(commands)

    summary = "prepare training data: see mfm data STAGE --help"
    add_stages(commands.add_parser("data", help=summary, description=summary))

    summary = "weights of other projects -> weights of this one: see mfm convert KIND --help"
    add_kinds(commands.add_parser("convert", help=summary, description=summary))

    summary = "score files of any system: see mfm evaluate KIND --help"
    add_evaluations(commands.add_parser("evaluate", help=summary, description=summary))
    summary = "time every workflow, cold and warm, beside installed peers"
    add_benchmark(commands.add_parser("benchmark", help=summary, description=summary))
    return parser


def _add_stream(commands: Any) -> None:
    summary = "a file or raw PCM -> a converted RAVE -> a file or raw PCM, block by block, as nn~ does"
    command = commands.add_parser("stream", help=summary, description=summary)
    command.add_argument(
        "source",
        nargs="?",
        default=Path("-"),
        metavar="FILE",
        type=Path,
        help="- is standard input (-)",
    )
    command.add_argument(
        "--out", default=Path("-"), metavar="FILE.wav", type=Path, help="- is standard output (-)"
    )
    command.add_argument("--model", type=Path, metavar="DIR", help="what mfm convert rave wrote")
    command.add_argument(
        "--block", type=_whole(1, 2**20, "samples"), metavar="SAMPLES", help="answered at once (2048)"
    )
    turns = {"scale": "multiply a latent dimension, or all", "bias": "then add to it"}
    for name, help in turns.items():
        command.add_argument(
            f"--{name}", type=_turn, action="append", default=[], metavar="[D=]X", help=f"{help}; repeatable"
        )
    command.add_argument(
        "--jitter", type=_number(0, 100, "deviations"), default=0.0, help="noise on the latent (0)"
    )
    command.add_argument(
        "--smooth", type=_number(0, 60_000, "ms"), default=0.0, metavar="MS", help="latents lag (0)"
    )
    command.add_argument("--seed", type=_whole(0, 2**31 - 1, ""), default=0, help="of all noise (0)")
    command.add_argument("--no-noise", action="store_true", help="leave the decoder's noise branch out")
    command.add_argument(
        "--live",
        action="store_true",
        help="a file comes at its own speed; what a pipe held while the model loaded is dropped",
    )
    command.add_argument(
        "--format", choices=["s16le", "f32le"], default="s16le", help="of raw PCM, in and out (s16le)"
    )
    command.add_argument("--rate", type=_whole(1, 2**20, "Hz"), metavar="R", help="of raw PCM: the model's")
    command.add_argument("--channels", type=_whole(1, 64, ""), metavar="N", help="of raw PCM: the model's")


def _command(commands: Any, name: str, summary: str) -> Any:
    command = commands.add_parser(name, help=summary, description=summary)
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="output folder")
    command.add_argument("--model", type=Path, metavar="DIR", help="folder of weights (default: embedded)")
    return command


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    parser = build_parser()
    options = vars(parser.parse_args(arguments))
    name = options.pop("command")
    if options.pop("version"):
        from importlib.metadata import version

        print(f"mfm-jax {version('mfm-jax')}")
        return DONE
    if name is None:
        parser.error("no command given")
    # The chatter of XLA and of transformers (which misses torch) would hide our one line.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    signal.signal(signal.SIGTERM, _terminate)
    groups = {"data": run_data, "convert": run_convert}
    groups |= {"evaluate": run_evaluation, "benchmark": run_benchmark}
    try:
        if name in groups:
            groups[name](options)
            return DONE
        from mfm_jax.inference import commands

        getattr(commands, name)(**options)
    except ValueError as error:
        return _report(name, error, BAD_INPUT)
    except (
        FileNotFoundError,
        FileExistsError,
        PermissionError,
        IsADirectoryError,
        NotADirectoryError,
    ) as error:
        return _report(name, f"{error.filename}: {error.strerror}", BAD_INPUT)
    except KeyboardInterrupt:
        return _report(name, "interrupted; nothing unfinished was kept", FAILED)
    except Exception as error:
        hint = "" if os.environ.get("MFM_DEBUG") else " (MFM_DEBUG=1 shows where)"
        return _report(name, f"{type(error).__name__}: {error}{hint}", FAILED)
    return DONE


def _terminate(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _report(name: str, error: object, code: int) -> int:
    if os.environ.get("MFM_DEBUG"):
        traceback.print_exc()
    sys.stderr.write(f"mfm {name}: {_one_line(error)}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
