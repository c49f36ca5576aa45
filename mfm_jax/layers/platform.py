"""Which kind of machine a program is being made for: the one at hand, unless it is compiled for another."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_named: ContextVar[str | None] = ContextVar("platform", default=None)


def platform() -> str:
    """Give 'cpu', 'gpu' or 'tpu'. Where a layer has a faster form for one of them, it asks here."""
    return _named.get() or jax.default_backend()


@contextmanager
def made_for(name: str) -> Iterator[None]:
    """Trace programs for another kind of machine.

    What `jit` has traced before is not traced again: use a process for each kind.
    """
    token = _named.set(name)
    try:
        yield
    finally:
        _named.reset(token)
