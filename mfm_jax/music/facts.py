"""Facts of a piece: what its notes measure and what its metadata says, as one small record."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.music.notes import Score
from mfm_jax.music.words import NO_KEY, Key

# Key profiles of Albrecht & Shanahan (2013), "The use of large corpora to improve key finding":
# tonic first, share of sounding time of each degree.
_MAJOR = np.array([0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081])
_MINOR = np.array([0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052])
_CONFIDENT = 0.05  # correlation by which the best key leads the best key with another scale
_SHARE = 0.02  # an instrument with a smaller share of the notes is not worth naming

# Words of titles, in the languages of the corpora, that name a form.
FORMS = {
    "waltz": "waltz|walzer|valse|vals|valzer",
    "march": "march|marsch|marche|marcia",
    "minuet": "minuet|menuet|menuett|menuetto|minuetto",
    "mazurka": "mazurka|mazurek",
    "polonaise": "polonaise|polonez",
    "polka": "polka",
    "tango": "tango",
    "ragtime": "rag|ragtime",
    "gavotte": "gavotte",
    "sarabande": "sarabande|sarabanda",
    "gigue": "gigue|giga",
    "jig": "jig",
    "allemande": "allemande|allemanda",
    "bourrée": "bourrée|bourree",
    "tarantella": "tarantella|tarantelle",
    "barcarolle": "barcarolle|barcarole",
    "nocturne": "nocturne|notturno",
    "prelude": "prelude|präludium|praeludium|prélude|preludio|preludium",
    "fugue": "fugue|fuge|fuga|fughetta",
    "sonata": "sonata|sonate|sonatina|sonatine",
    "étude": "étude|etude|study|estudio|übung",
    "lullaby": "lullaby|wiegenlied|berceuse|cradle",
    "chorale": "chorale|choral",
    "hymn": "hymn|hymne",
    "carol": "carol|noel|noël|christmas|weihnachten",
    "scherzo": "scherzo",
    "rondo": "rondo|rondeau",
    "romance": "romance|romanze|romanza",
    "serenade": "serenade|ständchen|sérénade|serenata",
    "ballade": "ballade|ballad|ballata",
    "invention": "invention|inventio",
    "toccata": "toccata",
    "variations": "variations|variationen|variation",
    "elegy": "elegy|elegie|élégie",
    "folk song": "volkslied|folksong",
}
_STYLES = {"technique": "exercise", "song": "song", "popular / dance": "dance", "romantique": "romantic"}
_COMPOSERS_AS_ONE_WORD = re.compile(r"^([A-ZÀ-Ý][\w'-]+?)([A-ZÀ-Ý][A-ZÀ-Ýv]*)$")  # Mutopia's 'BachJS'


@dataclass(frozen=True)
class Facts:
    """What is known of a piece or an excerpt; None, '' or () where it is not.

    Attributes:
        tempo: quarter notes a minute, averaged over time.
        metre: beats in a bar and the note value of a beat, of the longest stretch.
        key: by profile correlation; empty where no key stands out.
        density: notes a beat (quarter note), all instruments together.
        polyphony: notes sounding together, averaged over the time when any sounds, percussion left out.
        register: mean MIDI pitch without percussion.
        dynamics: mean MIDI velocity.
        instruments: names, those with most notes first.
        categories: their instrument categories, each once, in the same order.
        drums: whether a drum kit plays.
        seconds: length.
        style, form, composer, title: from metadata and title.
    """

    tempo: float | None = None
    metre: tuple[int, int] | None = None
    key: Key = NO_KEY
    density: float | None = None
    polyphony: float | None = None
    register: float | None = None
    dynamics: float | None = None
    instruments: tuple[str, ...] = ()
    categories: tuple[int, ...] = ()
    drums: bool = False
    seconds: float | None = None
    style: str = ""
    form: str = ""
    composer: str = ""
    title: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give a plain dict for a record's metadata."""
        return dataclasses.asdict(self) | {"key": list(self.key)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Facts":
        """Read what `to_json` wrote, also after a trip through JSON."""
        fixed = dict(values)
        fixed["key"] = Key(*fixed.get("key", ()))
        for name in ("metre", "instruments", "categories"):
            if fixed.get(name) is not None:
                fixed[name] = tuple(fixed[name])
        return cls(**fixed)


def measure(score: Score, metadata: Mapping[str, Any] | None = None) -> Facts:
    """Measure a score and join what its metadata says.

    Args:
        score: the piece or excerpt.
        metadata: any of title, composer, style, corpus, as the data preparation writes them.
    """
    known = metadata or {}
    title = str(known.get("title") or score.title or "")
    tracks = sorted((t for t in score.tracks if len(t.notes)), key=lambda t: -len(t.notes))
    if not tracks:
        return Facts(title=title, composer=_composer(known), style=_style(known, ()), form=_form(title))
    pitched = [t.notes for t in tracks if not t.instrument.percussion]
    every = np.concatenate([t.notes for t in tracks])
    beats = max((score.end - every[:, 0].min()) / TICKS_PER_BEAT, 1.0)
    named = [t.instrument for t in tracks if len(t.notes) >= _SHARE * len(every)]
    tonal = np.concatenate(pitched) if pitched else np.zeros((0, 4))
    return Facts(
        tempo=round(score.end / TICKS_PER_BEAT * 60.0 / score.seconds, 1) if score.seconds > 0 else None,
        metre=_metre(score),
        key=find_key(tonal),
        density=round(len(every) / float(beats), 2),
        polyphony=_polyphony(tonal),
        register=round(float(tonal[:, 2].mean()), 1) if len(tonal) else None,
        dynamics=round(float(every[:, 3].mean()), 1),
        instruments=tuple(dict.fromkeys(i.name for i in named)),
        categories=tuple(dict.fromkeys(i.category for i in named)),
        drums=any(t.instrument.is_drum for t in tracks),
        seconds=round(score.seconds, 1),
        style=_style(known, [(t.instrument.program, t.instrument.is_drum) for t in tracks]),
        form=_form(title),
        composer=_composer(known),
        title=title,
    )


def find_key(notes: Float[np.ndarray, "n 4"]) -> Key:
    """Find the key whose profile correlates best with the sounding time of each pitch class.

    Args:
        notes: onset, offset, pitch, velocity; percussion left out.

    Returns:
        The key, or an empty one where no scale stands out or fewer than eight notes sound.
    """
    if len(notes) < 8:
        return Key()
    scores = key_scores(notes)
    best = int(np.argmax(scores))
    tonic, mode = best % 12, ("major", "minor")[best // 12]
    relative = (tonic + 9) % 12 + 12 if mode == "major" else (tonic + 3) % 12
    others = np.delete(scores, [best, relative])
    return Key(tonic, mode) if scores[best] - others.max() > _CONFIDENT else Key()


def key_scores(notes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "24"]:
    """Give the correlation with each key: 12 major, then 12 minor, by tonic."""
    # Long notes count less than their length: a pedal point would drown the rest.
    lengths = np.minimum(notes[:, 1] - notes[:, 0], 2 * TICKS_PER_BEAT)
    present = np.bincount(notes[:, 2].astype(int) % 12, lengths, 12)
    profiles = np.stack([np.roll(p, tonic) for p in (_MAJOR, _MINOR) for tonic in range(12)])
    if np.ptp(present) == 0:
        return np.zeros(24)
    scores: Float[np.ndarray, 24] = np.corrcoef(np.vstack([present, profiles]))[0, 1:]
    return scores


def composer_name(name: str) -> str:
    """Turn Mutopia's 'BachJS' into 'J. S. Bach'; leave other names as they are."""
    match = _COMPOSERS_AS_ONE_WORD.match(name)
    if not match:
        return name
    initials = re.findall(r"[A-ZÀ-Ý]v?", match.group(2))
    return "".join(f"{i[0]}. " for i in initials) + match.group(1)


def _metre(score: Score) -> tuple[int, int] | None:
    metres = score.tempo.metres
    lengths: dict[tuple[int, int], float] = {}
    for (start, num, den), following in zip(metres, [*(m[0] for m in metres[1:]), score.end]):
        lengths[num, den] = lengths.get((num, den), 0.0) + max(min(following, score.end) - start, 0.0)
    return max(lengths, key=lambda metre: lengths[metre]) if lengths else None


def _polyphony(notes: Float[np.ndarray, "n 4"]) -> float | None:
    """Average the number of notes that sound together: note time over the time when any sounds."""
    if not len(notes):
        return None
    ordered = notes[np.argsort(notes[:, 0])]
    reach = np.maximum.accumulate(ordered[:, 1])
    silent = np.maximum(ordered[1:, 0] - reach[:-1], 0.0).sum()
    sounding = reach[-1] - ordered[0, 0] - silent
    return round(float((notes[:, 1] - notes[:, 0]).sum() / sounding), 2) if sounding > 0 else 1.0


def _form(title: str) -> str:
    for form, names in FORMS.items():
        if re.search(rf"\b(?:{names})\b", title.lower()):
            return form
    return ""


def _style(known: Mapping[str, Any], programs: Any) -> str:
    style = str(known.get("style") or "").lower()
    if style:
        return _STYLES.get(style, style)
    corpus = str(known.get("corpus") or "")
    if corpus == "openscore_lieder":
        return "art song"
    if corpus == "openscore_quartets":
        return "chamber music"
    if corpus == "freedoom":
        kinds = {p for p, is_drum in programs if not is_drum}
        drums = any(is_drum for _, is_drum in programs)
        if drums and kinds & {29, 30}:  # overdriven and distortion guitar
            return "rock"
        return "electronic" if drums else "ambient"
    return ""


def _composer(known: Mapping[str, Any]) -> str:
    name = composer_name(str(known.get("composer") or "").strip())
    return "" if name.lower() in {"", "anonymous", "traditional", "anon", "anon.", "unknown"} else name
