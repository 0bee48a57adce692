"""Files outside of an artifact that it refers to: kept by hash, so that they can be checked later."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from bench.data.artifacts import DamagedArtifact
from bench.policies.directories import fingerprint_of_policy

SOURCES_FILE = "sources.json"
_PATHS = "paths"


def hash_file(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_sources(artifact: Path, hashes: Mapping[str, str], directories: Mapping[str, str | None]) -> None:
    """Note in an artifact what it was made from; an artifact's fingerprint is over its own files only.

    Args:
        hashes: of every file, and of every model's directory, by what it is.
        directories: those that stay where they are and are needed later.
    """
    paths = {name: str(Path(path).absolute()) for name, path in directories.items() if path is not None}
    (artifact / SOURCES_FILE).write_text(json.dumps({**hashes, _PATHS: paths}, indent=1) + "\n")


def verify_sources(artifact: Path) -> None:
    """Check that the directories that an artifact refers to are what they were.

    Raises:
        DamagedArtifact: naming the directory that is not.
    """
    if not (artifact / SOURCES_FILE).exists():
        return
    built = json.loads((artifact / SOURCES_FILE).read_text())
    for name, path in built.get(_PATHS, {}).items():
        if not Path(path).exists() or fingerprint_of_policy(Path(path)) != built[name]:
            raise DamagedArtifact(f"{name} {path}: not what {artifact} was built from; start the sweep again")
