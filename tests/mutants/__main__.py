"""``make mutants``: put each wrong formula into a copy of the code and run its tests; print those that survive."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("analysis", "bench", "conf", "gold_rm", "tests", "docs", "pyproject.toml", "README.md", "Makefile")
_SIDE_BY_SIDE = 2


def survives(mutant: Mutant) -> str | None:
    """None where a test has failed with the mutant in place; otherwise what happened."""
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    if source.count(mutant.old) < 1:
        return "its line is not in the code any more"
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for name in _COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(ROOT / name, copy / name)
        (copy / mutant.file).write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
            *mutant.tests.split(),
        ]
        ran = subprocess.run(
            command, cwd=copy, env={**os.environ, "PYTHONPATH": directory}, capture_output=True, text=True, check=False
        )
    if ran.returncode == 1 and " failed" in ran.stdout:
        return None
    return "all its tests pass" if ran.returncode == 0 else f"no test has run: {ran.stdout[-300:]}"


def main() -> int:
    """Entry point."""
    words = sys.argv[1:]
    chosen = [each for each in MUTANTS if not words or any(word in each.what for word in words)]
    started = time.monotonic()
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        outcomes = list(pool.map(survives, chosen))
    left = [(mutant, outcome) for mutant, outcome in zip(chosen, outcomes, strict=True) if outcome is not None]
    for mutant, outcome in left:
        print(f"survives: {mutant.what} ({mutant.file}): {outcome}")
    print(f"{len(chosen)} mutants, {len(chosen) - len(left)} killed, {time.monotonic() - started:.0f} s")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
