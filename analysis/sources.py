"""What a report was made from, as one number: with it, a report that is up to date is not made again."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench import records

SOURCES_FILE = "sources.sha256"
_OF_A_SWEEP = (
    records.PLAN_FILE, "*.parquet", f"*/{records.CONFIG_FILE}", f"*/{records.RECORDS_FILE}",
    f"*/{records.STATUS_FILE}", f"*/{records.SAMPLES_FILE}", f"*/{records.ERROR_FILE}",
)  # fmt: skip
_OF_THE_CODE = ("*.py", "*.ipynb", "templates/*")


def digest_sources(sweeps: Sequence[Path], options: Iterable[object]) -> str:
    """SHA-256 over the files of the sweeps, the code of the report, and the options it is made with."""
    digest = hashlib.sha256(repr(tuple(options)).encode())
    for path in _source_files(sweeps):
        with path.open("rb") as stream:
            digest.update(f"\n{path.resolve()}\n".encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def is_current(report: Path, digest: str) -> bool:
    """Whether `report`, a directory, was made from the sources of this digest."""
    path = report / SOURCES_FILE
    return path.is_file() and path.read_text(encoding="utf-8").strip() == digest


def _source_files(sweeps: Sequence[Path]) -> Iterator[Path]:
    for directory, patterns in (*((sweep, _OF_A_SWEEP) for sweep in sweeps), (Path(__file__).parent, _OF_THE_CODE)):
        for pattern in patterns:
            yield from sorted(path for path in directory.glob(pattern) if path.is_file())
    yield Path(records.__file__)
