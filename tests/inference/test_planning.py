import numpy as np
import pytest

from mfm_jax.inference.planning import Wish, understand
from mfm_jax.inference.writing import _course, batches, key_number
from mfm_jax.music.tempo import TempoMap
from mfm_jax.music.words import Key

BLEND = "0:calm piano in C minor, 120 bpm | 2:full strings, 90 bpm, 3/4"


def plan(prompt, **wish):
    return understand([prompt], Wish(**wish))[0]


def test_passages_change_tempo_metre_and_players_at_their_bar():
    made = plan(BLEND)
    assert made.tempo == TempoMap((0, 96), (120, 90), ((0, 4, 4), (96, 3, 4)))
    assert [part.beat for part in made.parts] == [0, 8]
    assert [[i.name for i in part.instruments] for part in made.parts] == [["piano"], ["strings"]]
    assert made.parts[1].controls.key == Key(0, "minor")  # not said again: it goes on
    assert made.n_beats == 8 + 2 * 3  # the last passage is as long as the one before
    assert made.seconds == pytest.approx(8 * 0.5 + 6 * 60 / 90 + 1.5)


def test_arguments_hold_throughout():
    made = plan(BLEND, tempo=100.0, metre="4/4", bars=8, density=3.0, register="high")
    assert made.tempo == TempoMap.constant(100)
    assert made.n_beats == 32
    assert {part.controls.density for part in made.parts} == {3.0}
    assert all((part.controls.register or 0) > 65 for part in made.parts)


@pytest.mark.parametrize(
    ("prompt", "wish", "match"),
    [
        (BLEND, {"bars": 2}, "ends before its passage at bar 2"),
        ("0:a march in 5/8 | 1:a waltz", {}, "within a quarter note"),
        ("a waltz", {"register": "up"}, "high, low or a mean MIDI pitch"),
        ("a waltz", {"density": 0.0}, "0.1 to 40 notes a beat"),
    ],
)
def test_what_cannot_be_is_said(prompt, wish, match):
    with pytest.raises(ValueError, match=match):
        plan(prompt, **wish)


def test_what_was_understood_is_one_line():
    said = plan("a slow waltz for cello in G minor without drums").understood()
    assert "\n" not in said
    for part in ("bpm (implied)", "3/4 (implied)", "G minor,", "cello", "no "):
        assert part in said
    assert plan("music").understood().startswith("100 bpm (not said), 4/4 (not said), any key, piano")


def test_a_negative_prompt_sends_its_players_away_and_guides():
    wish = Wish(negative="drums, fast")
    made = understand(["a rock song"], wish)[0]
    assert any(instrument.is_drum for instrument in made.controls.excluded)
    assert wish.strength == 2
    assert Wish(negative="drums", guidance=1.5).strength == 1.5
    assert Wish().strength == 1


def test_shares_move_over_before_a_passage_begins():
    course = _course(plan(BLEND), 16)
    shares = np.asarray(course.shares[:, 0])
    np.testing.assert_allclose(shares.sum(0), 1, rtol=1e-6)
    assert shares[1, :4].max() == 0
    assert (np.diff(shares[1, 3:9]) > 0).all()
    assert shares[1, 8:].min() == 1
    assert np.flatnonzero(course.fresh[0]).tolist() == [8]
    assert np.asarray(course.bar[0, [7, 8]]).tolist() == [48, 36]
    assert np.asarray(course.lag[0, [7, 8]]).tolist() == [4, 3]


def test_plans_with_as_many_parts_are_written_together():
    plans = understand(["a", "b", "c", BLEND, "d"], Wish())
    assert list(batches(plans, 2)) == [[0, 1], [2], [3], [4]]


def test_keys_as_the_generator_is_told_them():
    assert key_number(Key(7, "minor"), None) == 19
    assert key_number(Key(7, "minor"), 0) == 12
    assert key_number(Key(None, "major"), 0) == 0
    assert key_number(Key(None, "major"), None) == key_number(Key(), 0) == 24
