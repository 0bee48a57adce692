"""What a report was made from, as one number: with it, a report that is up to date is not made again."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench import records

PAGE, SOURCES_FILE = "index.html", "sources.sha256"
_OF_A_SWEEP = (
    records.PLAN_FILE, "*.parquet", f"*/{records.CONFIG_FILE}", f"*/{records.RECORDS_FILE}",
    f"*/{records.STATUS_FILE}", f"*/{records.SAMPLES_FILE}", f"*/{records.HELD_OUT_FILE}", f"*/{records.TRAINING_FILE}",
    f"*/{records.ERROR_FILE}",
)  # fmt: skip
_OF_THE_CODE = ("**/*.py", "**/*.ipynb", "report/templates/*")


def digest_sources(sweeps: Sequence[Path], rules: Path, options: Iterable[object]) -> str:
    """SHA-256 over the options, the rules and, of the sweeps' files and the report's code, names, sizes and times of
    change: the content of the files of 10,000 cells would take seconds to read.

    Args:
        rules: file of the verdicts' rules; one that cannot be read is refused by whoever reads it.
    """
    stamps = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in _source_files(sweeps)]
    content = (rules.name, rules.read_bytes() if rules.is_file() else None)
    return hashlib.sha256(repr((tuple(options), content, stamps)).encode()).hexdigest()


def is_current(report: Path, digest: str) -> bool:
    """Whether `report`, a directory, has a page, and was made from the sources of this digest."""
    path = report / SOURCES_FILE
    return (report / PAGE).is_file() and path.is_file() and path.read_text(encoding="utf-8").strip() == digest


def _source_files(sweeps: Sequence[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    code = Path(__file__).resolve().parent.parent
    for directory, patterns in (*((sweep.resolve(), _OF_A_SWEEP) for sweep in sweeps), (code, _OF_THE_CODE)):
        for pattern in patterns:
            for path in sorted(directory.glob(pattern)):
                yield path, path.stat()
    yield Path(records.__file__), Path(records.__file__).stat()
