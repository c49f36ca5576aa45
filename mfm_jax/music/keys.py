"""Keys and metres in text: 'G minor', 'F#m', 'b-Moll', 'sol mineur', 'key of D', '6/8', 'three-four time'."""

import re

from mfm_jax.music.words import NATURALS, Key

_MINOR = "minor|min|moll|mineur|minore|menor|aeolian|dorian|phrygian"
_MAJOR = "major|maj|dur|majeur|maggiore|mayor|maior|ionian|mixolydian|lydian"
_ACCIDENTAL = r"(?:\s?[#♯♭]|b(?![a-zA-Z])|[ -]?(?:sharp|flat)\b)?"
_NAMED = re.compile(
    rf"(?<![\w'’])(?P<tonic>[A-Ga-g])(?P<acc>{_ACCIDENTAL})[ -]?(?P<mode>{_MINOR}|{_MAJOR})\b\.?",
    re.IGNORECASE,
)
_SHORT = re.compile(r"(?<![\w'’])(?P<tonic>[A-G])(?P<acc>[#♯b♭]?)m\b(?!['’]| I\b)")
# In small letters only where nothing else can be meant: 'in am', 'f#m', 'piano dm 70 bpm' (not 'i am', 'fm').
_SMALL = re.compile(
    r"(?<![\w'’])(?:(?<=\bin )(?P<a>[a-g])(?P<accA>[#♯♭b]?)|(?P<b>[a-g])(?P<accB>[#♯♭])|(?P<c>[b-eg]))"
    r"m(?=$|[,;/|.]| ?\d| at | with | for )"
)
_GERMAN = re.compile(r"\b(?P<name>[a-h](?:is|es|s)?)[ -](?P<mode>dur|moll)\b", re.IGNORECASE)
_SOLFEGE = re.compile(
    r"\b(?P<name>do|ut|ré|re|mi|fa|sol|la|si)"
    r"(?P<acc>[ -](?:dièse|diese|sostenido|diesis|bémol|bemol|bemolle))?[ -]"
    rf"(?P<mode>{_MINOR}|{_MAJOR})\b",
    re.IGNORECASE,
)
_KEY_OF = re.compile(
    rf"\b(?:key|tonality)(?: of|:| is)? (?P<tonic>[A-Ga-g])(?P<acc>{_ACCIDENTAL})(?=[\s,.;:!?)]|$)"
)
# 'in A' alone may be an article: 'in A' counts at the end of a clause only.
_IN = re.compile(
    rf"\b[Ii]n (?P<tonic>[A-G])(?P<acc>{_ACCIDENTAL})(?=[,.;:!?)]|\s*$|\s(?:with|at|for|and|\d))"
)
_MODE_ONLY = re.compile(
    r"\b(?P<mode>minor|major)[ -](?:key|mode|scale|tonality|mood)\b"
    r"|\bin (?:a )?(?P<bare>minor|major)(?=[,.;!?]|\s*$)|\ba (?P<article>minor)\b",
    re.IGNORECASE,
)
# 'a minor tune', 'a major work': an article, not the note A.
_AFTER_NAME = re.compile(
    r"^(?:$|[,.;:!?/)&+|-]|\d|with|at|for|and|on|by|from|to|in|over|played|using|then|key\b(?= of))"
)
_NEVER_NAME = re.compile(r"^(?:key|mode|scale|mood|tonality|third|second|sixth|seventh|chord)")

_GERMAN_NATURALS = NATURALS | {"h": 11, "b": 10}
_SOLFEGE_NOTES = {"do": 0, "ut": 0, "ré": 2, "re": 2, "mi": 4, "fa": 5, "sol": 7, "la": 9, "si": 11}

_NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "nine": 9, "twelve": 12}
_UNITS = {"two": 2, "four": 4, "quarter": 4, "eight": 8}
_FRACTION = re.compile(r"(?<![\d/.])(?P<num>\d{1,2}) ?/ ?(?P<den>2|4|8|16)(?![\d/])")
_FRACTION_WORDS = re.compile(
    rf"\b(?P<num>{'|'.join(_NUMBERS)}|\d{{1,2}})[ -](?P<den>two|four|quarter|eight|2|4|8)"
    r"(?= (?:time|metre|meter|beat)\b)"
)
_METRE_NAMES = {
    "common time": (4, 4),
    "cut time": (2, 2),
    "alla breve": (2, 2),
    "waltz time": (3, 4),
    "march time": (4, 4),
    "triple metre": (3, 4),
    "triple meter": (3, 4),
    "triple time": (3, 4),
    "duple metre": (2, 4),
    "duple meter": (2, 4),
    "duple time": (2, 4),
    "compound metre": (6, 8),
    "compound meter": (6, 8),
    "compound time": (6, 8),
    "quadruple metre": (4, 4),
}
_COUNTED = re.compile(r"\bin (?P<num>two|three|four|five|six|2|3|4|5|6)(?=[,.;!?]|\s*$)")


def find_key(text: str) -> tuple[Key, tuple[int, int] | None]:
    """Find the first key that a text states.

    Returns:
        The key (empty where none is stated) and the span of the text that states it.
    """
    found: list[tuple[int, tuple[int, int], Key]] = []
    for match in _GERMAN.finditer(text):
        found.append((0, match.span(), Key(_german(match["name"].lower()), _mode(match["mode"]))))
    for match in _NAMED.finditer(text):
        if _is_name(match, text):
            found.append((1, match.span(), Key(_tonic(match), _mode(match["mode"]))))
    for match in _SOLFEGE.finditer(text):
        shift = {"": 0, "d": 1, "s": 1, "b": -1}[(match["acc"] or "").strip(" -").lower()[:1]]
        tonic = (_SOLFEGE_NOTES[match["name"].lower()] + shift) % 12
        found.append((1, match.span(), Key(tonic, _mode(match["mode"]))))
    found += [(2, match.span(), Key(_tonic(match), "minor")) for match in _SHORT.finditer(text)]
    found += [(2, match.span(), _small(match)) for match in _SMALL.finditer(text)]
    if not found:
        modes = [
            (3, m.span(), Key(None, (m["mode"] or m["bare"] or m["article"]).lower()))
            for m in _MODE_ONLY.finditer(text)
        ]
        mode = modes[0][2].mode if modes else "major"  # 'the key of G' alone means G major
        found = [
            (3, m.span(), Key(_tonic(m), mode)) for pattern in (_KEY_OF, _IN) for m in pattern.finditer(text)
        ]
        found = found or modes
    if not found:
        return Key(), None
    _, span, key = min(found, key=lambda entry: (entry[1][0], entry[0]))
    return key, span


def parse_key(text: str) -> Key:
    """Read a key given as an argument.

    Raises:
        ValueError: if the text is anything but a key.
    """
    key, span = find_key(text.strip())
    if key.tonic is None:
        key, span = find_key(f"key of {text.strip()}")
        span = None if span is None else (span[0], span[1] - len("key of "))
    if key.tonic is None or span is None or span[1] - span[0] < len(text.strip()):
        raise ValueError(
            f"key {text[:40]!r}: must be a note name with major or minor, such as 'G minor' or 'F# major'"
        )
    return key


def find_metre(text: str) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Find the first metre that a text states, and the span that states it."""
    lower = text.lower()
    for pattern in (_FRACTION, _FRACTION_WORDS):
        for match in pattern.finditer(lower):
            num = _NUMBERS.get(match["num"]) or int(match["num"])
            den = _UNITS.get(match["den"]) or int(match["den"])
            if 2 <= num <= 32:
                return (num, den), match.span()
    for name, metre in _METRE_NAMES.items():
        if (at := lower.find(name)) >= 0:
            return metre, (at, at + len(name))
    if counted := _COUNTED.search(lower):
        num = _NUMBERS.get(counted["num"]) or int(counted["num"])
        return (num, 8 if num == 6 else 4), counted.span()
    return None, None


def parse_metre(text: str) -> tuple[int, int]:
    """Read a metre given as an argument.

    Raises:
        ValueError: unless it is 1..32 over 2, 4, 8 or 16.
    """
    match = re.fullmatch(r"\s*(\d{1,2})\s*/\s*(2|4|8|16)\s*", text)
    if not match or not 1 <= int(match[1]) <= 32:
        raise ValueError(f"metre {text[:40]!r}: must be 1..32 over 2, 4, 8 or 16, such as 3/4")
    return int(match[1]), int(match[2])


def _small(match: re.Match[str]) -> Key:
    name = match["a"] or match["b"] or match["c"]
    accidental = match["accA"] or match["accB"] or ""
    shift = {"": 0, "#": 1, "♯": 1}.get(accidental, -1)
    return Key((NATURALS[name] + shift) % 12, "minor")


def _mode(word: str) -> str:
    return "minor" if re.fullmatch(_MINOR, word.lower()) else "major"


def _tonic(match: re.Match[str]) -> int:
    accidental = match["acc"].strip(" -").lower()
    shift = 1 if accidental in {"#", "♯", "sharp"} else -1 if accidental in {"b", "♭", "flat"} else 0
    return (NATURALS[match["tonic"].lower()] + shift) % 12


def _german(name: str) -> int:
    shift = {"": 0, "is": 1, "es": -1, "s": -1}[name[1:]]
    return (_GERMAN_NATURALS[name[0]] + shift) % 12


def _is_name(match: re.Match[str], text: str) -> bool:
    """Tell the note A from the article in 'a minor ...'."""
    if match["tonic"].lower() != "a" or match["acc"]:
        return True
    after = text[match.end() :].lstrip()
    if _NEVER_NAME.match(after.lower()):
        return False
    before = text[: match.start()].rstrip().lower()
    if re.search(r"(?:\bin|\bkey of|\bkey:|\bkey|bpm|\d|/)$", before):
        return True
    if match["tonic"] == "A" and before:
        return True
    return bool(_AFTER_NAME.match(after.lower()))
