"""Hold the habits that no linter knows: short files, light weights, no drawers, no two tests of one name.

Usage: python tools/check_tree.py
"""

import subprocess
import sys
from pathlib import Path

MAX_LINES = 400
MAX_WEIGHTS = 60 * 2**20  # bytes, all shipped weights together
MAX_FILE = 2 * 2**20  # bytes, any tracked file that is not a shipped weight
ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Print each fault on a line; exit 1 when there is one."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    faults = []
    weights = 0
    tests: dict[str, Path] = {}
    for path in files:
        name, size = path.relative_to(ROOT), path.stat().st_size
        shipped = path.suffix == ".safetensors" and "pretrained" in path.parts
        weights += size if shipped else 0
        if size > MAX_FILE and not shipped:
            faults.append(
                f"{name}: {size} bytes, a tracked file may have {MAX_FILE}; keep data out of the repository"
            )
        if path.name.startswith("test_"):
            if path.name in tests:
                faults.append(f"{name}: {tests[path.name]} has this name too, and pytest imports only one")
            tests[path.name] = name
        if path.suffix == ".py":
            lines = len(path.read_text().splitlines())
            if lines > MAX_LINES:
                faults.append(f"{name}: {lines} lines, a file may have {MAX_LINES}; split it by subject")
            if path.stem in {"utils", "helpers", "misc"}:
                faults.append(f"{name}: say in the name what it holds")
    if weights > MAX_WEIGHTS:
        faults.append(f"mfm_jax/pretrained: {weights} bytes of weights, {MAX_WEIGHTS} may ship")
    print("\n".join(faults) or f"tree: {len(files)} files, {weights / 2**20:.1f} MiB of weights, no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
