import numpy as np

from mfm_jax.models.plan import LABELS, MAX_SECTION
from mfm_jax.training.sections import cut_sections, name_sections


def piece(*blocks):
    """Features of blocks of beats, each (kind, beats)."""
    rng = np.random.default_rng(0)
    kinds = {kind: rng.uniform(0, 1, 12) for kind, _ in blocks}
    return np.concatenate([np.tile(kinds[kind], (n, 1)) + rng.normal(0, 0.02, (n, 12)) for kind, n in blocks])


def test_boundaries_are_where_the_music_changes():
    features = piece(("a", 32), ("b", 16), ("a", 32))
    starts = cut_sections(features, np.arange(80) % 4 == 0)
    assert starts.tolist() == [0, 32, 48]


def test_sections_are_short_enough_and_begin_with_bars():
    features = piece(("a", 101))
    starts = cut_sections(features, np.arange(101) % 3 == 0)
    lengths = np.diff(np.append(starts, 101))
    assert starts[0] == 0
    assert (lengths <= MAX_SECTION).all()
    assert (lengths[:-1] >= 4).all()
    assert (starts % 3 == 0).all()


def test_bars_that_rarely_fall_on_beats_are_no_obstacle():
    starts = cut_sections(piece(("a", 90)), np.arange(90) == 0)
    assert (np.diff(np.append(starts, 90)) <= MAX_SECTION).all()


def test_names():
    features = piece(("i", 8), ("a", 32), ("b", 32), ("a", 32), ("b", 32), ("o", 8))
    onsets = np.repeat([1.0, 4, 8, 4, 8, 1], [8, 32, 32, 32, 32, 8])
    starts = np.array([0, 8, 40, 72, 104, 136])
    names = [LABELS[i] for i in name_sections(features, onsets, starts)]
    assert names[0] == "intro"
    assert names[-1] == "outro"
    assert names[2] == names[4] == "chorus"
    assert "verse" in names
