import numpy as np
import pytest

from mfm_jax import MusicModel
from mfm_jax.music.notes import ON


@pytest.mark.slow
def test_passages_and_a_negative_prompt(model: MusicModel) -> None:
    asked = {"bars": 4, "seed": 1, "negative": "a sad march"}
    (piece,) = model.generate(["0:calm piano, 120 bpm | 2:fast drums:1.5, 60 bpm"], **asked)
    assert piece.score.tempo.ticks == (0, 96)
    assert piece.score.tempo.bpm == (120, 60)
    assert piece.facts["guidance"] == 2
    assert [passage["bar"] for passage in piece.facts["passages"]] == [0, 2]
    for track in piece.score.tracks:  # each plays in its own passage only
        late = track.notes[:, ON] >= 96
        assert late.all() if track.instrument.is_drum else not late.any()
    assert piece.z is not None
    assert piece.audio is not None
    assert np.isfinite(piece.z).all()
    assert len(piece.audio) == pytest.approx(44_100 * (8 * 0.5 + 8 * 1.0 + 1.5), abs=1)
    (other,) = model.generate(["0:calm piano, 120 bpm | 2:fast drums, 60 bpm"], **asked)
    assert not np.array_equal(piece.z, other.z)  # the weight of a word is heard
