"""Words for musical facts, shared by the captions that training reads and by the parser of users' prompts.

Both sides use the same tables, so a word means the same number when a caption says it and when a user does.
"""

from typing import NamedTuple

PITCH_CLASSES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
NATURALS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
MODES = ("major", "minor")

# The spelling with fewer accidentals in the signature, by mode.
_MAJOR_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_MINOR_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")

MIN_TEMPO, MAX_TEMPO = 20.0, 400.0  # quarter notes a minute that a prompt or an argument may ask for


class Key(NamedTuple):
    """A key; either half may be unknown.

    Attributes:
        tonic: pitch class 0 (C) to 11 (B), or None.
        mode: 'major', 'minor' or None.
    """

    tonic: int | None = None
    mode: str | None = None

    def __str__(self) -> str:
        """Give 'G minor', 'G', 'minor' or ''."""
        names = _MINOR_NAMES if self.mode == "minor" else _MAJOR_NAMES
        return " ".join(
            word for word in ("" if self.tonic is None else names[self.tonic], self.mode or "") if word
        )


NO_KEY = Key()


class Span(NamedTuple):
    """What a word means on a numeric scale: the range it covers and the value to aim at."""

    low: float
    value: float
    high: float


# Quarter notes a minute.
TEMPO_WORDS: dict[str, Span] = {
    "grave": Span(20, 40, 48),
    "largo": Span(40, 50, 60),
    "lento": Span(44, 54, 62),
    "larghetto": Span(56, 63, 70),
    "adagio": Span(56, 66, 77),
    "andante": Span(72, 84, 100),
    "andantino": Span(78, 92, 106),
    "moderato": Span(92, 106, 116),
    "allegretto": Span(100, 112, 122),
    "allegro": Span(116, 132, 160),
    "vivace": Span(140, 160, 180),
    "presto": Span(164, 180, 204),
    "prestissimo": Span(196, 208, 400),
    "very slow": Span(20, 46, 56),
    "extremely slow": Span(20, 40, 48),
    "slow": Span(40, 63, 78),
    "slow-paced": Span(40, 63, 78),
    "slowly": Span(40, 63, 78),
    "unhurried": Span(56, 72, 86),
    "moderately slow": Span(68, 78, 92),
    "mid-tempo": Span(86, 102, 118),
    "medium tempo": Span(86, 102, 118),
    "moderate tempo": Span(86, 102, 118),
    "moderate": Span(86, 102, 118),
    "walking pace": Span(76, 92, 108),
    "moderately fast": Span(108, 118, 130),
    "brisk": Span(112, 128, 146),
    "lively": Span(112, 130, 152),
    "upbeat": Span(110, 126, 150),
    "uptempo": Span(118, 134, 168),
    "quick": Span(118, 138, 168),
    "fast": Span(124, 144, 190),
    "fast-paced": Span(124, 144, 190),
    "rapid": Span(136, 156, 200),
    "very fast": Span(156, 176, 400),
    "extremely fast": Span(176, 196, 400),
    "breakneck": Span(176, 200, 400),
}

# Notes a beat, all instruments together; the corpora hold 2.3 to 9 (tenth to ninetieth percentile).
DENSITY_WORDS: dict[str, Span] = {
    "very sparse": Span(0, 1.2, 1.7),
    "sparse": Span(0, 2.2, 3.0),
    "minimal": Span(0, 2.0, 2.8),
    "minimalist": Span(0, 2.0, 2.8),
    "few notes": Span(0, 2.0, 2.8),
    "busy": Span(7.0, 8.5, 60),
    "dense": Span(7.0, 8.5, 60),
    "many notes": Span(7.0, 8.5, 60),
    "intricate": Span(7.0, 8.5, 60),
    "virtuosic": Span(9.0, 11.0, 60),
    "very dense": Span(9.5, 11.0, 60),
}

# Mean MIDI pitch without percussion; the corpora hold 57 to 69.
REGISTER_WORDS: dict[str, Span] = {
    "very low": Span(0, 49, 53),
    "low": Span(0, 54, 58.5),
    "deep": Span(0, 54, 58.5),
    "low-pitched": Span(0, 54, 58.5),
    "low register": Span(0, 54, 58.5),
    "middle register": Span(59, 62.5, 66),
    "high": Span(66.5, 70, 127),
    "high-pitched": Span(66.5, 70, 127),
    "high register": Span(66.5, 70, 127),
    "very high": Span(71.5, 75, 127),
}

# Mean MIDI velocity; notation programs write 80 or 90 where nothing is marked.
DYNAMICS_WORDS: dict[str, Span] = {
    "very soft": Span(1, 40, 50),
    "pianissimo": Span(1, 40, 50),
    "soft": Span(1, 54, 64),
    "quiet": Span(1, 54, 64),
    "hushed": Span(1, 48, 58),
    "loud": Span(95, 104, 127),
    "powerful": Span(95, 104, 127),
    "very loud": Span(103, 112, 127),
    "fortissimo": Span(103, 112, 127),
}


class Mood(NamedTuple):
    """What a word of character lets us expect; None where it says nothing."""

    mode: str | None = None
    tempo: Span | None = None


_GENTLE = Span(40, 76, 96)
_LIVELY = Span(108, 132, 400)
MOOD_WORDS: dict[str, Mood] = {
    "sad": Mood("minor", Span(30, 72, 100)),
    "sorrowful": Mood("minor", Span(30, 66, 92)),
    "melancholic": Mood("minor", Span(30, 74, 110)),
    "melancholy": Mood("minor", Span(30, 74, 110)),
    "mournful": Mood("minor", Span(30, 60, 86)),
    "gloomy": Mood("minor", Span(30, 68, 100)),
    "tragic": Mood("minor"),
    "dark": Mood("minor"),
    "ominous": Mood("minor"),
    "sinister": Mood("minor"),
    "spooky": Mood("minor"),
    "tense": Mood("minor"),
    "dramatic": Mood("minor"),
    "stormy": Mood("minor", Span(112, 138, 400)),
    "restless": Mood("minor", Span(104, 128, 400)),
    "aggressive": Mood("minor", Span(112, 140, 400)),
    "happy": Mood("major", Span(96, 124, 400)),
    "cheerful": Mood("major", Span(96, 124, 400)),
    "joyful": Mood("major", Span(100, 128, 400)),
    "bright": Mood("major"),
    "sunny": Mood("major"),
    "merry": Mood("major", Span(104, 128, 400)),
    "playful": Mood("major", Span(96, 120, 400)),
    "triumphant": Mood("major"),
    "uplifting": Mood("major"),
    "hopeful": Mood("major"),
    "sweet": Mood("major", Span(40, 84, 108)),
    "tender": Mood("major", Span(40, 74, 100)),
    "calm": Mood(None, _GENTLE),
    "peaceful": Mood(None, _GENTLE),
    "relaxing": Mood(None, _GENTLE),
    "relaxed": Mood(None, _GENTLE),
    "gentle": Mood(None, _GENTLE),
    "dreamy": Mood(None, _GENTLE),
    "serene": Mood(None, _GENTLE),
    "meditative": Mood(None, Span(30, 63, 84)),
    "solemn": Mood(None, Span(30, 66, 88)),
    "energetic": Mood(None, _LIVELY),
    "driving": Mood(None, _LIVELY),
    "exciting": Mood(None, _LIVELY),
    "frantic": Mood(None, Span(140, 168, 400)),
}

# Dances and forms that fix a metre; a tempo only where the name itself sets the pace.
FORM_METRES: dict[str, tuple[int, int]] = {
    "waltz": (3, 4),
    "walzer": (3, 4),
    "valse": (3, 4),
    "vals": (3, 4),
    "minuet": (3, 4),
    "menuet": (3, 4),
    "menuetto": (3, 4),
    "mazurka": (3, 4),
    "polonaise": (3, 4),
    "sarabande": (3, 4),
    "bolero": (3, 4),
    "ländler": (3, 4),
    "chaconne": (3, 4),
    "passacaglia": (3, 4),
    "scherzo": (3, 4),
    "march": (4, 4),
    "marsch": (4, 4),
    "gavotte": (4, 4),
    "allemande": (4, 4),
    "hornpipe": (4, 4),
    "reel": (4, 4),
    "polka": (2, 4),
    "galop": (2, 4),
    "habanera": (2, 4),
    "tango": (2, 4),
    "ragtime": (2, 4),
    "samba": (2, 4),
    "bourrée": (2, 2),
    "bourree": (2, 2),
    "gigue": (6, 8),
    "jig": (6, 8),
    "tarantella": (6, 8),
    "siciliano": (6, 8),
    "siciliana": (6, 8),
    "barcarolle": (6, 8),
    "barcarole": (6, 8),
}


def fits(table: dict[str, Span], value: float) -> list[str]:
    """List the words of a table whose range holds the value."""
    return [word for word, span in table.items() if span.low <= value <= span.high]
