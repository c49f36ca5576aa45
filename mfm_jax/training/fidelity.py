"""How many directions of a latent matter: principal components and the share of variance that they keep.

RAVE orders its latent so after training (Caillon & Esling 2021) and calls the cumulative share of variance
its fidelity.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

SHARES = (0.8, 0.9, 0.95, 0.99)  # of the variance, for which `figures` counts dimensions


class LatentAxes(NamedTuple):
    """Principal axes of a latent.

    Attributes:
        mean: [D].
        components: orthonormal rows [D, D], the most varied first; coordinates are
            `(z - mean) @ components.T`.
        fidelity: share of the variance that the first 1, 2, ... D of them keep [D]; zeros if nothing varies.
    """

    mean: np.ndarray
    components: np.ndarray
    fidelity: np.ndarray


def principal_axes(latents: Float[np.ndarray, "N D"]) -> LatentAxes:
    """Find the principal axes of latents, in double precision."""
    values = np.asarray(latents, np.float64)
    mean = values.mean(axis=0)
    centred = values - mean
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(values))
    variances, components = np.maximum(variances[::-1], 0), vectors.T[::-1]
    total = variances.sum()
    fidelity = np.cumsum(variances) / total if total > 0 else np.zeros_like(variances)
    return LatentAxes(*(part.astype(np.float32) for part in (mean, components, fidelity)))


def figures(axes: LatentAxes) -> dict[str, float]:
    """Give what is logged: dimensions that keep so many per cent; the fidelity of 1, 2, 4, ... of them."""
    width = len(axes.fidelity)
    counts = {share: min(int(np.searchsorted(axes.fidelity, share)) + 1, width) for share in SHARES}
    found = {f"dims_{round(100 * share)}": float(count) for share, count in counts.items()}
    powers = 2 ** np.arange(int(np.log2(width)) + 1)
    return found | {f"fidelity_{count}": float(axes.fidelity[count - 1]) for count in powers}
