"""Records survive the round trip; whatever cannot be trusted is refused by file and line."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from bench import records
from bench.records import CellStatus, CheckpointRecord, DamagedRecord

# A plausible value of every type a record holds.
VALUES = {int: 3, float: 0.1, str: "x", dict[str, str]: {"torch": "2.13.0"}}


def record(**changes: object) -> CheckpointRecord:
    values = {field.name: VALUES[field.type] for field in dataclasses.fields(CheckpointRecord)}
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
            "gold_model", "preferences", "git_commit", "versions"} <= set(records.RECORD_KEYS)  # fmt: skip


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


@pytest.mark.parametrize("text", ['{"state": "do', "[]", "{}", '{"state": "done", "unknown": 1}'])
def test_a_damaged_status_is_refused_by_name(tmp_path, text):
    (tmp_path / records.STATUS_FILE).write_text(text)
    with pytest.raises(DamagedRecord, match=r"status\.json: not a cell status"):
        records.read_status(tmp_path)


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
