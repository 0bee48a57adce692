"""Names of the files that a sweep consists of, and writing them so that a reader never sees half a file."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gold_rm.errors import UserError

PLAN_FILE = "plan.json"
CONFIG_FILE = "config.yaml"
RECORDS_FILE = "records.jsonl"
TRAINING_FILE = "training.jsonl"
SAMPLES_FILE = "samples.parquet"
HELD_OUT_FILE = "held_out.parquet"
STATUS_FILE = "status.json"
EXACT_FILE = "exact.parquet"
ERROR_FILE = "error.txt"
EVALUATIONS_FILE = "evaluations.jsonl"  # of a sweep: its saved policies, measured again
POLICY_DIR = "policy"
RESUME_DIR = "resume"
WORKERS_DIR = "workers"  # of a sweep: what its workers said, and what is known of those that were killed
DEATHS_FILE = "deaths.jsonl"

# One row per (checkpoint, sample, evaluation prompt); gold* in SD of π_ref's scores, kl* in nats, length in tokens;
# `sample_id` counts from 0, `win_share` is the share of π_ref's samples of the prompt that are beaten, ties count 1/2.
SAMPLE_COLUMNS = (
    "step", "prompt_id", "sample_id", "prompt", "response", "kl", "kl_k1", "gold", "win_share", "gold_reference",
    "reference_response", "length", "ended",
)  # fmt: skip
# One row per (checkpoint after step 0, held-out pair): `pair` is its row among the held-out pairs, `rho` in nats.
HELD_OUT_COLUMNS = ("step", "pair", "rho")
# One row per (evaluation prompt, reference sample), standardized as `gold` is; `sample_id` counts from 0.
REFERENCE_COLUMNS = ("prompt_id", "prompt", "sample_id", "response", "gold", "length")
# One row per exact policy, averaged over evaluation prompts: `kind` is ``optimum`` with `strength` λ of the
# KL-constrained optimum (SD per nat), or a loss with `strength` β of that loss's optimum over all pairs.
EXACT_COLUMNS = ("kind", "strength", "kl", "gold")


class DamagedRecord(UserError):
    """A file of a sweep that cannot be trusted: says which file and line, and what is wrong there."""


LARGEST_INT = 2**63  # integers in files stay below it, as tables hold 64 bits with a sign
COPY_AGAIN = "delete it, and the next call of the sweep copies it again"
RUN_AGAIN = "move the cell's directory away, and the next call runs the cell again"
_CHECKSUM = "sha256"  # key of an object that holds the checksum of the rest of it


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` does; NaN and infinity are errors."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_checked_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its own checksum, which `read_json` compares: a digit that has changed is no digit."""
    write_json(path, {_CHECKSUM: _checksum_of(value), **value})


def _checksum_of(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, allow_nan=False).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write text under a temporary name, force it to disk and rename: nobody ever sees half a file, or an empty one."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), to_disk=True)


def write_atomically(path: Path, write: Callable[[Path], object], *, to_disk: bool = False) -> None:
    """Let `write` fill a temporary file beside `path`, and rename it to that.

    Args:
        to_disk: force it to disk before that, which takes milliseconds: a machine that goes down leaves the old file.
    """
    # Not the process's id: containers that share a file system have the same ones.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        if to_disk:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(directory: Path, name: str = "*") -> None:
    """Remove what processes that were killed in `write_atomically` have left of `name`; nobody may be writing it."""
    for path in directory.glob(f".{name}.*.tmp"):
        if not path.name.startswith(".claim-"):
            path.unlink(missing_ok=True)


def require_regular(path: Path) -> None:
    """Refuse what is there and no file: a pipe of that name would be waited for, a directory end in a traceback.

    Raises:
        DamagedRecord: naming it.
    """
    if path.exists() and not path.is_file():
        raise DamagedRecord(f"{path}: not a file; {RUN_AGAIN}")


def read_json(path: Path, what: str, advice: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        what, advice: of the message, such as ``a cell status`` and how to go on.
    Raises:
        DamagedRecord: the file is no regular file, not UTF-8, not JSON, not an object, or not what was written.
    """
    if not path.is_file():  # a pipe or a directory of that name would block, or end in a traceback
        raise DamagedRecord(f"{path}: not a file, so not {what}; {advice}")
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:  # of JSON, or of UTF-8
        raise DamagedRecord(f"{path}: not {what} ({error}); {advice}") from error
    if not isinstance(value, dict):
        raise DamagedRecord(f"{path}: not {what} (a {type(value).__name__}); {advice}")
    written = value.pop(_CHECKSUM, None)  # older files have none
    try:
        is_whole = written is None or written == _checksum_of(value)
    except ValueError:  # NaN, which nothing of ours writes
        is_whole = False
    if not is_whole:
        raise DamagedRecord(f"{path}: not what was written ({_CHECKSUM} differs); {advice}")
    return value
