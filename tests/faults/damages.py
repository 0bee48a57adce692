"""Every kind of file of a finished sweep, damaged in every way: named, made again, or left out, and never used."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pandas as pd

from analysis.data.load import load_sweep
from analysis.data.sweep import Sweep
from bench import status, train
from faults.ground import Ground, Tally, copy_of
from gold_rm.errors import UserError

SECONDS = 30


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _replace(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a bit flipped": _flip,
    "garbage": lambda path: path.write_bytes(b"\xff\x00{[\x80" * 50),
    "deleted": lambda path: path.unlink(),
    "a folder": _replace(lambda path: path.mkdir()),
    "a pipe": _replace(os.mkfifo),
}
OF_THE_SWEEP = ("plan.json", "reference-*.parquet", "labels-*.parquet")
OF_A_CELL = ("config.yaml", "records.jsonl", "training.jsonl", "samples.parquet", "held_out.parquet", "status.json")
ARTIFACTS = ("*/*/manifest.json", "preferences/*/pairs.parquet", "reference/*/samples.parquet", "world/*/world.json")


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    def expire(number: int, frame: object) -> None:
        raise TimeoutError(f"not answered within {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_damages(ground: Ground) -> Tally:
    """Damage one file at a time; then report, status and another call of the sweep."""
    tally = Tally("damaged files")
    whole = _read(load_sweep(ground.root / "undisturbed" / "t"))
    sweep = ground.root / "undisturbed" / "t"
    cell = sorted(path.parent for path in sweep.glob("*/records.jsonl"))[0]
    artifacts = ground.world.artifacts
    files = [path for pattern in OF_THE_SWEEP for path in sorted(sweep.glob(pattern))]
    files += [cell / name for name in OF_A_CELL]
    files += [path for pattern in ARTIFACTS for path in sorted(artifacts.glob(pattern))]
    for path in files:
        for name, damage in DAMAGES.items():
            # In its place: the world refers to where its parts lie. Kept beside it, and put back.
            kept = copy_of(ground, "kept")
            try:
                damage(path)
                problem = _survives(ground, path, whole)
            finally:
                for part in ("undisturbed", "world"):
                    shutil.rmtree(ground.root / part)
                    shutil.copytree(kept / part, ground.root / part)
            tally.count(f"{path.relative_to(ground.root)} {name}", problem)
    return tally


def _survives(ground: Ground, path: Path, whole: Sequence[pd.DataFrame]) -> str | None:
    runs = ground.root / "undisturbed"
    for look in (_report, _check, _train):
        try:
            with _within(SECONDS):
                problem = look(ground, runs, path, whole)
        except Exception as error:
            problem = f"{look.__name__.strip('_')}: {type(error).__name__}: {error}"
        if problem:
            return problem
    return None


def _report(ground: Ground, runs: Path, path: Path, whole: Sequence[pd.DataFrame]) -> str | None:
    """Refused with a name, or the same numbers, but for those of the damaged cell."""
    try:
        found = load_sweep(runs / "t")
    except UserError as error:
        return None if path.name in str(error) or str(path.parent) in str(error) else f"report: not named in {error}"
    there = set(found.checkpoints["cell"])
    kept = [frame[frame["cell"].isin(there)].reset_index(drop=True) if "cell" in frame else frame for frame in whole]
    left_out = len(kept[0]) < len(whole[0])
    if left_out and not any("left out" in warning for warning in found.warnings):
        return "report: a cell is left out without a word"
    same = all(ours.equals(theirs) for ours, theirs in zip(_read(found), kept, strict=True))
    return None if same else "report: other numbers"


def _read(sweep: Sweep) -> list[pd.DataFrame]:
    """What figures and tables are made of: checkpoints, samples, π_ref's samples, labels."""
    labels = pd.DataFrame({"label_probability": sweep.label_probability})
    assert sweep.reference is not None
    return [sweep.checkpoints, sweep.samples(final_only=False), sweep.reference, labels]


def _check(ground: Ground, runs: Path, path: Path, whole: Sequence[pd.DataFrame]) -> str | None:
    """Said of every file of the sweep; those of artifacts are checked by whoever uses them."""
    code, said = _run(status.main, ["status", "--check", str(runs / "t")])
    of_the_sweep = path.is_relative_to(runs)
    return f"status --check: not noticed ({said[-200:]!r})" if of_the_sweep and code == 0 else None


def _train(ground: Ground, runs: Path, path: Path, whole: Sequence[pd.DataFrame]) -> str | None:
    """Refused with a name, left alone, or made again; and no other cell's records change."""
    code, said = _run(train.main, ["bench.train", *ground.arguments(runs)])
    others = {name for name in ground.records if name != path.parent.name}
    changed = ground.difference(runs) if code == 0 else None
    if changed and path.name != "records.jsonl":
        return f"train: {changed}"
    if code not in (0, 1, 2):
        return f"train: status {code}"
    gone = [name for name in others if not (runs / "t" / name / "records.jsonl").is_file()]
    return f"train: records of {len(gone)} other cells are gone; {said[-200:]!r}" if gone else None


def _run(main: Callable[[], int], words: list[str]) -> tuple[int, str]:
    before, sys.argv = sys.argv, words
    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return main(), said.getvalue()
    finally:
        sys.argv = before
