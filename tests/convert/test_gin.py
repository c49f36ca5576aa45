import pytest

from mfm_jax.convert.gin import Gin

TEXT = """
from __gin__ import dynamic_registration
import rave
# a comment
CAPACITY = 4  # and another
RATIOS = [4, 2]
LEVELS = \\
    [[1, 3],
     [1]]
blocks.EncoderV2.capacity = %CAPACITY
variational/blocks.EncoderV2.dilations = %LEVELS
convs.get_padding.mode = 'causal'
variational/convs.get_padding.mode = "centered"
model.RAVE.encoder = @blocks.VariationalEncoder
model.RAVE.weights = {'feature_matching': 20, 'a # no comment': 1}
model.RAVE.pqmf = None
model.RAVE:
    sampling_rate = 48000
    decoder = @blocks.GeneratorV2()
OTHER = 1
"""


def written(folder, text, name="config.gin"):
    path = folder / name
    path.write_text(text)
    return path


def test_bindings_macros_blocks_and_scopes(tmp_path):
    gin = Gin(written(tmp_path, TEXT))
    assert gin.get("EncoderV2.capacity") == 4
    assert gin.get("EncoderV2.dilations") == [[1, 3], [1]]
    assert gin.get("get_padding.mode") == "causal"
    assert gin.get("RAVE.encoder") == "@blocks.VariationalEncoder"
    assert gin.get("RAVE.sampling_rate") == 48_000
    assert gin.get("RAVE.weights")["a # no comment"] == 1
    assert gin.get("RAVE.pqmf", 3) == gin.get("nothing.here", 3) == 3
    assert gin.get("AVE.sampling_rate") is None
    assert gin.get("OTHER") == 1


def test_includes(tmp_path):
    (tmp_path / "configs").mkdir()
    written(tmp_path / "configs", "CAPACITY = 3\nRATIOS = [2]\n", "base.gin")
    gin = Gin(written(tmp_path, "include 'configs/base.gin'\nCAPACITY = 5\n"))
    assert (gin.get("CAPACITY"), gin.get("RATIOS")) == (5, [2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CAPACITY = %WIDTH\n", "not defined"),
        ("CAPACITY = %CAPACITY\n", "means itself"),
        ("CAPACITY = __import__('os').system('true')\n", "cannot read the value"),
        ("CAPACITY = (1\n", "cannot read"),
        ("import os; nonsense here\nhello\n", "cannot read"),
        ("include 'missing.gin'\n", "not there"),
        ("include 'config.gin'\n", "no end"),
    ],
)
def test_what_is_no_gin_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        Gin(written(tmp_path, text)).get("CAPACITY")


def test_binary_is_refused(tmp_path):
    path = tmp_path / "config.gin"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        Gin(path)
