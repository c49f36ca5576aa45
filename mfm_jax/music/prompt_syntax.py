"""The marks in a prompt: how much words weigh (`warm:1.5`), from which bar they hold (`0:calm | 16:full`).

Marks are taken out before anything else reads the prompt; what is left is plain words.
"""

import itertools
import re
from typing import NamedTuple

MAX_WEIGHT = 4.0
MAX_PASSAGES = 64
MAX_START = 4_096  # bars

# '(warm strings):1.5' or 'warm:1.5'. A time (1:30) has no letter before the colon.
_WEIGHT = re.compile(
    r"(?:\((?P<group>[^()|]*)\)|(?P<word>(?<![\w'])[^\W\d_][\w'’-]*)):(?P<weight>-?\d+(?:\.\d+)?)(?![\w:/.]*\w)"
)
# Words before a colon that name a control: 'tempo:90' asks for a tempo.
_CONTROLS = frozenset(
    "tempo bpm key metre meter time length duration bars measures seconds minutes density seed instruments "
    "register mood style".split()
)
_START = re.compile(r"\s*(?P<bar>-?\d+(?:\.\d+)?)\s*:(?P<text>.*)", re.DOTALL)
_ONLY = re.compile(r"\s*0\s*:(?!\d)(?P<text>.*)", re.DOTALL)  # '0:30 of rain' is a length


class Emphasis(NamedTuple):
    """Characters `start` to `end` of a text count `weight` times."""

    start: int
    end: int
    weight: float


class Passage(NamedTuple):
    """What holds from a bar on (the first bar is 0), without marks."""

    bar: int
    text: str
    emphasis: tuple[Emphasis, ...] = ()


def read_passages(prompt: str) -> tuple[Passage, ...]:
    """Take a prompt apart, in order of bars; one without marks is one passage from bar 0.

    Raises:
        ValueError: a weight outside 0 to 4, passages that do not begin at bar 0 or rise, or an empty one.
    """
    parts = prompt.split("|")
    starts = [_START.fullmatch(part) for part in parts]
    if len(parts) == 1 or not any(starts):  # one passage, or words that are merely listed with bars between
        match = _ONLY.fullmatch(prompt)
        return (_passage(0, match["text"] if match else prompt),)
    passages: list[Passage] = []
    for part, start in zip(parts, starts):
        if start is None:
            raise ValueError(
                f"passage {part.strip()[:40]!r}: begin each with its bar, as '0:calm piano | 16:full strings'"
            )
        passages.append(_passage(_bar(start["bar"]), start["text"]))
    if len(passages) > MAX_PASSAGES:
        raise ValueError(f"{len(passages)} passages: at most {MAX_PASSAGES} in a prompt")
    if passages[0].bar != 0:
        raise ValueError(f"the first passage begins at bar {passages[0].bar}: it must begin at 0")
    for before, after in itertools.pairwise(passages):
        if after.bar <= before.bar:
            raise ValueError(f"a passage at bar {after.bar} follows one at bar {before.bar}: bars must rise")
    return tuple(passages)


def _bar(number: str) -> int:
    value = float(number)
    if value != int(value) or not 0 <= value <= MAX_START:
        raise ValueError(f"a passage at bar {number}: must be a whole number from 0 to {MAX_START}")
    return int(value)


def _passage(bar: int, marked: str) -> Passage:
    """Take the weights out of the words that they follow."""
    text, emphasis, read = "", [], 0
    marked = marked.strip()
    for match in _WEIGHT.finditer(marked):
        word = match["word"] if match["group"] is None else match["group"].strip()
        if word.lower() in _CONTROLS:
            continue
        weight = float(match["weight"])
        if not 0 <= weight <= MAX_WEIGHT:
            raise ValueError(f"weight {match['weight']} of {word[:40]!r}: must be 0 to {MAX_WEIGHT:g}")
        text += marked[read : match.start()]
        emphasis.append(Emphasis(len(text), len(text) + len(word), weight))
        text, read = text + word, match.end()
    text += marked[read:]
    if bar and not text:
        raise ValueError(f"the passage at bar {bar} is empty: write what it should be")
    return Passage(bar, text, tuple(emphasis))
