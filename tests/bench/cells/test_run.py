"""One cell: the same seed gives the same records, however often it was interrupted; a finished one is left alone."""

import errno
import functools
import os
import re
import socket
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from running import run

import bench.cells.folder
import bench.cells.inputs
import bench.cells.measure
import bench.data.preferences
import bench.data.reference_samples
import bench.methods.offline
from bench import records
from bench.cells.folder import CellBusy
from bench.checked import ConfigError
from bench.claims import try_claim
from bench.losses import LOSSES
from bench.policies.policy import Policy
from bench.records import (
    ERROR_FILE,
    HELD_OUT_FILE,
    RECORDS_FILE,
    SAMPLES_FILE,
    STATUS_FILE,
    TRAINING_FILE,
    CellStatus,
    cell_view,
)
from bench.seeding import generator_for, uniforms_for

STEPS = [0, 4, 8]


@pytest.fixture
def make_cell(tiny_world, tmp_path):
    """A function from changed settings to a cell; `sweep` tells directories of one configuration apart."""

    def make(sweep="default", **changes):
        return tiny_world.cell(tmp_path / "runs", {"sweep": sweep, **changes})

    return make


def rows_of(cell, *, without=("wall_s",)):
    rows = records.read_records(cell.directory / RECORDS_FILE)
    return [{key: value for key, value in row.items() if key not in without} for row in rows]


def samples_of(cell):
    return pd.read_parquet(cell.directory / SAMPLES_FILE)


def snapshot(directory):
    """Content and time of change of every file."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()}


def finished(cell):
    """Run a cell that has to succeed."""
    status = run(cell)
    assert (status.state, status.error) == ("done", None)
    return cell


def test_a_cell_leaves_records_samples_and_a_status(make_cell):
    seen = []
    cell = make_cell(loss="squared", beta=0.3, seed=2)
    status = run(cell, seen.append)
    assert (status.state, status.attempts, status.steps_done, status.steps_total) == ("done", 1, 8, 8)
    assert (status.host, status.pid, status.warnings) == (socket.gethostname(), os.getpid(), ())
    assert records.read_status(cell.directory) == status
    names = {path.name for path in cell.directory.iterdir()}
    assert names == {"config.yaml", RECORDS_FILE, SAMPLES_FILE, HELD_OUT_FILE, STATUS_FILE, TRAINING_FILE}, (
        "no claim is left"
    )

    rows = records.read_records(cell.directory / RECORDS_FILE)
    assert [row["step"] for row in rows] == [each.step for each in seen] == STEPS
    assert [row["pairs_seen"] for row in rows] == [0, 32, 64]
    for row in rows:
        assert (row["loss"], row["beta"], row["lr"], row["seed"], row["world"]) == ("squared", 0.3, 1e-2, 2, "tiny")
        assert row["config"] == cell.config.fingerprint
        assert (row["label_rule"], row["label_probability"]) == ("deterministic", 1.0)
    assert len({(row["cell_id"], row["preferences"], row["gold_model"], row["reference"]) for row in rows}) == 1
    walls = [row["wall_s"] for row in rows]
    assert 0 < walls[0] < walls[1] < walls[2] <= status.updated_at - status.started_at

    samples = samples_of(cell)
    assert tuple(samples.columns) == records.SAMPLE_COLUMNS
    for row, (step, part) in zip(rows, samples.groupby("step"), strict=True):
        assert (row["step"], len(part)) == (step, 24 * (4 if step == 8 else 1))
        assert row["samples_per_prompt"] == len(part) / 24
        for key in ("kl", "kl_k1", "gold"):
            assert row[key] == pytest.approx(part[key].mean())
        assert row["response_tokens"] == part["length"].mean()
    assert rows[-1]["kl"] > 0.1, "the policy has moved"


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_starts_at_f_of_0_and_kl_0_on_the_same_samples(make_cell, name):
    first = rows_of(finished(make_cell(loss=name, **{"optim.steps": 1, "evaluation.checkpoints": 1})))[0]
    loss = LOSSES[name]
    assert first["step"] == 0
    assert abs(first["kl"]) < 1e-4
    assert abs(first["kl_k1"]) < 1e-4
    assert first["train_loss"] == pytest.approx(loss.value_at_zero, abs=1e-5)
    assert first["held_out_loss"] == pytest.approx(loss.value_at_zero, abs=1e-4)
    assert (first["rho_mean"], first["pairs_seen"]) == (pytest.approx(0, abs=1e-4), 0)
    # All start from one gradient of ρ, scaled by β|f'(0)|.
    expected = rows_of(finished(make_cell("other", loss="hinge", **{"optim.steps": 1, "evaluation.checkpoints": 1})))[0]
    assert first["grad_norm"] == pytest.approx(abs(loss.slope_at_zero) * expected["grad_norm"], rel=1e-4)
    assert (first["gold"], first["win_rate"]) == (expected["gold"], expected["win_rate"])


def test_the_same_seed_gives_the_same_records_and_another_does_not(make_cell):
    one, same, other = (finished(make_cell(sweep, seed=seed)) for sweep, seed in (("a", 3), ("b", 3), ("a", 4)))
    names = ("wall_s", "sweep", "cell_id")  # say where the cell is filed
    assert rows_of(one, without=names) == rows_of(same, without=names)
    pd.testing.assert_frame_equal(samples_of(one), samples_of(same))
    assert rows_of(one)[0]["cell_id"] != rows_of(same)[0]["cell_id"]
    for row, another in zip(rows_of(one), rows_of(other), strict=True):
        assert row["gold"] != another["gold"]
        assert row["grad_norm"] != another["grad_norm"]
    first, second = (samples_of(cell).query("step == 0")["response"] for cell in (one, other))
    assert (first != second).mean() > 0.3, "a seed draws its own evaluation samples"
    assert rows_of(one)[0]["preferences"] == rows_of(other)[0]["preferences"], "from one pool"


def test_checkpoints_do_not_change_the_training(make_cell):
    often = finished(make_cell("a", **{"evaluation.checkpoints": 4}))
    rarely = finished(make_cell("b", **{"evaluation.checkpoints": 1}))
    keys = ("kl", "gold", "held_out_loss", "logp_chosen")
    assert [rows_of(often)[-1][key] for key in keys] == [rows_of(rarely)[-1][key] for key in keys]
    assert [row["step"] for row in rows_of(often)] == [0, 1, 2, 4, 8]


def test_micro_batches_and_evaluation_batches_train_the_same_policy(make_cell):
    whole = finished(make_cell())
    pieces = finished(make_cell("pieces", **{"optim.micro_batch_pairs": 3}))
    for row, another in zip(rows_of(whole), rows_of(pieces), strict=True):
        for key in ("kl", "gold", "train_loss", "held_out_loss", "grad_norm"):
            assert another[key] == pytest.approx(row[key], rel=1e-2, abs=1e-4)


class Interrupted(BaseException):
    """Ends a cell as Ctrl-C or SIGTERM would, and as SIGKILL leaves it but for the lock."""


def interrupt_at(step):
    def on_record(record):
        if record.step == step:
            raise Interrupted

    return on_record


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_cell_starts_again_and_ends_as_if_nothing_had_happened(make_cell, step):
    smooth, cell = finished(make_cell("smooth")), make_cell("rough")
    with pytest.raises(Interrupted):
        run(cell, interrupt_at(step))
    assert records.read_status(cell.directory).state == "interrupted"
    with (cell.directory / RECORDS_FILE).open("a") as stream:
        stream.write('{"schema": 1, "cell_id": "half a li')  # as a kill in the middle of a write leaves it
    finished(cell)
    names = ("wall_s", "sweep", "cell_id")
    assert rows_of(cell, without=names) == rows_of(smooth, without=names)
    pd.testing.assert_frame_equal(samples_of(cell), samples_of(smooth))
    assert records.read_status(cell.directory).attempts == 2


def test_a_done_cell_is_left_alone(make_cell):
    cell = finished(make_cell())
    before = snapshot(cell.directory)
    status = run(cell, pytest.fail)
    assert status.state == "done"
    assert snapshot(cell.directory) == before


def diverging(after):
    """A loss that is not a number from its call number `after` on."""
    calls = []

    def fn(z):
        calls.append(z)
        return LOSSES["logistic"].fn(z) * (float("nan") if len(calls) > after else 1)

    return fn


@pytest.fixture
def with_loss(monkeypatch):
    """A function that puts another f in the place of every loss."""

    def put(fn):
        def resolve(name):
            return bench.losses.Loss(name, fn, LOSSES["logistic"].value_at_zero, -0.5, 0.25, True, "", "")

        for module in (bench.cells.measure, bench.methods.offline):
            monkeypatch.setattr(module, "resolve_loss", resolve)

    return put


def test_a_loss_that_is_not_finite_ends_the_cell_with_step_and_values_and_is_not_tried_again(make_cell, with_loss):
    cell = make_cell()
    with_loss(diverging(after=4))  # step 0: a batch and the held-out pairs; then two steps
    status = run(cell)
    assert (status.state, status.diverged, status.is_final) == ("failed", True, True)
    assert status.error == "NonFiniteLoss: step 3: loss nan, gradient norm nan"
    assert [row["step"] for row in rows_of(cell)] == [0]
    assert "NonFiniteLoss: step 3" in (cell.directory / ERROR_FILE).read_text()
    before = snapshot(cell.directory)
    assert run(cell, pytest.fail) == status
    assert snapshot(cell.directory) == before


def test_a_measurement_that_is_not_finite_is_named(make_cell, with_loss):
    with_loss(diverging(after=1))
    status = run(make_cell())
    assert status.error == "NonFiniteLoss: step 0: held_out_loss = nan"


def test_another_failure_is_kept_with_its_traceback_and_tried_again(make_cell, monkeypatch):
    smooth, cell = finished(make_cell("smooth")), make_cell("rough")
    with monkeypatch.context() as patch:
        patch.setattr(bench.cells.measure, "evaluate_held_out", lambda *args, **kwargs: 1 / 0)
        status = run(cell)
    assert (status.state, status.error, status.is_final) == ("failed", "ZeroDivisionError: division by zero", False)
    assert "evaluate_held_out" in (cell.directory / ERROR_FILE).read_text()
    finished(cell)
    assert not (cell.directory / ERROR_FILE).exists()
    assert records.read_status(cell.directory).attempts == 2
    names = ("wall_s", "sweep", "cell_id")
    assert rows_of(cell, without=names) == rows_of(smooth, without=names)


@pytest.mark.parametrize("factor", [1.05, 1.002])
def test_a_policy_that_is_not_the_reference_at_step_0_is_an_error(make_cell, monkeypatch, factor):
    """Such as one with dropout on, or of another dtype; also where KL would hardly show it."""
    original = Policy.trainable

    def moved(self, *settings, **seed):
        policy = original(self, *settings, **seed)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter *= factor
        return policy

    monkeypatch.setattr(Policy, "trainable", moved)
    status = run(make_cell())
    assert status.state == "failed"
    assert re.match(
        r"RuntimeError: at step 0 the policy is a copy of π_ref, but its log-probs of held-out responses are off by "
        r"0\.\d+ nats per token",
        status.error,
    )


def test_rounding_at_step_0_is_no_error_however_large_beta_is(make_cell):
    """(βρ − 1)² is off by 2β of ρ's rounding: at this β by more than any tolerance of the loss would allow."""
    status = run(make_cell(beta=3000.0, loss="squared"))
    assert (status.state, status.error) == ("done", None)


def test_another_configuration_is_refused_and_nothing_is_touched(make_cell):
    cell = finished(make_cell())
    before = snapshot(cell.directory)
    other = replace(cell, config=make_cell(**{"optim.lr": 1e-3}).config)
    with pytest.raises(ConfigError, match=r"optim\.lr: 0\.01 there, 0\.001 now"):
        run(other)
    assert snapshot(cell.directory) == before


def test_a_cell_that_another_process_works_on_is_busy(make_cell):
    cell = make_cell()
    cell.directory.mkdir(parents=True)
    claim = try_claim(cell.directory)
    with claim, pytest.raises(CellBusy, match="is being worked on by another process"):
        run(cell)
    assert records.read_status(cell.directory) is None
    finished(cell)


NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "runs")


def half_a_line(path, record):
    with path.open("a") as stream:
        stream.write(record.to_json()[:100])
    raise NO_SPACE


def half_a_table(frame, path, **kwargs):
    Path(path).write_bytes(b"PAR1")
    raise NO_SPACE


def half_a_text(after):
    """`Path.write_text` that fails once it has been called `after` times."""
    write, calls = Path.write_text, []

    def half(self, text, **kwargs):
        calls.append(self)
        if len(calls) > after:
            write(self, text[: len(text) // 2], **kwargs)
            raise NO_SPACE
        return write(self, text, **kwargs)

    return half


@pytest.mark.parametrize(
    ("where", "what"),
    [((bench.cells.folder, "append_record"), half_a_line), ((pd.DataFrame, "to_parquet"), half_a_table)],
    ids=["records", "samples"],
)
def test_a_full_disk_fails_the_cell_and_the_next_call_succeeds(make_cell, monkeypatch, where, what):
    cell = make_cell()
    finished(make_cell("artifacts are built before the disk is full"))
    with monkeypatch.context() as patch:
        patch.setattr(*where, what)
        status = run(cell)
    assert (status.state, status.is_final) == ("failed", False)
    view = cell_view(cell.sweep_dir, cell.name)
    assert (view.state, "No space left on device" in view.error) == ("failed", True)
    assert [row["step"] for row in rows_of(finished(cell))] == STEPS


# 0: the configuration; 1: the first status; 2: a checkpoint's; 5: the last one.
@pytest.mark.parametrize("after", [0, 1, 2, 5])
def test_a_disk_so_full_that_no_status_can_be_written_is_an_error_and_the_next_call_succeeds(
    make_cell, monkeypatch, after
):
    cell = make_cell()
    finished(make_cell("artifacts are built before the disk is full"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half_a_text(after))
        with pytest.raises(OSError, match="No space left on device"):
            run(cell)
    assert not cell.is_finished
    assert [row["step"] for row in rows_of(finished(cell))] == STEPS


def test_a_folder_that_cannot_be_written_is_an_error_of_its_own(make_cell, monkeypatch):
    """Before there is a status that could keep the error."""
    cell = make_cell()

    def refuse(cell):
        raise PermissionError(errno.EACCES, "Permission denied", "config.yaml")

    with monkeypatch.context() as patch:
        patch.setattr(bench.cells.folder, "write_cell_config", refuse)
        with pytest.raises(PermissionError):
            run(cell)
    assert not list(cell.directory.iterdir())
    finished(cell)


def test_temporary_files_of_a_killed_attempt_are_removed(make_cell):
    cell = make_cell()
    cell.directory.mkdir(parents=True)
    (cell.directory / f".{SAMPLES_FILE}.0123456789abcdef.tmp").write_bytes(b"PAR1")
    finished(cell)
    assert not [path for path in cell.directory.iterdir() if path.name.startswith(".")]


def test_no_two_purposes_share_a_stream_of_random_numbers(make_cell, tiny_world, tmp_path, monkeypatch):
    used: dict[str, set[tuple]] = {}

    def recorded(module, function, seed, *purpose, **size):
        used.setdefault(module, set()).add((seed, *purpose))
        return function(seed, *purpose, **size)

    modules = (
        bench.cells.inputs, bench.methods.offline, bench.data.preferences, bench.data.reference_samples,
    )  # fmt: skip
    for module in modules:
        for function in (generator_for, uniforms_for):
            if hasattr(module, function.__name__):
                counted = functools.partial(recorded, module.__name__, function)
                monkeypatch.setattr(module, function.__name__, counted)
    finished(make_cell(artifacts_dir=str(tmp_path / "artifacts")))
    assert used.keys() == {module.__name__ for module in modules}
    everything = [purpose for purposes in used.values() for purpose in purposes]
    assert len(everything) == len(set(everything))
    assert {purpose[0] for purpose in everything} == {0}


def test_a_status_of_a_crashed_cell_is_not_final(make_cell):
    cell = make_cell()
    cell.directory.mkdir(parents=True)
    records.write_status(cell.directory, CellStatus("running", cell.name, 4, 0.0, 0.0, 3, 8, "elsewhere", 1))
    finished(cell)
    assert records.read_status(cell.directory).attempts == 5
