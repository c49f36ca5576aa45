"""Send recordings through a VAE and back, to be compared: `mfm evaluate codec DIR OUT --out FILE.json`.

python tools/rebuild.py vae.safetensors DIR --out OUT
"""

import argparse
from pathlib import Path

import numpy as np

from mfm_jax import load_vae
from mfm_jax.music.audio import read_audio, write_audio


def main() -> None:
    """Rebuild every .wav of a folder from the mean of its latent, at the VAE's rate, under its own name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="vae.safetensors, or a folder that holds one")
    parser.add_argument("folder", type=Path, help="recordings")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    vae = load_vae(options.weights)
    options.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(options.folder.glob("*.wav")):
        wave = read_audio(path, vae.sample_rate)
        mean, _ = vae.encode(wave[None])
        made = np.asarray(vae.decode(np.asarray(mean))).reshape(-1)[: len(wave)]
        write_audio(options.out / path.name, made, vae.sample_rate)
        print(path.name, flush=True)


if __name__ == "__main__":
    main()
