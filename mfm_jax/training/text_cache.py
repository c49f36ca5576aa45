"""Embeddings of captions on disk, found by the content of (text, model, revision): encoded once, ever.

Several processes share the work by way of the folder, which all of them see.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mfm_jax.models.text_loading import Embedding, Text

BLOCK = 1_024  # texts in a file
DIGEST = 16  # bytes of a text's SHA-256


class TextCache:
    """Embeddings as float16, in blocks of safetensors that appear only when whole and never change."""

    def __init__(self, folder: str | Path, text: Text, model: str, length: int) -> None:
        """Open or begin the cache of one encoder.

        Args:
            folder: of all caches; each encoder and length has a folder of its own in it.
            text: the encoder.
            model: what tells it from any other, such as the hash of its weights file.
            length: tokens kept of each text.
        """
        self._text, self._model, self._length = text, model, length
        self._folder = Path(folder) / f"{model}-{length}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._places: dict[bytes, tuple[Path, int]] = {}
        self._look()

    def __len__(self) -> int:
        """How many texts it holds."""
        return len(self._places)

    def __call__(self, texts: Sequence[str]) -> Embedding:
        """Give embeddings [B, L, D], [B, L], [B, D] as float16; what is new is encoded and kept."""
        keys = [hashlib.sha256(text.encode()).digest()[:DIGEST] for text in texts]
        new = {key: text for key, text in zip(keys, texts) if key not in self._places}
        process, count = jax.process_index(), jax.process_count()
        if new and process == 0:
            print(f"encoding {len(new)} texts ({len(texts) - len(new)} lie ready)", flush=True)
        order = sorted(new)[process::count]
        for start in range(0, len(order), BLOCK):
            part = order[start : start + BLOCK]
            self._keep(part, [new[key] for key in part])
        if count > 1:
            multihost_utils.sync_global_devices("captions encoded")
            self._look()
        return self._read(keys)

    def _look(self) -> None:
        """Note the texts of every block in the folder."""
        for path in sorted(self._folder.glob("*.safetensors")):
            self._enter(path)

    def _keep(self, keys: list[bytes], texts: list[str]) -> None:
        """Encode a block and write it."""
        found = self._text.many(texts, self._length)
        arrays = {
            "keys": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, DIGEST),
            "ends": np.cumsum(found.mask.sum(1)).astype(np.int64),
            "tokens": found.tokens[found.mask].astype(np.float16),
            "pooled": found.pooled.astype(np.float16),
        }
        path = self._folder / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:16]}.safetensors"
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            save_file(arrays, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._enter(path)

    def _enter(self, path: Path) -> None:
        """Note where the texts of a block lie; one that cannot be read is made again."""
        try:
            with safe_open(path, framework="np") as file:
                keys = file.get_tensor("keys")
        except (SafetensorError, OSError) as error:
            print(f"{path}: not readable ({error}); its texts are encoded again", flush=True)
            path.unlink(missing_ok=True)
            return
        self._places |= {key.tobytes(): (path, row) for row, key in enumerate(keys)}

    def _read(self, keys: list[bytes]) -> Embedding:
        width = self._text.config.embedding_width
        found = Embedding(
            np.zeros((len(keys), self._length, width), np.float16),
            np.zeros((len(keys), self._length), bool),
            np.zeros((len(keys), width), np.float16),
        )
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for place, key in enumerate(keys):
            path, row = self._places[key]
            wanted.setdefault(path, []).append((place, row))
        for path, rows in wanted.items():
            with safe_open(path, framework="np") as file:
                ends, tokens, pooled = (file.get_tensor(name) for name in ("ends", "tokens", "pooled"))
            for place, row in rows:
                part = tokens[ends[row - 1] if row else 0 : ends[row]]
                found.tokens[place, : len(part)] = part
                found.mask[place, : len(part)] = True
                found.pooled[place] = pooled[row]
        return found
