"""METRICS: what a checkpoint record holds; one field of `CheckpointRecord` is one metric."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from bench.records.files import LARGEST_INT, RUN_AGAIN, DamagedRecord, require_regular

# Rises only when a key changes its meaning. Metrics come and go without it: an optional one that a record lacks is
# NaN (None for a text), and one that this version does not know is kept.
SCHEMA_VERSION = 1
GPO, ONLINE, RLOO, BEST_OF_N = "gpo", "online", "rloo", "best_of_n"  # methods

IDENTITY, SAMPLES, TRAINING, HELD_OUT, LABELS, PROVENANCE = (
    "identity", "fresh samples", "training", "held-out pairs", "labels", "provenance"
)  # fmt: skip


class Metric(NamedTuple):
    """A key of a checkpoint record.

    Attributes:
        unit: ``nats``, ``SD`` (of π_ref's gold scores), ``tokens``, ``s``, ``share``, or empty.
        group: what it is measured on, or what it says.
        required: a reader needs it; otherwise a record may lack it.
        meaning: one line.
        kind: type of its values.
    """

    unit: str
    group: str
    required: bool
    meaning: str
    kind: type


def _required(group: str, meaning: str, unit: str = "") -> Any:
    return field(metadata={"group": group, "meaning": meaning, "unit": unit})


def _optional(group: str, meaning: str, unit: str = "") -> Any:
    return field(default=None, metadata={"group": group, "meaning": meaning, "unit": unit})


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """One evaluation of one cell at one step.

    `*_se` are standard errors over this cell's prompts (of the means of each prompt's samples) or held-out pairs, not
    over seeds.
    """

    schema: int = _required(IDENTITY, "SCHEMA_VERSION when it was written")
    cell_id: str = _required(IDENTITY, "stable hash of sweep, cell and configuration; the id of its W&B run")
    sweep: str = _required(IDENTITY, "name of the sweep")
    world: str = _required(IDENTITY, "name of the world")
    method: str = _required(IDENTITY, "how the policy was trained: a key of METHODS, or external")
    variant: str = _required(IDENTITY, "what competes on a frontier: a loss, a method and its loss, a policy's name")
    strength: float = _required(IDENTITY, "β, or what the variant is swept over in its place")
    seed: int = _required(IDENTITY, "of the cell's pairs, their order and its samples")
    step: int = _required(IDENTITY, "optimizer steps done")
    loss: str | None = _optional(IDENTITY, "name of f")
    beta: float | None = _optional(IDENTITY, "multiplies ρ inside f")
    lr: float | None = _optional(IDENTITY, "learning rate")
    pairs_seen: int | None = _optional(TRAINING, "training pairs up to this step, repeats included")

    kl: float = _required(SAMPLES, "per-position exact KL(π‖π_ref), summed over the response", "nats")
    kl_se: float = _required(SAMPLES, "its standard error", "nats")
    kl_k1: float = _required(SAMPLES, "sampled log-ratio log π − log π_ref of the same responses", "nats")
    kl_k1_se: float = _required(SAMPLES, "its standard error", "nats")
    gold: float = _required(SAMPLES, "gold reward; π_ref has mean 0", "SD")
    gold_se: float = _required(SAMPLES, "its standard error", "SD")
    proxy: float | None = _optional(SAMPLES, "score of the proxy; π_ref has mean 0 and SD 1", "SD")
    proxy_se: float | None = _optional(SAMPLES, "its standard error", "SD")
    utility: float | None = _optional(SAMPLES, "worth to the world's hidden rater; π_ref has mean 0, SD 1", "SD")
    utility_se: float | None = _optional(SAMPLES, "its standard error", "SD")
    watched: dict[str, float] | None = _optional(SAMPLES, "scores of watched reward models, their errors", "SD")  # noqa: RUF009
    gold_raw: float = _required(SAMPLES, "the gold model's own scale")
    win_rate: float = _required(SAMPLES, "against all of π_ref's samples on the same prompt, ties count 1/2", "share")
    win_rate_se: float = _required(SAMPLES, "its standard error", "share")
    response_tokens: float = _required(SAMPLES, "mean length, EOS included", "tokens")
    eos_rate: float = _required(SAMPLES, "responses that ended by themselves", "share")
    samples_per_prompt: int | None = _optional(SAMPLES, "responses to each evaluation prompt")
    distinct_2: float = _required(
        SAMPLES, "distinct bigrams over all bigrams, one response per prompt at a time", "share"
    )

    samples_drawn: int | None = _optional(TRAINING, "responses sampled for the training so far")
    labels_bought: int | None = _optional(TRAINING, "gold scores behind it: of these responses, or of the proxy's data")
    # Averaged over the steps since the last checkpoint; at step 0 of the first batch, without an update.
    train_loss: float | None = _optional(TRAINING, "mean f(βρ)")
    grad_norm: float | None = _optional(TRAINING, "gradient norm before clipping")

    held_out_loss: float | None = _optional(HELD_OUT, "mean f(βρ)")
    pair_accuracy: float | None = _optional(HELD_OUT, "pairs with ρ > 0, ties count 1/2", "share")
    rho_mean: float | None = _optional(HELD_OUT, "E[ρ]", "nats")
    rho_mean_se: float | None = _optional(HELD_OUT, "its standard error", "nats")
    rho_sq_mean: float | None = _optional(HELD_OUT, "E[ρ²], the μ-weighted squared loss", "nats²")
    rho_sq_se: float | None = _optional(HELD_OUT, "its standard error", "nats²")
    logp_chosen: float | None = _optional(HELD_OUT, "policy's log-prob of the chosen response", "nats")
    logp_rejected: float | None = _optional(HELD_OUT, "policy's log-prob of the rejected response", "nats")
    # Taylor split of held_out_loss at ρ = 0: f(0) + β f'(0) E[ρ] + ½ β² f''(0) E[ρ²] (GPO paper, section 4).
    taylor_constant: float | None = _optional(HELD_OUT, "f(0)")
    taylor_preference: float | None = _optional(HELD_OUT, "β f'(0) E[ρ]")
    taylor_regularization: float | None = _optional(HELD_OUT, "½ β² f''(0) E[ρ²]")

    label_rule: str | None = _optional(LABELS, "deterministic or bradley_terry")
    label_probability: float | None = _optional(LABELS, "mean probability that the higher gold is chosen", "share")
    proxy_agreement: float | None = _optional(LABELS, "held-out pairs that the proxy orders as gold does", "share")
    proxy_calibration: float | None = _optional(
        LABELS, "its mean |stated − observed| on these, on their scale", "share"
    )
    proxy_log_loss: float | None = _optional(LABELS, "its log loss on these, on their scale", "nats")
    parameters: int | None = _optional(PROVENANCE, "of the policy, adapters included")
    trained_parameters: int | None = _optional(PROVENANCE, "of these, those that are trained; 0 of what is not")
    dtype: str | None = _optional(PROVENANCE, "type of the policy's weights; adapters are float32")
    attention: str | None = _optional(PROVENANCE, "what computes the policy's attention, such as sdpa")
    wall_s: float = _required(PROVENANCE, "time spent on the cell so far, over all its attempts", "s")
    config: str = _required(PROVENANCE, "fingerprint of the configuration")
    gold_model: str = _required(PROVENANCE, "fingerprint of the gold model")
    reference: str = _required(PROVENANCE, "fingerprint of π_ref's samples")
    preferences: str | None = _optional(PROVENANCE, "fingerprint of the preference data")
    git_commit: str = _required(PROVENANCE, "commit of this code")
    versions: dict[str, str] = _required(PROVENANCE, "of Python and the libraries that move numbers")  # noqa: RUF009

    def to_json(self) -> str:
        """One line of JSON, without what is absent; NaN and infinity are errors, as no checkpoint may hold them."""
        return json.dumps({k: v for k, v in asdict(self).items() if v is not None}, allow_nan=False)


def _metrics() -> dict[str, Metric]:
    hints = get_type_hints(CheckpointRecord)
    table = {}
    for each in fields(CheckpointRecord):
        hint = hints[each.name]
        optional = type(None) in getattr(hint, "__args__", ())
        kind = hint.__args__[0] if optional else hint
        kind = getattr(kind, "__origin__", kind)
        about = each.metadata
        table[each.name] = Metric(about["unit"], about["group"], not optional, about["meaning"], kind)
    return table


METRICS: dict[str, Metric] = _metrics()
_REQUIRED = tuple(name for name, metric in METRICS.items() if metric.required)
_ABSENT = {
    name: None if metric.kind in (str, dict) else float("nan")
    for name, metric in METRICS.items()
    if not metric.required
}
_POSITIVE = ("strength", "beta")
_TYPES = {name: (int, float) if metric.kind is float else (metric.kind,) for name, metric in METRICS.items()}


def append_record(path: Path, record: CheckpointRecord) -> None:
    """Append one record and force it to disk."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(record.to_json() + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_records(path: Path, *, allow_partial: bool = False) -> list[dict[str, Any]]:
    """Read a records.jsonl.

    Every row has every key of METRICS, absent optional ones as NaN or None; records of sweeps that knew one method
    only get their `method`, `variant` and `strength`.

    Args:
        allow_partial: leave out a last line without its line end: a cell that is being written, or was killed.
    Raises:
        DamagedRecord: a line is cut off, is not JSON, holds NaN or infinity, lacks a required key, has a value of the
            wrong type or out of range, or another schema.
    """
    rows = []
    require_regular(path)
    lines = path.read_bytes().split(b"\n")
    if allow_partial:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = _DECODER.decode(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # of JSON, or of UTF-8
            raise DamagedRecord(f"{path}:{number}: not a complete JSON line ({error}); {RUN_AGAIN}") from error
        rows.append(_checked(row, f"{path}:{number}"))
    return rows


def _checked(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or row.get("schema") != SCHEMA_VERSION:
        seen = row.get("schema") if isinstance(row, dict) else type(row).__name__
        raise DamagedRecord(f"{where}: schema {seen!r}, this version reads {SCHEMA_VERSION}")
    if "variant" not in row and "loss" in row and "beta" in row:
        row = {**row, "method": GPO, "variant": row["loss"], "strength": row["beta"]}
    missing = [key for key in _REQUIRED if key not in row]
    if missing:
        raise DamagedRecord(f"{where}: missing {', '.join(missing)}")
    for key, value in row.items():
        if key in _TYPES and (not isinstance(value, _TYPES[key]) or isinstance(value, bool)):
            raise DamagedRecord(f"{where}: {key} = {value!r:.80} is no {METRICS[key].kind.__name__}; {RUN_AGAIN}")
        if isinstance(value, int) and abs(value) >= LARGEST_INT:
            raise DamagedRecord(f"{where}: {key} has {value.bit_length()} bits, 63 can be; {RUN_AGAIN}")
        if key in _POSITIVE and value <= 0:
            raise DamagedRecord(f"{where}: {key} = {value!r} is not above 0; {RUN_AGAIN}")
    return _ABSENT | row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of a finished checkpoint")


# One decoder for all lines: json.loads would build one per line, a third of the time of reading a large sweep.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
