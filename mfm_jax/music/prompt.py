"""What a prompt states: tempo, key, metre, instruments, length, density; nothing that it does not say."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, TypeVar

from mfm_jax.music.instruments import Instrument, find_instruments, parse_instruments
from mfm_jax.music.keys import find_key, find_metre, parse_key, parse_metre
from mfm_jax.music.players import TRANSLATIONS, find_players
from mfm_jax.music.words import (
    DENSITY_WORDS,
    FORM_METRES,
    MAX_TEMPO,
    MIN_TEMPO,
    MOOD_WORDS,
    NO_KEY,
    REGISTER_WORDS,
    TEMPO_WORDS,
    Key,
    Span,
)

V = TypeVar("V")

MAX_PROMPT = 2_000  # characters
MAX_SECONDS = 7_200.0
MAX_BARS = 4_096
MAX_DENSITY = 40.0  # notes a beat

_NUMBER = r"\d+(?:\.\d+)?"
_COUNTS = "one two three four five six seven eight nine ten eleven twelve".split()
_WORD_NUMBERS = {word: i + 1 for i, word in enumerate(_COUNTS)}
_WORD_NUMBERS |= {"a": 1, "an": 1, "sixteen": 16, "twenty": 20, "thirty": 30, "sixty": 60, "ninety": 90}
_COUNT = rf"(?:{_NUMBER}|{'|'.join(_WORD_NUMBERS)})"
_BPM = r"(?:bpm|b\.p\.m\.?|beats? (?:per|a) minute|beats?/min(?:ute)?|bmp)"
_TEMPOS = (
    re.compile(rf"(?P<sign>-)?(?<![\d.])(?P<a>{_NUMBER})(?: ?(?:-|–|to) ?(?P<b>{_NUMBER}))? ?{_BPM}(?!\w)"),
    re.compile(rf"\b(?:bpm|tempo)(?: is| of|:| =|=)? ?(?P<sign>-)?(?P<a>{_NUMBER})(?!\d*/)"),
    re.compile(
        r"(?P<unit>(?:♩|♪|(?:dotted )?(?:quarter|crotchet|eighth|quaver|half|minim)(?: note)?)\.?)"
        rf" ?= ?(?P<a>{_NUMBER})"
    ),
)
_BARS = re.compile(rf"(?P<sign>-)?\b(?P<n>{_COUNT})[ -](?:bars?|measures?)\b(?! blues)")
_CLOCK = re.compile(r"(?<![\d:])(?P<m>\d{1,2}):(?P<s>[0-5]\d)(?![\d:])")
_MINUTES = re.compile(
    rf"\b(?P<half>half (?:of )?)?(?P<n>{_COUNT})(?P<and> and a half)?[ -]?(?:minutes?|mins?)\b(?! ?=)"
)
_SECONDS = re.compile(rf"\b(?P<n>{_COUNT})[ -]?(?P<unit>seconds?|secs?|s)\b")
_DECADE = re.compile(r"^(?!\s*(?:of|long|piece|clip|loop|excerpt|track)\b)\s*[a-z]")  # '80s synth pop'
_NOT = re.compile(r"\b(?:not|no|never|without|isn't|less|too|nothing)(?: too| very| so| any)? $")
_WITHOUT = re.compile(
    r"\b(?:no|without(?: any)?|not|except|minus) (?P<what>[a-z ,]*?)"
    r"(?=$|[.;!?]| but | with |,(?! ?(?:no|or|and)))"
)

_MORE_TEMPO_WORDS = {"high tempo": TEMPO_WORDS["fast"], "low tempo": TEMPO_WORDS["slow"]}
_MORE_TEMPO_WORDS |= {"slower": TEMPO_WORDS["slow"], "faster": TEMPO_WORDS["fast"]}
# Left out: words of the caption tables that mean something else in prose, as in 'deep house'.
_DENSITY = {w: s for w, s in DENSITY_WORDS.items() if w != "intricate"}
_REGISTER = {w: s for w, s in REGISTER_WORDS.items() if w != "deep"}
_REGISTER_NOT = re.compile(r"^[ -](?:energy|tempo|quality|speed|fi\b|fidelity|key)")


@dataclass(frozen=True)
class Controls:
    """What the music must keep to; None or () where nothing is asked.

    Attributes:
        tempo: quarter notes a minute.
        key: tonic and mode, each may be None.
        metre: beats in a bar, note value of a beat.
        instruments: asked for, in order of mention.
        excluded: asked not to sound.
        seconds, bars: length; at most one of them is set.
        density: notes a beat.
        register: mean MIDI pitch.
        implied: names of the fields above that come from a word of character ('slow', 'sad', 'waltz').
    """

    tempo: float | None = None
    key: Key = NO_KEY
    metre: tuple[int, int] | None = None
    instruments: tuple[Instrument, ...] = ()
    excluded: tuple[Instrument, ...] = ()
    seconds: float | None = None
    bars: int | None = None
    density: float | None = None
    register: float | None = None
    implied: tuple[str, ...] = ()

    def override(
        self,
        *,
        tempo: int | float | None = None,
        key: str | None = None,
        metre: str | None = None,
        instruments: str | None = None,
        seconds: int | float | None = None,
        bars: int | None = None,
        density: int | float | None = None,
        register: str | int | float | None = None,
    ) -> "Controls":
        """Lay arguments over what the prompt states: arguments win, and are never 'implied'.

        Raises:
            ValueError: for a value out of its range or that cannot be read.
        """
        if seconds is not None and bars is not None:
            raise ValueError(f"both seconds ({seconds:g}) and bars ({bars}) are given: choose one")
        changes: dict[str, Any] = {}
        if tempo is not None:
            changes["tempo"] = _checked("tempo", tempo, MIN_TEMPO, MAX_TEMPO, "bpm")
        if key is not None:
            changes["key"] = parse_key(key)
        if metre is not None:
            changes["metre"] = parse_metre(metre)
        if instruments is not None:
            changes["instruments"] = tuple(parse_instruments(instruments))
            changes["excluded"] = tuple(i for i in self.excluded if i not in changes["instruments"])
        if seconds is not None:
            changes |= {"seconds": _checked("length", seconds, 0.5, MAX_SECONDS, "seconds"), "bars": None}
        if bars is not None:
            changes |= {"bars": int(_checked("length", bars, 1.0, float(MAX_BARS), "bars")), "seconds": None}
        if density is not None:
            changes["density"] = _checked("density", density, 0.1, MAX_DENSITY, "notes a beat")
        if register is not None:
            changes["register"] = parse_register(register)
        implied = tuple(name for name in self.implied if name not in changes)
        return dataclasses.replace(self, **changes, implied=implied)

    def to_json(self) -> dict[str, Any]:
        """Give what is known as plain values, for `params.json` and for showing."""
        shown: dict[str, Any] = {
            "tempo": self.tempo,
            "key": str(self.key) or None,
            "metre": f"{self.metre[0]}/{self.metre[1]}" if self.metre else None,
            "instruments": [i.name for i in self.instruments],
            "excluded": [i.name for i in self.excluded],
            "seconds": self.seconds,
            "bars": self.bars,
            "density": self.density,
            "register": self.register,
            "implied": list(self.implied),
        }
        return {name: value for name, value in shown.items() if value not in (None, [])}


def parse_register(value: str | int | float) -> float:
    """Read a register given as an argument: a word such as 'high', or a mean MIDI pitch.

    Raises:
        ValueError: for another word, or a pitch out of range.
    """
    if isinstance(value, str) and value.strip().lower() in REGISTER_WORDS:
        return float(REGISTER_WORDS[value.strip().lower()].value)
    try:
        pitch = float(value)
    except ValueError:
        raise ValueError(
            f"register {value[:40]!r}: must be high, low or a mean MIDI pitch such as 60"  # type: ignore[index]
        ) from None
    return _checked("register", pitch, 24.0, 108.0, "as a mean MIDI pitch")


def parse_prompt(text: str) -> Controls:
    """Read what a prompt states.

    Contradictions ('slow ... fast') are left open. A stated value wins over a word of character.

    Raises:
        ValueError: for a prompt of more than `MAX_PROMPT` characters, or a stated value out of range.
    """
    if len(text) > MAX_PROMPT:
        raise ValueError(f"prompt of {len(text)} characters: at most {MAX_PROMPT}, say it in a few sentences")
    text = " ".join(text.split())
    implied: list[str] = []
    key, span = find_key(text)
    rest = _blank(text, span)
    lower = rest.lower() if len(rest.lower()) == len(rest) else rest

    tempo, span = _tempo(lower)
    lower = _blank(lower, span)
    metre, span = find_metre(lower)
    lower = _blank(lower, span)
    bars, span = _bars(lower)
    lower = _blank(lower, span)
    seconds, lower = (None, lower) if bars is not None else _seconds(lower)

    excluded: list[Instrument] = []
    for match in _WITHOUT.finditer(lower):
        excluded += [i for i in find_instruments(match["what"]) if i not in excluded]
    positive = _WITHOUT.sub(" ", lower)
    positive = re.sub(r"\w+", lambda word: TRANSLATIONS.get(word[0], word[0]), positive)
    instruments = find_players(positive)

    if metre is None:
        forms = {FORM_METRES[w] for w in re.findall(r"\w+", positive) if w in FORM_METRES}
        forms |= {FORM_METRES[w[:-1]] for w in re.findall(r"\w+s\b", positive) if w[:-1] in FORM_METRES}
        if len(forms) == 1:
            metre = forms.pop()
            implied.append("metre")
    moods = [MOOD_WORDS[word] for word in _words(positive, MOOD_WORDS)]
    if tempo is None:
        spans = list(_words(positive, TEMPO_WORDS | _MORE_TEMPO_WORDS).values())
        tempo = _agree(spans or [mood.tempo for mood in moods if mood.tempo])
        implied += ["tempo"] if tempo is not None else []
    modes = {mood.mode for mood in moods if mood.mode}
    if key.mode is None and len(modes) == 1:
        key = Key(key.tonic, modes.pop())
        implied.append("key")
    density = _agree(list(_words(positive, _DENSITY).values()))
    register = _agree(list(_words(positive, _REGISTER, _REGISTER_NOT).values()))
    implied += [name for name, value in (("density", density), ("register", register)) if value is not None]
    return Controls(
        tempo=tempo,
        key=key,
        metre=metre,
        instruments=tuple(instruments),
        excluded=tuple(i for i in excluded if i not in instruments),
        seconds=seconds,
        bars=bars,
        density=density,
        register=register,
        implied=tuple(implied),
    )


def _tempo(text: str) -> tuple[float | None, tuple[int, int] | None]:
    for pattern in _TEMPOS:
        if match := pattern.search(text):
            groups = match.groupdict()
            value = float(match["a"])
            if groups.get("b"):
                value = (value + float(match["b"])) / 2
            unit = groups.get("unit") or ""
            scale = (
                2.0
                if "half" in unit or "minim" in unit
                else 0.5
                if re.search("eighth|quaver|♪", unit)
                else 1.0
            )
            value *= scale * (1.5 if "dotted" in unit or unit.endswith(".") else 1.0)
            if groups.get("sign"):
                value = -value
            return _checked("tempo", value, MIN_TEMPO, MAX_TEMPO, "bpm"), match.span()
    return None, None


def _bars(text: str) -> tuple[int | None, tuple[int, int] | None]:
    if match := _BARS.search(text):
        bars = _count(match["n"]) * (-1 if match["sign"] else 1)
        return int(_checked("length", bars, 1.0, float(MAX_BARS), "bars")), match.span()
    return None, None


def _seconds(text: str) -> tuple[float | None, str]:
    """Add up '1 minute 30 seconds'; give the text without what was read."""
    total = 0.0
    if match := _CLOCK.search(text):
        total, text = int(match["m"]) * 60.0 + int(match["s"]), _blank(text, match.span())
    else:
        if match := _MINUTES.search(text):
            total = (
                60.0 * (_count(match["n"]) + (0.5 if match["and"] else 0.0)) * (0.5 if match["half"] else 1.0)
            )
            text = _blank(text, match.span())
        for match in _SECONDS.finditer(text):
            if match["unit"] == "s" and (not match["n"].isdigit() or _is_decade(match, text)):
                continue
            total, text = total + _count(match["n"]), _blank(text, match.span())
            break
        else:
            if total == 0.0:
                return None, text
    return _checked("length", total, 0.5, MAX_SECONDS, "seconds"), text


def _is_decade(match: re.Match[str], text: str) -> bool:
    before, after = text[: match.start()], text[match.end() :]
    return bool(re.search(r"(?:the|'|’|early|late) ?$", before)) or (
        int(match["n"]) % 10 == 0 and int(match["n"]) >= 20 and bool(_DECADE.match(after))
    )


def _words(text: str, table: dict[str, V], not_before: re.Pattern[str] | None = None) -> dict[str, V]:
    """Find the table's words in a text, longest first, each letter read once, negated ones left out."""
    found: dict[str, V] = {}
    for word in sorted(table, key=len, reverse=True):
        for match in re.finditer(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text):
            negated = _NOT.search(text[: match.start()])
            if not negated and not (not_before and not_before.match(text[match.end() :])):
                found[word] = table[word]
            text = _blank(text, match.span())
    return found


def _agree(spans: list[Span]) -> float | None:
    """Give the mean of what the words aim at, or None where they exclude one another."""
    if not spans or max(s.low for s in spans) > min(s.high for s in spans):
        return None
    return round(sum(s.value for s in spans) / len(spans), 1)


def _count(word: str) -> float:
    return float(_WORD_NUMBERS.get(word) or float(word))


def _blank(text: str, span: tuple[int, int] | None) -> str:
    """Replace a span by spaces, so that nothing reads it twice and positions stay."""
    return text if span is None else text[: span[0]] + " " * (span[1] - span[0]) + text[span[1] :]


def _checked(what: str, value: int | float, low: float, high: float, unit: str) -> float:
    if not low <= value <= high:
        raise ValueError(f"{what} of {value:g} {unit}: must be {low:g} to {high:g} {unit}")
    return float(value)
