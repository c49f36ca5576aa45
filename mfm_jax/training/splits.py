"""Which compositions are for training, validation and test: decided by a hash of composer and title alone."""

import hashlib
import re
import unicodedata

from mfm_jax.records import Facts

SHARES = {"train": 0.90, "valid": 0.05, "test": 0.05}


def composition(facts: Facts) -> str:
    """Give the name that all files of one composition share: composer's surname and title, without numbering.

    'Franz Schubert', 'SchubertF' and 'Schubert, Franz' are one; catalogue numbers after a comma do not count.
    """
    composer = re.sub(r"(?<=[a-zà-ÿ])[A-Z]{1,4}$", "", facts.get("composer") or "")
    surname = composer.split(",")[0] if "," in composer else (composer.split() or [""])[-1]
    title = str(facts.get("title") or facts["path"]).split(",")[0]
    title = re.sub(r"^\s*(no\.?\s*)?\d+[.:)]?\s+", "", title, flags=re.IGNORECASE)
    plain = unicodedata.normalize("NFKD", f"{surname}|{title}").casefold()
    return re.sub(r"[^\w|]|_", "", plain)


def split_of(facts: Facts) -> str:
    """Give 'train', 'valid' or 'test' by the hash of the composition: it can never drift."""
    position = int.from_bytes(hashlib.sha256(composition(facts).encode()).digest()[:6], "big") / 2**48
    edge = 0.0
    for name, share in SHARES.items():
        edge += share
        if position < edge:
            return name
    return "test"
