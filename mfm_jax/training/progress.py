"""What a run prints: one line that is renewed on a terminal, a line each time elsewhere."""

import math
import shutil
import sys
from typing import Any

QUIET = ("rate", "seconds")  # figures that only the writers get


class Progress:
    """The printed side of a run; only the first process has one that prints."""

    def __init__(self, name: str, prints: bool = True, out: Any = None) -> None:
        """Take the run's name; `out` is standard output if None."""
        self._name, self._prints, self._out = name, prints, out or sys.stdout
        self._open = False  # whether the last line may be written over

    def show(self, step: int, figures: dict[str, float], done: float, elapsed: float, note: str = "") -> None:
        """Show where the run is.

        Args:
            step: its number.
            figures: by name, in the order to show them.
            done: share of the run, 0..1.
            elapsed: seconds of training so far.
            note: what the figures are of, if not of the steps; such a line stays.
        """
        left = elapsed * (1 - done) / done if done > 0 else math.nan
        shown = " ".join(f"{name} {value:.4g}" for name, value in figures.items() if name not in QUIET)
        line = (
            f"{self._name}{' ' + note if note else ''} {step} [{100 * done:.0f}%, {left / 60:.1f} min left] "
        )
        self._print(line + shown, stays=bool(note) or not self._out.isatty())

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._print(text, stays=True)

    def close(self) -> None:
        """Leave the last line as it is."""
        if self._open:
            self._out.write("\n")
            self._out.flush()
            self._open = False

    def _print(self, text: str, stays: bool) -> None:
        if not self._prints:
            return
        if not stays:
            text = text[: shutil.get_terminal_size().columns - 1]
        self._out.write(("\r\x1b[K" if self._open else "") + text + ("\n" if stays else ""))
        self._out.flush()
        self._open = not stays
