"""What the scripts of `train/` share: joining the other processes, reading settings, ending in one line."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax

from mfm_jax.config import load
from mfm_jax.mesh import add_process_options, start_processes

T = TypeVar("T")
DONE, FAILED, BAD_INPUT = 0, 1, 2


def add_run_options(parser: argparse.ArgumentParser, schema: type[object]) -> None:
    """Let a script take the settings of a run and its place among processes."""
    parser.add_argument(
        "settings", nargs="+", help=f"YAML files and name=value overrides of {schema.__name__}"
    )
    add_process_options(parser)


def run_script(schema: type[T], train: Callable[[T], Path], told: argparse.Namespace) -> int:
    """Train as the command line says; give the exit code.

    The code is 0 when the run is done, 2 for bad settings or input, 1 when the guards ended it: each in one
    line (MFM_DEBUG=1 shows where). A run that a signal stopped ends by itself with 128 and its number.

    Args:
        schema: class of the run's config.
        train: gives the path of the weights.
        told: what `add_run_options` parsed.
    """
    try:
        start_processes(told.coordinator, told.processes, told.process)
        weights = train(load(schema, *told.settings))
    except (ValueError, FloatingPointError) as error:
        if os.environ.get("MFM_DEBUG"):
            raise
        print(f"{Path(sys.argv[0]).name}: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, ValueError) else FAILED
    if jax.process_index() == 0:
        print(weights)
    return DONE
