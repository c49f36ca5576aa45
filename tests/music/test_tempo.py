import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_strategies import quick, quiet, tempo_maps

from mfm_jax.axes import FRAME_RATE
from mfm_jax.music.tempo import TempoMap

pytestmark = quiet
positions = st.lists(st.floats(0, 1000), min_size=1, max_size=20).map(np.array)


@quick
@given(tempo_maps(bpm=st.floats(5, 600)), positions)
def test_conversions_go_both_ways(tempo, ticks):
    np.testing.assert_allclose(tempo.second_to_tick(tempo.tick_to_second(ticks)), ticks, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(tempo.frame_to_tick(tempo.tick_to_frame(ticks)), ticks, rtol=1e-9, atol=1e-6)
    seconds = tempo.tick_to_second(np.sort(ticks))
    assert np.all(np.diff(seconds) >= 0)


@quick
@given(tempo_maps(), positions)
def test_seconds_are_the_sum_over_segments(tempo, ticks):
    for tick in ticks:
        total = 0.0
        ends = [*tempo.ticks[1:], np.inf]
        for start, end, bpm in zip(tempo.ticks, ends, tempo.bpm, strict=True):
            total += max(min(tick, end) - start, 0) / 12 * 60 / bpm
        assert tempo.tick_to_second(tick) == pytest.approx(total, abs=1e-9)


def test_frames():
    tempo = TempoMap.constant(60)
    # The paper's figure of frames a tick: 861.3 / bpm.
    assert tempo.tick_to_frame(1) == pytest.approx(861.328 / 60, abs=1e-3)
    frames = tempo.frame_ticks(5, start=10)
    assert frames.dtype == np.float32
    np.testing.assert_allclose(frames, np.arange(10, 15) / FRAME_RATE * 12, rtol=1e-6)


def test_scalars_and_shapes():
    tempo = TempoMap.constant(120)
    assert float(tempo.tick_to_second(24)) == 1.0
    assert tempo.tick_to_second(np.zeros((2, 3))).shape == (2, 3)
    assert float(tempo.tick_to_second(-12)) == -0.5


@quick
@given(tempo_maps(), st.integers(0, 400), st.integers(1, 400))
def test_crops_keep_durations_and_barlines(tempo, start, length):
    crop = tempo.cropped(start, start + length)
    inside = np.linspace(0, length, 7)
    expected = tempo.tick_to_second(start + inside) - tempo.tick_to_second(start)
    np.testing.assert_allclose(crop.tick_to_second(inside), expected, atol=1e-9)
    bars = tempo.bars(start + length)
    np.testing.assert_allclose(crop.bars(length)[1:], bars[bars > start] - start, atol=1e-9)
    assert crop.metre_at(0) == tempo.metre_at(start)


@quick
@given(tempo_maps(), st.integers(0, 200))
def test_shift_then_crop_is_the_same_map(tempo, ticks):
    assert tempo.shifted(ticks).cropped(ticks) == tempo


def test_bars_follow_the_metre():
    tempo = TempoMap((0,), (120,), ((0, 3, 4), (72, 6, 8), (120, 4, 4)))
    np.testing.assert_array_equal(tempo.bars(170), [0, 36, 72, 108, 120, 168])
    assert tempo.bars(0).size == 0
    assert [tempo.ticks_per_bar(tick) for tick in (0, 71, 72, 120)] == [36, 36, 36, 48]
    assert tempo.metre_at(100) == (6, 8)


@quick
@given(tempo_maps())
def test_json_round_trip_and_scale(tempo):
    assert TempoMap.from_json(json.loads(json.dumps(tempo.to_json()))) == tempo
    assert float(tempo.scaled(2).tick_to_second(100)) == pytest.approx(float(tempo.tick_to_second(100)) / 2)
    assert tempo.bpm_at(tempo.ticks[-1]) == tempo.bpm[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0,), (0,)), "bpm"),
        (((0,), (-90,)), "bpm"),
        (((0,), (float("nan"),)), "bpm"),
        (((1,), (120,)), "start at tick 0"),
        (((), ()), "start at tick 0"),
        (((0, 5, 5), (1, 2, 3)), "rise"),
        (((0, 5), (1,)), "as many"),
        (((0,), (120,), ((0, 0, 4),)), "metre"),
        (((0,), (120,), ((0, 4, 3),)), "metre"),
        (((0,), (120,), ((4, 4, 4),)), "start at tick 0"),
    ],
)
def test_bad_maps_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TempoMap(*arguments)


def test_bad_crops_are_refused():
    for start, end in ((-1, 5), (5, 5), (6, 5)):
        with pytest.raises(ValueError, match="crop"):
            TempoMap().cropped(start, end)
    with pytest.raises(ValueError, match="shift"):
        TempoMap().shifted(-1)
