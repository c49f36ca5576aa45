"""Going on with a run: which settings may differ from those it was begun with, and its place in the data."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mfm_jax.checkpoint import flatten

FIXED = ("seed", "guard/window")  # of the training config; of the rest a run may be given other values
FREE = ("ahead", "threads")  # last names in `about` that change how fast batches come, not what is in them


def check_same(run: Path, facts: dict[str, Any], about: dict[str, Any], train: dict[str, Any]) -> None:
    """Refuse to go on with other configs.

    Args:
        run: the run's folder.
        facts: of the checkpoint: `about` and `train`.
        about: configs of model and data now.
        train: the training config now, as a plain dict.

    Raises:
        ValueError: names the first fields that differ, with both values.
    """
    then, now = _leaves({"about": facts["about"]}), _leaves({"about": about})
    told = [name for name in sorted({*then, *now}) if name.rpartition("/")[2] not in FREE]
    for settings, leaves in ((facts["train"], then), (train, now)):
        flat = _leaves(settings)
        leaves |= {f"train/{name}": flat.get(name) for name in FIXED}
        leaves["train/optim/ema"] = "kept" if flat.get("optim/ema") else "none"
    names = told + [name for name in now if name.startswith("train/")]
    other = [name for name in names if then.get(name) != now.get(name)]
    if other:
        lines = [f"{n.replace('/', '.')} was {then.get(n)}, is {now.get(n)}" for n in other[:3]]
        more = f"; {len(other) - 3} more" if len(other) > 3 else ""
        raise ValueError(
            f"{run}: begun with other configs ({'; '.join(lines)}{more}); "
            "use another folder or the same configs"
        )


def _leaves(tree: dict[str, Any]) -> dict[str, Any]:
    return flatten(json.loads(json.dumps(tree)))


def position(stream: Iterator[Any]) -> Any:
    """Give the place of a stream in its data as JSON, or None if it does not know."""
    get = getattr(stream, "get_state", None)
    state = get() if get else None
    return state.decode() if isinstance(state, bytes) else state


def wound(stream: Iterator[Any], first: Any, start: Any, place: Any, steps: int) -> Iterator[Any]:
    """Put a stream, of which `first` has been read, to a place in its data or after so many batches.

    Args:
        stream: read once.
        first: what that gave.
        start: its place before, None if it does not know places.
        place: from `position`.
        steps: batches to pass by when there are no places.
    """
    if start is not None and place is not None:
        stream.set_state(place)  # type: ignore[attr-defined]
        return stream
    return itertools.islice(itertools.chain([first], stream), steps, None)
