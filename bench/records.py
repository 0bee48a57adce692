"""What one cell leaves on disk: the schema shared by training, status and analysis (standard library only).

runs/<sweep>/plan.json                   the cells the sweep consists of
runs/<sweep>/reference-<id>.parquet      π_ref's samples and gold scores on the evaluation prompts
runs/<sweep>/labels-<id>.parquet         `label_probability` of every pair of the preference data
runs/<sweep>/exact.parquet               EXACT_COLUMNS; the oracle world only, by bench.oracle.check
runs/<sweep>/<cell>/config.yaml          resolved configuration
runs/<sweep>/<cell>/records.jsonl        one CheckpointRecord a line
runs/<sweep>/<cell>/samples.parquet      SAMPLE_COLUMNS, one row per checkpoint and evaluation prompt
runs/<sweep>/<cell>/status.json          one CellStatus
runs/<sweep>/<cell>/error.txt            traceback of a failed cell
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1

PLAN_FILE = "plan.json"
CONFIG_FILE = "config.yaml"
RECORDS_FILE = "records.jsonl"
SAMPLES_FILE = "samples.parquet"
STATUS_FILE = "status.json"
EXACT_FILE = "exact.parquet"
ERROR_FILE = "error.txt"
LOCK_FILE = ".lock"

# One row per (checkpoint, evaluation prompt); gold* in SD of π_ref's scores, kl* in nats, length in tokens.
SAMPLE_COLUMNS = (
    "step", "prompt_id", "prompt", "response", "kl", "kl_k1", "gold", "gold_reference",
    "reference_response", "length", "ended",
)  # fmt: skip
# One row per (evaluation prompt, reference sample), standardised as `gold` is; `sample_id` counts from 0.
REFERENCE_COLUMNS = ("prompt_id", "prompt", "sample_id", "response", "gold", "length")
# One row per exact policy, averaged over evaluation prompts: `kind` is ``optimum`` with `strength` λ of the
# KL-constrained optimum (SD per nat), or a loss with `strength` β of that loss's optimum over all pairs.
EXACT_COLUMNS = ("kind", "strength", "kl", "gold")


@dataclass(frozen=True)
class CheckpointRecord:
    """One evaluation of one cell at one step.

    Units: kl* in nats per sequence; gold in SD units of π_ref's gold scores (π_ref has mean 0); *_se are
    standard errors over the evaluation prompts of this one cell, not over seeds; lengths in tokens.
    """

    schema: int
    cell_id: str
    sweep: str
    world: str
    loss: str
    beta: float
    lr: float
    seed: int
    step: int
    pairs_seen: int
    # On fresh samples of the policy, one per evaluation prompt (temperature 1, no top-k or top-p).
    kl: float  # per-position exact KL(π‖π_ref), summed over the response (Rao–Blackwellised)
    kl_se: float
    kl_k1: float  # sampled log-ratio log π − log π_ref of the same responses
    kl_k1_se: float
    gold: float
    gold_se: float
    gold_raw: float  # the gold model's own scale
    win_rate: float  # against π_ref's sample on the same prompt, ties count 1/2
    win_rate_se: float
    response_tokens: float  # mean, EOS included
    eos_rate: float  # share of responses that ended by themselves
    distinct_2: float  # distinct bigrams / bigrams over all responses
    # On training pairs: mean f(βρ) and gradient norm before clipping, averaged since the last checkpoint;
    # at step 0 of the first batch, without an update.
    train_loss: float
    grad_norm: float
    # On held-out preference pairs from μ.
    held_out_loss: float  # mean f(βρ)
    pair_accuracy: float  # share with ρ > 0, ties count 1/2
    rho_mean: float
    rho_sq_mean: float  # the μ-weighted squared loss
    logp_chosen: float  # policy's log-prob of the chosen response, nats per sequence
    logp_rejected: float
    # Taylor split of held_out_loss at ρ = 0: f(0) + β f'(0) E[ρ] + ½ β² f''(0) E[ρ²] (GPO paper, section 4).
    taylor_constant: float
    taylor_preference: float
    taylor_regularization: float
    # Of the preference data the cell was trained on.
    label_rule: str  # deterministic | bradley_terry
    label_probability: float  # mean probability that the higher gold score is the chosen one
    wall_s: float  # seconds since the cell began
    # Fingerprints (hex digests) and provenance.
    config: str
    gold_model: str
    preferences: str
    reference: str
    git_commit: str
    versions: dict[str, str]

    def to_json(self) -> str:
        """One line of JSON; NaN and infinity are errors, as no finished checkpoint may hold them."""
        return json.dumps(asdict(self), allow_nan=False)


RECORD_KEYS = tuple(field.name for field in fields(CheckpointRecord))


@dataclass(frozen=True)
class CellStatus:
    """State of one cell: ``running``, ``done`` or ``failed`` (then with `error`).

    A failed cell is tried again by the next call, unless it `diverged`: then it would fail the same way again.
    """

    state: str
    cell: str
    attempts: int
    started_at: float  # seconds since the epoch
    updated_at: float
    steps_done: int
    steps_total: int
    host: str
    pid: int
    error: str | None = None
    diverged: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        """Done, or failed in a way that another attempt would repeat."""
        return self.state == "done" or (self.state == "failed" and self.diverged)


class DamagedRecord(ValueError):
    """A record file that cannot be trusted: says which file and line, and what is wrong there."""


RUN_AGAIN = "move the cell's directory away, and the next call runs the cell again"


def append_record(path: Path, record: CheckpointRecord) -> None:
    """Append one record and force it to disk."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(record.to_json() + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_records(path: Path, *, allow_partial: bool = False) -> list[dict[str, Any]]:
    """Read a records.jsonl.

    Args:
        allow_partial: leave out a last line without its line end: a cell that is being written, or was killed.
    Raises:
        DamagedRecord: a line is cut off, is not JSON, holds NaN or infinity, lacks a key or has another schema.
    """
    rows = []
    lines = path.read_bytes().split(b"\n")
    if allow_partial:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = _DECODER.decode(line.decode("utf-8"))
        except ValueError as error:  # of JSON, or of UTF-8
            raise DamagedRecord(f"{path}:{number}: not a complete JSON line ({error}); {RUN_AGAIN}") from error
        if not isinstance(row, dict) or row.get("schema") != SCHEMA_VERSION:
            seen = row.get("schema") if isinstance(row, dict) else type(row).__name__
            raise DamagedRecord(f"{path}:{number}: schema {seen!r}, this version reads {SCHEMA_VERSION}")
        missing = [key for key in RECORD_KEYS if key not in row]
        if missing:
            raise DamagedRecord(f"{path}:{number}: missing {', '.join(missing)}")
        rows.append(row)
    return rows


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of a finished checkpoint")


# One decoder for all lines: json.loads would build one per line, a third of the time of reading a large sweep.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` does; NaN and infinity are errors."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text under a temporary name and rename, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_status(cell_dir: Path, status: CellStatus) -> None:
    """Write status.json atomically."""
    write_json(cell_dir / STATUS_FILE, asdict(status))


def read_status(cell_dir: Path) -> CellStatus | None:
    """Read status.json; None when the cell was never started.

    Raises:
        DamagedRecord: the file is not a status of this version.
    """
    path = cell_dir / STATUS_FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return CellStatus(**{**values, "warnings": tuple(values.get("warnings", ()))})
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise DamagedRecord(f"{path}: not a cell status ({error}); {RUN_AGAIN}") from error
