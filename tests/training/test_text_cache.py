import jax
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from mfm_jax.convert.t5 import t5_params
from mfm_jax.models.text_loading import Text
from mfm_jax.training.text_cache import TextCache
from tests.models.test_text import CONFIG, toy_tokeniser
from tests.reference import t5

TEXTS = ["sad piano", "piano", "", "sad sad piano", "piano"]


class Counted(Text):
    """Counts what it encodes."""

    encoded = 0

    def many(self, texts, length=64, rows=64):
        self.encoded += len(texts)
        return super().many(texts, length, rows)


@pytest.fixture(scope="module")
def text():
    tensors = t5.random_tensors(np.random.default_rng(0), 40, 16, 2, 2, 6, 24)
    tokeniser = PreTrainedTokenizerFast(tokenizer_object=toy_tokeniser())
    return Counted(CONFIG, t5_params(CONFIG, tensors.__getitem__), tokeniser)


def test_each_text_is_encoded_once_and_read_back(text, tmp_path):
    text.encoded = 0
    cache = TextCache(tmp_path, text, "abc", 8)
    found, wanted = cache(TEXTS), text(TEXTS, 8)
    assert (text.encoded, len(cache)) == (4, 4)
    np.testing.assert_array_equal(found.mask, wanted.mask)
    np.testing.assert_allclose(found.tokens, wanted.tokens, atol=2e-3)
    np.testing.assert_allclose(found.pooled, wanted.pooled, atol=2e-3)
    again = TextCache(tmp_path, text, "abc", 8)
    jax.tree.map(np.testing.assert_array_equal, again(TEXTS[::-1]), cache(TEXTS[::-1]))
    again(["sad", "piano"])
    assert text.encoded == 5


def test_another_model_or_length_has_a_cache_of_its_own(text, tmp_path):
    TextCache(tmp_path, text, "abc", 8)(TEXTS)
    assert len(TextCache(tmp_path, text, "abd", 8)) == 0
    assert len(TextCache(tmp_path, text, "abc", 9)) == 0


def test_a_broken_block_is_made_again(text, tmp_path, capsys):
    TextCache(tmp_path, text, "abc", 8)(TEXTS)
    (block,) = tmp_path.rglob("*.safetensors")
    block.write_bytes(block.read_bytes()[:50])
    cache = TextCache(tmp_path, text, "abc", 8)
    assert block.name in capsys.readouterr().out
    np.testing.assert_array_equal(cache(TEXTS).mask, text(TEXTS, 8).mask)
