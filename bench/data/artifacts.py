"""Content-addressed directories, built once under a claim and verified when they are used.

    <root>/<kind>/<hash of inputs>/manifest.json   inputs, and the SHA-256 and size of every file
    <root>/<kind>/<hash of inputs>/...             what the builder wrote

A builder gets an empty temporary directory; only a complete directory is renamed to its final name, so an
interrupted or failed build leaves nothing that could be mistaken for an artifact. What a killed build leaves
behind is removed by the next one. Of several processes that want one artifact, one builds and the others wait;
when the builder dies, one of them builds.
"""

import contextlib
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.checked import fingerprint_of
from bench.claims import Claim, read_holder, try_claim
from gold_rm.errors import UserError
from gold_rm.permissions import follow_umask

MANIFEST_FILE = "manifest.json"
PAIRS_FILE = "pairs.parquet"  # of a pool, of preference data
SAMPLES_FILE = "samples.parquet"  # of π_ref
POLL_SECONDS = 0.1
REPORT_WAIT_SECONDS = 5.0  # a shorter wait for another process is not worth a message


class DamagedArtifact(UserError):
    """Files of an artifact are missing or not what its manifest says."""


@dataclass(frozen=True)
class Artifact:
    """A verified directory; `fingerprint` is 12 hex digits over the content of its files."""

    path: Path
    fingerprint: str


def build_once(
    root: Path,
    kind: str,
    inputs: Mapping[str, Any],
    builder: Callable[[Path], None],
    progress: Callable[[str], None] = lambda message: None,
) -> Artifact:
    """Return the artifact of `kind` made from `inputs`, building it if it is not there yet.

    Args:
        inputs: everything that the content depends on, as JSON values; their hash is the directory's name.
        builder: fills the empty directory it is given.
        progress: told that the artifact is being built, or which process is waited for.
    Raises:
        DamagedArtifact: the directory exists but does not match its manifest.
    """
    target = root / kind / fingerprint_of(inputs)
    # A directory of its own, so that it can be removed: the artifact's does not exist yet, and `kind` is shared.
    building = target.with_name(f".{target.name}.building")
    report_at = time.monotonic() + REPORT_WAIT_SECONDS
    while not target.exists():
        building.mkdir(parents=True, exist_ok=True)
        claim = try_claim(building)
        if claim is not None:
            _build_claimed(claim, target, kind, inputs, builder, progress)
            continue
        if time.monotonic() >= report_at and (holder := read_holder(building)) is not None:
            progress(f"waiting for {kind} {target.name}, which {holder} is building")
            report_at = math.inf
        time.sleep(POLL_SECONDS)
    return verify(target)


def _build_claimed(
    claim: Claim,
    target: Path,
    kind: str,
    inputs: Mapping[str, Any],
    builder: Callable[[Path], None],
    progress: Callable[[str], None],
) -> None:
    """Build under a claim and give it back; without an artifact only if the claim was lost meanwhile."""
    try:
        with claim:
            if target.exists():  # another process built it while we waited
                return
            progress(f"building {kind} {target.name}")
            try:
                _build(claim, target, kind, inputs, builder)
            except Exception as error:
                if claim.held():
                    raise
                # Whoever took over has cleared our files away, so any error may be of that; it builds, we wait.
                progress(f"building {kind} {target.name} was taken over by another process ({error})")
    finally:
        with contextlib.suppress(OSError):  # another process claims it already, and will remove it
            claim.directory.rmdir()


def _build(claim: Claim, target: Path, kind: str, inputs: Mapping[str, Any], builder: Callable[[Path], None]) -> None:
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)  # of a killed build, or one that has lost its claim to us
    temporary = target.with_name(f".{target.name}.{claim.token}.tmp")
    temporary.mkdir()
    try:
        builder(temporary)
        follow_umask(temporary)  # colleagues share what is built
        files = {str(path.relative_to(temporary)): _describe(path) for path in _files(temporary)}
        manifest = {"kind": kind, "inputs": inputs, "files": files}
        (temporary / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        claim.require_held()
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def verify(path: Path) -> Artifact:
    """Check every file against the manifest.

    Raises:
        DamagedArtifact: naming the file and what to do.
        OSError: a file cannot be read, which says nothing of what is in it.
    """
    manifest = path / MANIFEST_FILE
    try:
        listed = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        for name, expected in listed.items():
            if not (path / name).is_file():
                raise _damaged(path, f"{name} is missing")
            if _describe(path / name) != expected:
                raise _damaged(path, f"{name} does not match its checksum")
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DamagedArtifact):
            raise
        raise _damaged(path, f"{manifest} is unreadable ({error})") from error
    return Artifact(path, fingerprint_of(listed))


def _damaged(path: Path, what: str) -> DamagedArtifact:
    return DamagedArtifact(f"artifact {path}: {what}; delete that directory and it is built again")


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST_FILE)


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}
