"""Files at the door: checked reading, and writing that leaves either the whole file or nothing."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

MAX_MIDI_BYTES = 16 * 2**20  # some 3 million notes


def existing(path: str | Path) -> Path:
    """Give the path of a readable, non-empty file.

    Raises:
        ValueError: the file is missing, a folder, unreadable or empty.
    """
    file = Path(path)
    try:
        if not file.exists():
            raise ValueError(f"{file}: no such file")
        if not file.is_file():
            raise ValueError(f"{file}: not a file; give the path of one file")
        if file.stat().st_size == 0:
            raise ValueError(f"{file}: the file is empty")
        with file.open("rb"):
            return file
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror or error})") from None


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes that name when the block ends well, else it is removed.

    Raises:
        ValueError: the folder is missing or cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise ValueError(f"{target}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
