"""Artifacts that come with the code: built once by us, so that every machine measures on the same files.

A world's package may hold ``frozen/<kind>/``, artifacts as `bench.data.artifacts` builds them, with the inputs in
their manifests. Settings that have these very inputs are served by a copy; see `bench.freeze`, which makes them.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.data.artifacts import MANIFEST_FILE, DamagedArtifact, verify

FROZEN_DIR = "frozen"


def frozen_directory(builder: ModuleType) -> Path | None:
    """Where a world's builder keeps what ships with it; None if it ships nothing."""
    directory = Path(str(builder.__file__)).parent / FROZEN_DIR
    return directory if hasattr(builder, "SHIPS") and directory.is_dir() else None


def shipped_inputs(directory: Path, kind: str) -> dict[str, Any]:
    """The inputs that the shipped artifact of `kind` was built from.

    Raises:
        DamagedArtifact: it is not there, or its manifest cannot be read.
    """
    manifest = directory / kind / MANIFEST_FILE
    try:
        return dict(json.loads(manifest.read_text(encoding="utf-8"))["inputs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedArtifact(f"{manifest}: {error}; the file comes with the code: {_RESTORE}") from error


def copy_of_shipped(directory: Path, kind: str, inputs: Mapping[str, Any]) -> Callable[[Path], None] | None:
    """A builder that copies the shipped artifact of `kind`; None if that was built from other inputs."""
    if shipped_inputs(directory, kind) != json.loads(json.dumps(inputs)):
        return None
    source = directory / kind

    def copy(target: Path) -> None:
        try:
            verify(source)
        except DamagedArtifact as error:
            raise DamagedArtifact(
                f"{str(error).rpartition(';')[0]}; the file comes with the code: {_RESTORE}"
            ) from error
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_FILE))

    return copy


_RESTORE = "restore it (git checkout -- bench/worlds), or install again"
