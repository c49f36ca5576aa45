"""Text in, embeddings out: the tokeniser and a frozen encoder as one callable."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mfm_jax.axes import Params
from mfm_jax.models.text import TextConfig, TextEncoder, pool
from mfm_jax.music.prompt_syntax import Emphasis

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_TOKENS = 64  # tokens of a prompt that the generator reads; what follows is cut
ROWS = 64  # texts in a batch of `Text.many`
_LENGTHS = (16, 32, 64, 128, 256, 512)  # padded lengths, so that few programs are compiled


class Embedding(NamedTuple):
    """Encoded texts: `tokens` [B, L, D], zero where `mask` [B, L] is False, and `pooled` [B, D]."""

    tokens: Float[np.ndarray, "B L D"]
    mask: Bool[np.ndarray, "B L"]
    pooled: Float[np.ndarray, "B D"]


class Text:
    """A frozen text encoder with its tokeniser.

    Called, it encodes each text by itself at a padded length of its own, so that an embedding does not
    depend, to the last bit, on what else is in the batch. `many` is for many: batches of one length.
    """

    def __init__(
        self,
        config: TextConfig,
        params: Params,
        tokeniser: "PreTrainedTokenizerFast",
        put: Callable[[np.ndarray], Array] = jnp.asarray,
    ) -> None:
        """Take an encoder.

        Args:
            config: its shape; with `dtype` 'bfloat16' its matrices are kept so too (they are frozen).
            params: `{"params": ...}`, whole or already split over devices.
            tokeniser: of the same vocabulary.
            put: puts the rows of a batch of `many` on devices, such as `mesh.put_batch` does.
        """
        self.config = config
        self.tokeniser = tokeniser
        self.put = put

        def kept(leaf: Any) -> Array:
            array = jnp.asarray(leaf)
            return array.astype(config.dtype) if array.ndim > 2 and config.dtype != "float32" else array

        self.params = jax.tree.map(kept, params)
        self._encode = jax.jit(TextEncoder(config).apply)

    def __call__(
        self,
        texts: list[str],
        length: int = MAX_TOKENS,
        emphasis: Sequence[Sequence[Emphasis]] | None = None,
    ) -> Embedding:
        """Encode texts one by one.

        Args:
            texts: any strings; an empty one gives the embedding of the empty text.
            length: L of the answer; longer texts are cut to it.
            emphasis: of each text, the characters that count more or less than once: their tokens are scaled
                by the weight, and count so in the pooled mean.

        Returns:
            tokens [B, L, D], mask [B, L] and pooled [B, D]; D is `config.embedding_width`.
        """
        found = self._empty(len(texts), length)
        ids = tokenise(self.tokeniser, texts, length)
        for row in range(len(texts)):
            self._fill(found, [row], ids, 1, jnp.asarray)
            if emphasis and emphasis[row]:
                weights = token_weights(self.tokeniser, texts[row], emphasis[row], length)
                n = len(weights)
                found.pooled[row] = pool(
                    jnp.asarray(found.tokens[row : row + 1, :n]), jnp.asarray(weights[None])
                )[0]
                found.tokens[row, :n] *= weights[:, None]
        return found

    def many(self, texts: Sequence[str], length: int = MAX_TOKENS, rows: int = ROWS) -> Embedding:
        """Encode many texts, in batches of `rows` that are padded to one of a few lengths.

        The answer is that of calling, to rounding (1e-5 of unit scale in float32).
        """
        found = self._empty(len(texts), length)
        ids = tokenise(self.tokeniser, list(texts), length)
        buckets: dict[int, list[int]] = {}
        for row, tokens in enumerate(ids):
            buckets.setdefault(_padded(len(tokens)), []).append(row)
        for _, members in sorted(buckets.items()):
            for start in range(0, len(members), rows):
                self._fill(found, members[start : start + rows], ids, rows, self.put)
        return found

    def _empty(self, count: int, length: int) -> Embedding:
        width = self.config.embedding_width
        return Embedding(
            np.zeros((count, length, width), np.float32),
            np.zeros((count, length), bool),
            np.zeros((count, width), np.float32),
        )

    def _fill(
        self,
        found: Embedding,
        members: list[int],
        ids: list[list[int]],
        rows: int,
        put: Callable[[np.ndarray], Array],
    ) -> None:
        """Encode the texts `members`, all of one padded length, in a batch of `rows`."""
        shape = rows, _padded(max(len(ids[row]) for row in members))
        given, real = np.zeros(shape, np.int32), np.zeros(shape, bool)
        for place, row in enumerate(members):
            given[place, : len(ids[row])] = ids[row]
            real[place, : len(ids[row])] = True
        tokens, pooled = map(np.asarray, self._encode(self.params, put(given), put(real)))
        for place, row in enumerate(members):
            n = len(ids[row])
            found.tokens[row, :n] = tokens[place, :n]
            found.mask[row, :n] = True
            found.pooled[row] = pooled[place]


def _padded(tokens: int) -> int:
    return next((n for n in _LENGTHS if n >= tokens), tokens)


def token_weights(
    tokeniser: "PreTrainedTokenizerFast", text: str, emphasis: Sequence[Emphasis], length: int
) -> Float[np.ndarray, " L"]:
    """Give the weight of each token: that of the last emphasis that it shares a letter with, or 1."""
    spans = tokeniser(text, truncation=True, max_length=length, return_offsets_mapping=True)["offset_mapping"]
    weights = np.ones(len(spans), np.float32)
    for place, (start, end) in enumerate(spans):
        for word in emphasis:
            if start < word.end and end > word.start:
                weights[place] = word.weight
    return weights


def load_tokeniser(path: str | Path) -> "PreTrainedTokenizerFast":
    """Load a `tokenizer.json` through `transformers`, without network.

    Raises:
        ValueError: if the file is missing or is not a tokeniser.
    """
    # Without this, transformers says on stderr that it found no PyTorch; nothing here needs it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import PreTrainedTokenizerFast  # a second to import: only where text is read

    if not Path(path).is_file():
        raise ValueError(f"{path}: no tokeniser here, expected a tokenizer.json file")
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise ValueError(f"{path}: not a tokenizer.json file: {str(error)[:120]}") from None


def tokenise(tokeniser: "PreTrainedTokenizerFast", texts: list[str], length: int) -> list[list[int]]:
    """Give the ids of each text, special tokens included, at most `length` of them."""
    if not texts:
        return []
    batch = tokeniser(texts, truncation=True, max_length=length, padding=False)
    return [list(map(int, ids)) for ids in batch["input_ids"]]
