"""Pictures of what a model makes while it trains: rolls and bands, one panel under another, as PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Num
from PIL import Image

from mfm_jax.music.files import replacing

GAP = 4  # rows of white between panels


def save_panels(path: Path, panels: Sequence[Num[np.ndarray, "F _"]]) -> None:
    """Write panels [time, height], each stretched from black at its smallest value to white at its largest.

    Time runs to the right and height upwards; panels may differ in height, not in length.
    """
    rows: list[np.ndarray] = []
    for panel in panels:
        values = np.asarray(panel, np.float32)
        low, high = float(values.min()), float(values.max())
        grey = (values - low) / max(high - low, 1e-6)
        rows += [np.round(255 * grey.T[::-1]).astype(np.uint8), np.full((GAP, len(values)), 255, np.uint8)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(np.concatenate(rows[:-1])).save(temporary, format="PNG")
