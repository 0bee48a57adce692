"""What files of a sweep were when they were finished: SHA-256, so that a damaged or missing one is no result."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.records.files import (
    CONFIG_FILE,
    HELD_OUT_FILE,
    RECORDS_FILE,
    RUN_AGAIN,
    SAMPLES_FILE,
    TRAINING_FILE,
    DamagedRecord,
)

# What a cell's results are; saved policies are checked by whoever loads them.
_OF_A_CELL = (CONFIG_FILE, RECORDS_FILE, TRAINING_FILE, SAMPLES_FILE, HELD_OUT_FILE)


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cell_checksums(cell_dir: Path) -> dict[str, str]:
    """Of a finished cell's files, by name."""
    return {name: checksum(cell_dir / name) for name in _OF_A_CELL if (cell_dir / name).exists()}


def check_files(directory: Path, expected: Mapping[str, str], advice: str = RUN_AGAIN) -> None:
    """Compare files with what they were.

    Args:
        expected: SHA-256 by name.
        advice: of the message: how to go on.
    Raises:
        DamagedRecord: the first that is missing, no file, or another one by now.
    """
    for name, wanted in expected.items():
        path = directory / name
        if not path.is_file():
            raise DamagedRecord(f"{path}: missing, but it was there when it was finished; {advice}")
        if checksum(path) != wanted:
            raise DamagedRecord(f"{path}: not what it was when it was finished (SHA-256); {advice}")


def damages(files: Iterable[tuple[Path, Mapping[str, str], str]]) -> list[str]:
    """Messages of all that `check_files` refuses; its arguments, one after the other."""
    found = []
    for directory, expected, advice in files:
        for name, wanted in expected.items():
            try:
                check_files(directory, {name: wanted}, advice)
            except DamagedRecord as error:
                found.append(str(error))
    return found
