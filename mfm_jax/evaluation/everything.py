"""`mfm evaluate all`: every evaluation that two folders allow, each with its own record."""

from collections.abc import Callable
from pathlib import Path

from mfm_jax.evaluation import agreement, codec, fad, notes, prompts
from mfm_jax.evaluation.embedding import Embedder
from mfm_jax.evaluation.inputs import AUDIO_SUFFIXES
from mfm_jax.evaluation.note_files import TABLE_SUFFIXES
from mfm_jax.evaluation.records import Report, Row, save
from mfm_jax.music.midi import MIDI_SUFFIXES

_HEADLINES = 3  # rows of a report in the overview


def evaluate(
    reference: Path,
    generated: Path,
    network: Embedder,
    out: Path,
    command: str,
    rebuilt: bool = False,
    manifest: Path | None = None,
    referee: str = "basic-pitch",
    cache: Path | None = None,
) -> Report:
    """Run each kind whose files are there; write `<out stem>.<kind>.json` and give the overview.

    A kind that cannot run is named with the reason; one that can and meets a bad file raises.

    Args:
        reference: folder of recordings, of MIDI, or both.
        generated: what is judged, under the same names.
        network: embeds for FAD.
        out: of the overview.
        command: the command line that does this.
        rebuilt: whether `generated` are the recordings of `reference` after a codec.
        manifest: the prompts that `generated` was made for.
        referee: listens for `agreement`.
        cache: of embeddings.

    Raises:
        ValueError: as the kinds do, or no kind can run.
    """
    scores = (*MIDI_SUFFIXES, *TABLE_SUFFIXES)
    has = {
        kind: [_holds(source, suffixes) for source in (reference, generated)]
        for kind, suffixes in (("notes", scores), ("audio", AUDIO_SUFFIXES))
    }
    plan: dict[str, tuple[str, Callable[[], Report]]] = {
        "notes": (
            "" if all(has["notes"]) else "needs MIDI in both folders",
            lambda: notes.evaluate(reference, generated),
        ),
        "fad": (
            "" if all(has["audio"]) else "needs recordings in both folders",
            lambda: fad.evaluate(reference, generated, network, cache=cache),
        ),
        "codec": (
            "" if rebuilt and all(has["audio"]) else "needs --rebuilt and recordings in both folders",
            lambda: codec.evaluate(reference, generated),
        ),
        "prompts": (
            "" if manifest else "needs --manifest",
            lambda: prompts.evaluate(manifest or Path(), generated),
        ),
        "agreement": (
            "" if has["notes"][1] and has["audio"][1] else "needs recordings and their MIDI in GEN",
            lambda: agreement.evaluate(generated, referee),
        ),
    }
    if all(reason for reason, _ in plan.values()):
        raise ValueError(
            f"{reference}, {generated}: nothing can be compared; both must hold recordings, or MIDI"
        )
    rows: list[Row] = []
    records: Row = {}
    warnings: list[str] = []
    for kind, (reason, work) in plan.items():
        if reason:
            records[kind] = f"not run: {reason}"
            continue
        report = work()
        written = save(report, out.with_name(f"{out.stem}.{kind}.json"), command)
        records[kind] = written[0].name
        rows += [{"kind": kind} | row for row in report.rows[:_HEADLINES]]
        warnings += [f"{kind}: {warning}" for warning in report.warnings]
    return Report("all", {"records": records}, rows, warnings=warnings)


def _holds(source: Path, suffixes: tuple[str, ...]) -> bool:
    files = source.rglob("*") if source.is_dir() else [source]
    return any(file.suffix.lower() in suffixes for file in files)
