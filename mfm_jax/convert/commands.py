"""Foreign weights as commands: `mfm convert KIND FILE --out DIR`.

Heavy imports happen inside the kinds, so that the command line answers at once.
"""

import argparse
from pathlib import Path
from typing import Any


def add_kinds(parser: argparse.ArgumentParser) -> None:
    """Add the kinds to a parser; `run` takes what it parses."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", parser_class=type(parser))

    kind = _kind(kinds, "rave", "a RAVE checkpoint (.ckpt) or export (.ts) -> a VAE")
    kind.add_argument("file", type=Path, metavar="FILE", help="the checkpoint or export")
    kind.add_argument(
        "--config", type=Path, metavar="config.gin", help="of the run (found when it lies near)"
    )
    kind.add_argument("--causal", action="store_true", help="it looks back only (asked when no config says)")
    kind.add_argument("--sample-rate", type=int, metavar="R", help="Hz (asked when no config says)")
    kind.add_argument("--ema", action="store_true", help="take the moving average of the weights")
    kind.add_argument(
        "--compensate",
        action="store_true",
        help="take out the delay of RAVE's synthesis (one sub-band sample)",
    )
    kind.add_argument("--back", action="store_true", help="FILE is our folder: write it under RAVE's names")

    kind = _kind(kinds, "xlstm", "weights of PyPI xlstm (Large, or the blocks of 2024) -> a language model")
    kind.add_argument("file", type=Path, metavar="FILE", help="a .safetensors file, or a folder of shards")
    kind.add_argument(
        "--to",
        choices=["single", "fused", "vanilla", "cuda"],
        help="the way back: FILE is ours; Large in a weight mode, 2024 for a backend",
    )
    kind.add_argument("--gate-cap", type=float, metavar="X", help="soft cap of Large's gates (15)")
    kind.add_argument("--logit-cap", type=float, metavar="X", help="soft cap of logits (Large 30, 2024 none)")

    kind = _kind(
        kinds, "t5", "a published T5 encoder, from a folder or fetched from the hub -> a text encoder"
    )
    kind.add_argument("source", metavar="SOURCE", help="a folder, or a name such as google/flan-t5-large")
    kind.add_argument("--revision", metavar="R", help="commit, branch or tag to fetch")
    kind.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="it will run in")
    kind.add_argument("--half", action="store_true", help="store float16")

    kind = _kind(
        kinds, "tensors", "a torch file -> its tensors as safetensors, for mfm evaluate fad --weights"
    )
    kind.add_argument("file", type=Path, metavar="FILE", help="such as CLAP's .pt")


def _kind(kinds: Any, name: str, summary: str) -> argparse.ArgumentParser:
    kind: argparse.ArgumentParser = kinds.add_parser(name, help=summary, description=summary)
    kind.add_argument("--out", required=True, type=Path, metavar="DIR", help="output folder")
    return kind


def run(options: dict[str, Any]) -> None:
    """Convert what `add_kinds` parsed; `options` are its arguments by name."""
    match options.pop("kind"):
        case "rave":
            from mfm_jax.convert import rave

            if options["back"]:
                print(rave.back(options["file"], options["out"]))
                return
            lines = rave.convert(
                options["file"],
                options["out"],
                options["config"],
                options["causal"],
                options["sample_rate"],
                averaged=options["ema"],
                late=not options["compensate"],
            )
            print("\n".join(lines))
        case "tensors":
            from mfm_jax.convert import tensors_only

            print(tensors_only.convert(**options))
        case "t5":
            from mfm_jax.convert import t5

            print(t5.convert(**options))
        case "xlstm":
            from mfm_jax.convert.xlstm_files import export_file, import_file

            if options["to"] is None:
                del options["to"]
                print(import_file(**options))
            else:
                print(export_file(options["file"], options["out"], options["to"]))
