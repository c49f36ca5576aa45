"""Time the xLSTM cells and a decoder beside the published implementations, on one core, as ratios.

Usage: python tools/benchmark_xlstm.py [cell | chunks | decode | position | all] [--json FILE] [--plot FILE]

Every row is a process of its own, pinned to one core with one thread; times are CPU seconds, the least of the
repeats. Peers (`pip install -e '.[parity]'`) run in turn with ours, and the table gives peer / ours.
`position` is the O(1) claim: time and memory of a step at positions 0 to 100,000, beside a transformer with
a KV cache.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from xlstm_positions import positions

ROWS = Path(__file__).with_name("xlstm_rows.py")
ROUNDS = 2  # each measurement is made this often, in turn with those it is compared with


class Bench:
    """Runs rows and keeps what they found."""

    def __init__(self, core: int, repeats: int) -> None:
        self.core, self.repeats = core, repeats
        self.found: dict[str, dict[str, Any]] = {}

    def compare(self, rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Measure some rows in turn; give the best of each."""
        best: dict[str, dict[str, Any]] = {}
        for _ in range(ROUNDS):
            for name, row in rows.items():
                if name in best and row.get("once"):
                    continue
                found = self.run({k: v for k, v in row.items() if k != "once"})
                old = best.get(name, found)
                best[name] = {
                    k: max(v, old[k]) if k == "tokens" else min(v, old[k]) for k, v in found.items()
                }
        self.found |= best
        return best

    def run(self, row: dict[str, Any]) -> dict[str, Any]:
        """Measure one row in a process of its own."""
        told = json.dumps({"core": self.core, "repeats": self.repeats} | row)
        done = subprocess.run([sys.executable, ROWS, told], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{told}: {done.stderr.strip().splitlines()[-1]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def cell_row(form: str, length: int, *, backward: bool = True, chunk: int | None = None, **more: Any) -> Any:
    """Describe a row: B = 1, 8 heads, dqk = dv = 64."""
    row = {"kind": "cell", "form": form, "backward": backward, "batch": 1, "length": length, "key": 64}
    return row | {"chunk": chunk} | more


def ratio(bench: dict[str, dict[str, Any]], peer: str, ours: str, field: str) -> str:
    """Peer / ours, or what is missing."""
    if "missing" in bench[peer]:
        return f"peer missing ({bench[peer]['missing']})"
    return f"{bench[peer][field] / bench[ours][field]:.2f}x"


def cells(bench: Bench) -> None:
    """Compare one cell's forward and backward pass."""
    print("| one cell, forward + backward | ours: us a token, compile s, temporary MB | peer | peer / ours |")
    print("|---|---|---|---|")
    for length in (1024, 4096):
        rows = {f"ours {length}": cell_row("ours", length), f"torch {length}": cell_row("torch", length)}
        # The peer's compile time grows with T; once is enough of it.
        rows[f"jax {length}"] = cell_row("jax", length, once=length > 1024)
        if length == 1024:
            rows[f"scan {length}"] = cell_row("scan", length, repeats=3)
        found = bench.compare(rows)
        ours = found[f"ours {length}"]
        told = f"{ours['us']:.1f}, {ours['compile']:.1f}, {ours['temp'] / 1e6:.1f}"
        for name in (name for name in rows if not name.startswith("ours")):
            peer = found[name]
            parts = [f"time {ratio(found, name, f'ours {length}', 'us')}"]
            if "compile" in peer:
                parts += [
                    f"{field} {ratio(found, name, f'ours {length}', field)}" for field in ("compile", "temp")
                ]
            print(f"| T = {length:,} | {told} | {name} | {', '.join(parts)} |", flush=True)
    found = bench.compare({f"ours {n}": cell_row("ours", n) for n in (1024, 16384)})
    short, long = found["ours 1024"], found["ours 16384"]
    growth = ", ".join(f"{field} {long[field] / short[field]:.2f}" for field in ("us", "compile"))
    print(f"\nours at T = 16,384 / at 1,024: {growth}")


def chunks(bench: Bench) -> None:
    """Compare chunk sizes: where the default of a backend comes from."""
    rows = {str(n): cell_row("ours", 4096, chunk=n) for n in (16, 32, 64, 128, 256)}
    for name, found in bench.compare(rows).items():
        print(f"chunk {name:>3}: {found['us']:.1f} us a token, {found['temp'] / 1e6:.0f} MB")


def decoders(bench: Bench) -> None:
    """Compare tokens a CPU second of a 12-layer model, d = 512."""
    print("| decode, 12 layers, d 512 | ours: tokens a CPU second | PyPI xlstm (torch) | ours / peer |")
    print("|---|---|---|---|")
    for batch in (1, 16):
        forms = ("ours", "torch")
        row = {"kind": "decode", "batch": batch, "steps": 32}
        found = bench.compare({f"{form} decode {batch}": row | {"form": form} for form in forms})
        ours, peer = (found[f"{form} decode {batch}"] for form in forms)
        if "missing" in peer:
            print(f"| batch {batch} | {ours['tokens']:.0f} | missing ({peer['missing']}) | |")
            continue
        told = f"{ours['tokens']:.0f} | {peer['tokens']:.0f} | {ours['tokens'] / peer['tokens']:.2f}x"
        print(f"| batch {batch} | {told} |", flush=True)


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "part", nargs="?", default="all", choices=["cell", "chunks", "decode", "position", "all"]
    )
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write what was measured")
    parser.add_argument("--plot", type=Path, help="of `position`: write a picture (PNG)")
    options = parser.parse_args()
    bench = Bench(options.core, options.repeats)
    if options.part in ("cell", "all"):
        cells(bench)
    if options.part in ("chunks", "all"):
        chunks(bench)
    if options.part in ("decode", "all"):
        decoders(bench)
    if options.part in ("position", "all"):
        positions(bench, options.plot)
    if options.json:
        options.json.write_text(json.dumps(bench.found, indent=1) + "\n")


if __name__ == "__main__":
    main()
