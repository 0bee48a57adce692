"""Records survive the round trip; whatever cannot be trusted is refused by file and line."""

import dataclasses
import errno
import json
import math
import os
from pathlib import Path

import pytest

from bench import records
from bench.records import METRICS, CellStatus, CheckpointRecord, DamagedRecord

# A plausible value of every type a record holds.
VALUES = {int: 3, float: 0.1, str: "x", dict: {"torch": "2.13.0"}}
OPTIONAL = [name for name, metric in METRICS.items() if not metric.required]
OLD_SWEEP = Path(__file__).parents[1] / "fixtures" / "sweep_before_variants"


def record(**changes: object) -> CheckpointRecord:
    values = {name: VALUES[metric.kind] for name, metric in METRICS.items()}
    return CheckpointRecord(**{**values, "schema": records.SCHEMA_VERSION, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / records.RECORDS_FILE


def test_round_trip_in_order_and_to_the_last_digit(path):
    written = [record(step=0, kl=0.1 + 0.2), record(step=12, kl=1e-300, loss="my.module:f", world="Größe\n")]
    for each in written:
        records.append_record(path, each)
    assert [CheckpointRecord(**row) for row in records.read_records(path)] == written
    assert len(path.read_text().splitlines()) == 2


def test_the_keys_that_the_analysis_relies_on():
    assert {"cell_id", "loss", "beta", "lr", "seed", "step", "pairs_seen", "kl", "kl_se", "kl_k1", "kl_k1_se", "gold",
            "gold_se", "gold_raw", "win_rate", "win_rate_se", "response_tokens", "eos_rate", "distinct_2", "train_loss",
            "pair_accuracy", "rho_mean", "rho_sq_mean", "logp_chosen", "logp_rejected", "grad_norm", "wall_s", "config",
            "gold_model", "preferences", "git_commit", "versions"} <= METRICS.keys()  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_neither_written_nor_read(path, value):
    records.append_record(path, record())
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.append_record(path, record(kl=value))
    assert len(records.read_records(path)) == 1
    path.write_text(json.dumps(dataclasses.asdict(record(kl=value))) + "\n")
    with pytest.raises(DamagedRecord, match=r"records\.jsonl:1: .*is no number"):
        records.read_records(path)


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_last_line_that_is_cut_off(path, kept):
    records.append_record(path, record(step=0))
    with path.open("a") as stream:
        stream.write(record(step=12).to_json()[:kept])
    with pytest.raises(DamagedRecord, match=r"records\.jsonl:2: not a complete JSON line"):
        records.read_records(path)
    assert [row["step"] for row in records.read_records(path, allow_partial=True)] == [0]


def test_a_damaged_line_in_the_middle_is_refused_even_where_a_partial_end_is_allowed(path):
    path.write_bytes(record().to_json().encode() + b'\n{"sch\n' + record().to_json().encode() + b"\n")
    with pytest.raises(DamagedRecord, match=r":2: not a complete JSON line"):
        records.read_records(path, allow_partial=True)


@pytest.mark.parametrize("line", [b"\0\0\0\0", b'{"schema": 1, "world": "\xff"}'])
def test_bytes_that_are_no_text(path, line):
    path.write_bytes(line + b"\n")
    with pytest.raises(DamagedRecord, match=r":1: not a complete JSON line"):
        records.read_records(path)


def test_missing_keys_are_named(path):
    row = dataclasses.asdict(record())
    del row["kl_se"], row["gold"]
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DamagedRecord, match=r":1: missing kl_se, gold$"):
        records.read_records(path)


@pytest.mark.parametrize(
    ("line", "seen"), [('{"schema": 99}', "99"), ("{}", "None"), ("[1]", "'list'"), ("3", "'int'")]
)
def test_another_schema_is_named(path, line, seen):
    path.write_text(line + "\n")
    with pytest.raises(DamagedRecord, match=rf":1: schema {seen}, this version reads {records.SCHEMA_VERSION}"):
        records.read_records(path)


def test_an_absent_optional_metric_is_nan_or_none(path):
    """As in a sweep from before the metric was added, and for a policy that was trained elsewhere."""
    records.append_record(path, record(**dict.fromkeys(OPTIONAL)))
    assert json.loads(path.read_text()).keys() == {name for name, metric in METRICS.items() if metric.required}
    (row,) = records.read_records(path)
    assert row.keys() == METRICS.keys()
    for name in OPTIONAL:
        assert row[name] is None if METRICS[name].kind in (str, dict) else math.isnan(row[name]), name


def test_a_metric_of_a_later_version_is_kept(path):
    path.write_text(json.dumps({**dataclasses.asdict(record()), "proxy": 0.25}) + "\n")
    assert records.read_records(path)[0]["proxy"] == 0.25


@pytest.mark.parametrize(("key", "value"), [("gold", "0.5"), ("kl", True), ("step", 1.5), ("loss", 3), ("kl_se", None)])
def test_a_value_of_another_type_is_named(path, key, value):
    path.write_text(json.dumps({**dataclasses.asdict(record()), key: value}) + "\n")
    with pytest.raises(DamagedRecord, match=rf":1: {key} = .* is no "):
        records.read_records(path)


def test_every_metric_says_what_it_is():
    for name, metric in METRICS.items():
        assert "" not in (metric.meaning, metric.group), name
        assert metric.kind in (int, float, str, dict), name
    assert METRICS["kl"].unit == METRICS["kl_se"].unit == "nats"
    assert METRICS["gold"].unit == "SD"


def test_a_sweep_from_before_variants_is_read():
    """Written by the version before: no method, variant or strength, no claims, and a plan of rows alone."""
    cell = "loss=squared,beta=0.1,seed=1"
    raw = [json.loads(line) for line in (OLD_SWEEP / cell / records.RECORDS_FILE).read_text().splitlines()]
    rows = records.read_records(OLD_SWEEP / cell / records.RECORDS_FILE)
    assert [{key: row[key] for key in old} for row, old in zip(rows, raw, strict=True)] == raw
    assert {(row["method"], row["variant"], row["strength"]) for row in rows} == {("gpo", "squared", 0.1)}
    plan = records.read_plan(OLD_SWEEP)
    assert {(row["variant"], row["strength"]) for row in plan["cells"]} == {
        (loss, beta) for loss in ("logistic", "squared", "exponential") for beta in (0.1, 1.0)
    }
    states = [records.cell_view(OLD_SWEEP, row["cell"]).state for row in plan["cells"]]
    assert sorted(states) == ["done"] * 9 + ["failed", "interrupted", "missing"]


def test_no_record_yet(path):
    path.write_text("")
    assert records.read_records(path) == records.read_records(path, allow_partial=True) == []


def status(**changes: object) -> CellStatus:
    values = {"state": "running", "cell": "c", "attempts": 1, "started_at": 1.5, "updated_at": 2.5, "steps_done": 0,
              "steps_total": 10, "host": "h", "pid": 1}  # fmt: skip
    return CellStatus(**{**values, **changes})


def test_status_round_trip(tmp_path):
    assert records.read_status(tmp_path) is None
    for each in (status(), status(state="failed", error="ValueError: no\nsecond line", warnings=("kl", "k1"))):
        records.write_status(tmp_path, each)
        assert records.read_status(tmp_path) == each
    assert [file.name for file in tmp_path.iterdir()] == [records.STATUS_FILE], "no temporary file is left"


@pytest.mark.parametrize(
    ("state", "diverged", "final"),
    [("done", False, True), ("failed", True, True), ("failed", False, False), ("running", False, False)],
)
def test_which_cells_are_not_tried_again(state, diverged, final):
    assert status(state=state, diverged=diverged).is_final == final


@pytest.mark.parametrize("text", ['{"state": "do', "[]", "{}", '{"state": "done"}', '{"state": "\xff'])
def test_a_damaged_status_is_refused_by_name(tmp_path, text):
    (tmp_path / records.STATUS_FILE).write_text(text)
    with pytest.raises(DamagedRecord, match=r"status\.json: not a cell status"):
        records.read_status(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps_total", math.nan), ("pid", 1e300), ("attempts", None), ("error", 3), ("call", 7), ("state", ["done"])],
)
def test_a_status_with_a_value_that_cannot_be_is_refused_by_name(tmp_path, key, value):
    (tmp_path / records.STATUS_FILE).write_text(json.dumps(dataclasses.asdict(status()) | {key: value}))
    with pytest.raises(DamagedRecord, match=rf"status\.json: .*{key}"):
        records.read_status(tmp_path)


def test_no_flipped_bit_of_a_status_is_read_as_another_status(tmp_path):
    """Every bit of the file, one after the other."""
    written = status(state="failed", error="ValueError: β = 0.1", files={"records.jsonl": "0123"})
    records.write_status(tmp_path, written)
    path = tmp_path / records.STATUS_FILE
    whole, refused = path.read_bytes(), 0
    for at in range(8 * len(whole)):
        path.write_bytes(whole[: at // 8] + bytes([whole[at // 8] ^ (1 << at % 8)]) + whole[at // 8 + 1 :])
        try:
            assert records.read_status(tmp_path) == written
        except DamagedRecord:
            refused += 1
    # What is left: six letters of "sha256", without which nothing is compared, and capitals that JSON does not tell.
    assert refused > 0.95 * 8 * len(whole)


def test_a_plan_with_another_digit_is_refused_and_one_without_a_checksum_is_read(tmp_path):
    plan = records.empty_plan("s") | {"cells": [PLANNED]}
    records.write_checked_json(tmp_path / "plan.json", plan)
    assert records.read_plan(tmp_path) == plan
    text = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace("0.0005", "0.0007"))
    with pytest.raises(DamagedRecord, match=r"plan\.json: not what was written \(sha256 differs\); move it away"):
        records.read_plan(tmp_path)
    records.write_json(tmp_path / "plan.json", plan)
    assert records.read_plan(tmp_path)["cells"][0]["lr"] == 5e-4


PLANNED = {"cell": "a", "variant": "squared", "strength": 0.1, "seed": 0, "lr": 5e-4}


def write_plan(directory, **changes):
    row = PLANNED | {key: value for key, value in changes.items() if key in PLANNED}
    (directory / "plan.json").write_text(json.dumps({"schema": 1, "cells": [row], **changes}))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        *(("strength", value, "a number above 0") for value in ("0.1", 0, -1.0, math.nan, 1e400, True, None)),
        *(("lr", value, "a number above 0") for value in ("5e-4", 0, [1])),
        *(("seed", value, "an integer from 0") for value in (0.5, "0", -1, 2**63, None)),
        ("variant", 3, "a text"),
    ],
)
def test_a_planned_value_that_cannot_be_is_named_with_what_can(tmp_path, key, value, allowed):
    write_plan(tmp_path)
    assert records.read_plan(tmp_path)["cells"] == [PLANNED]
    write_plan(tmp_path, **{key: value})
    with pytest.raises(DamagedRecord, match=rf"plan\.json: cell 1 \(a\): {key} = .*, must be {allowed}"):
        records.read_plan(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", "..", "/tmp"])
def test_a_planned_cell_is_a_directory_of_the_sweep(tmp_path, name):
    write_plan(tmp_path, cell=name)
    with pytest.raises(DamagedRecord, match=r"plan\.json: cell 1: .* is not the name of a directory"):
        records.read_plan(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("command", "python"), ("jobs", []), ("settings", 3), ("cells", {})])
def test_a_part_of_a_plan_of_another_kind_is_named(tmp_path, key, value):
    write_plan(tmp_path, **{key: value})
    with pytest.raises(DamagedRecord, match=rf"plan\.json: not a plan \({key} = "):
        records.read_plan(tmp_path)


@pytest.mark.parametrize("failing", ["write_text", "replace"])
def test_a_full_disk_leaves_the_old_status_and_no_half_file(tmp_path, monkeypatch, failing):
    records.write_status(tmp_path, status(steps_done=1))

    def full(self: Path, *args: object, **kwargs: object) -> None:
        if failing == "write_text":
            os.close(os.open(self, os.O_CREAT | os.O_WRONLY))
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, failing, full)
        with pytest.raises(OSError, match="No space left on device"):
            records.write_status(tmp_path, status(steps_done=2))
    assert records.read_status(tmp_path) == status(steps_done=1)
    assert [file.name for file in tmp_path.iterdir()] == [records.STATUS_FILE]
