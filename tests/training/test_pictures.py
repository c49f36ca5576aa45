import numpy as np
from PIL import Image

from mfm_jax.training.pictures import GAP, save_panels


def test_time_runs_right_and_height_up(tmp_path):
    roll = np.zeros((10, 5), np.float32)
    roll[7, 4] = 3.0
    save_panels(tmp_path / "new" / "a.png", [roll, np.ones((10, 3), np.float16)])
    pixels = np.asarray(Image.open(tmp_path / "new" / "a.png"))
    assert pixels.shape == (5 + GAP + 3, 10)
    assert pixels[0, 7] == 255
    assert pixels[:5].sum() == 255
    assert (pixels[5 : 5 + GAP] == 255).all()
    assert (pixels[5 + GAP :] == 0).all()  # a constant panel is black
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
