"""Copies that a sweep keeps of what its analysis reads, so that it stands alone: checked, and made again if damaged."""

import json
import shutil
from functools import partial
from pathlib import Path

from bench.claims import hold
from bench.data.artifacts import MANIFEST_FILE, PAIRS_FILE, SAMPLES_FILE
from bench.data.prepared import Prepared
from bench.records import checksum, read_plan, remove_temporaries, write_atomically


def published_files(prepared: Prepared) -> dict[str, str]:
    """SHA-256 of each copy, by its name in the sweep: π_ref's scored samples, and the labels' probabilities."""
    return {name: _listed(source) for name, source in _sources(prepared).items()}


def publish(sweep_dir: Path, prepared: Prepared) -> None:
    """Copy what is not there, or is not what it should be."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    for name, source in _sources(prepared).items():
        target = sweep_dir / name
        if not target.is_file() or checksum(target) != _listed(source):
            with hold(sweep_dir):
                remove_temporaries(sweep_dir, name)
                write_atomically(target, partial(shutil.copyfile, source), to_disk=True)


def is_published(sweep_dir: Path) -> bool:
    """Whether all copies that the plan names are there as they were; those of older plans are not known."""
    planned = read_plan(sweep_dir)["published"]
    return all((sweep_dir / name).is_file() and checksum(sweep_dir / name) == sha for name, sha in planned.items())


def _sources(prepared: Prepared) -> dict[str, Path]:
    return {
        f"reference-{prepared.reference.fingerprint}.parquet": prepared.reference.path / SAMPLES_FILE,
        f"labels-{prepared.preferences.fingerprint}.parquet": prepared.preferences.path / PAIRS_FILE,
    }


def _listed(source: Path) -> str:
    """What the artifact's manifest says of the file."""
    listed = json.loads((source.parent / MANIFEST_FILE).read_text(encoding="utf-8"))["files"]
    return str(listed[source.name]["sha256"])
