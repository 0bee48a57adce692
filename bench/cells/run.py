"""One cell from its configuration to its records; judged by what it leaves in its directory."""

import os
import shutil
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout

from bench.cells.evaluation import checkpoint_steps, evaluate_held_out, evaluate_samples
from bench.cells.inputs import CellInputs, load_inputs
from bench.cells.tracking import WANDB_DIR, Tracker
from bench.config import fingerprint_of
from bench.data.prepared import Prepared, prepare
from bench.losses import Loss, resolve_loss
from bench.methods.offline import NonFiniteLoss, Objective, StepMetrics, accumulate_gradient, shuffled_batches, train
from bench.provenance import git_commit, package_versions
from bench.records import (
    ERROR_FILE,
    GPO,
    RECORDS_FILE,
    SAMPLES_FILE,
    SCHEMA_VERSION,
    CellStatus,
    CheckpointRecord,
    append_record,
    read_status,
    write_status,
)
from bench.seeding import generator_for
from bench.sweep.plan import PlannedCell, check_cell_config, write_cell_config

# A policy that is a copy of the reference must measure as one; more than rounding means that sampler and
# scorer, or policy and reference, are not the same computation.
STEP_ZERO_TOLERANCE = 1e-4

LOCK_FILE = ".lock"
OnRecord = Callable[[CheckpointRecord], None]


class CellBusy(RuntimeError):
    """Another process is working on the cell."""


def run_cell(cell: PlannedCell, on_record: OnRecord = lambda record: None) -> CellStatus:
    """Run one cell unless it is finished; failures end up in its status, not in an exception.

    A cell that was interrupted starts again from its beginning, with the same seeds.

    Raises:
        CellBusy: another process holds the cell.
        ConfigError: the directory was made with another configuration.
    """
    cell.directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cell.directory / LOCK_FILE, timeout=0):
            check_cell_config(cell)
            earlier = read_status(cell.directory)
            if earlier is not None and earlier.is_final:
                return earlier
            return _run_locked(cell, 1 if earlier is None else earlier.attempts + 1, on_record)
    except Timeout as error:
        raise CellBusy(f"{cell.name} is being worked on by another process") from error


def _run_locked(cell: PlannedCell, attempts: int, on_record: OnRecord) -> CellStatus:
    _clear(cell.directory)
    write_cell_config(cell.directory, cell.config)
    now = time.time()
    status = CellStatus(
        "running", cell.name, attempts, now, now, 0, cell.config.optim.steps, socket.gethostname(), os.getpid()
    )
    write_status(cell.directory, status)
    run = _Run(cell, status, on_record)
    tracker = Tracker(cell.config, cell.name, cell.directory, run.cell_id)
    exit_code = 1
    try:
        torch.set_num_threads(cell.config.cpu_threads)
        run.execute(tracker)
        status, exit_code = replace(run.status, state="done"), 0
    # Whatever a cell dies of, the sweep goes on; the error is kept with the cell and shown by bench.status.
    except Exception as error:
        (cell.directory / ERROR_FILE).write_text(traceback.format_exc(), encoding="utf-8")
        message = f"{type(error).__name__}: {error}"
        status = replace(run.status, state="failed", error=message, diverged=isinstance(error, NonFiniteLoss))
    finally:
        tracker.finish(exit_code)
    status = replace(status, updated_at=time.time())
    write_status(cell.directory, status)
    return status


def _clear(directory: Path) -> None:
    for name in (RECORDS_FILE, SAMPLES_FILE, ERROR_FILE):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / WANDB_DIR, ignore_errors=True)


@dataclass
class _Run:
    """The moving parts of one attempt at a cell."""

    cell: PlannedCell
    status: CellStatus
    on_record: OnRecord

    @property
    def cell_id(self) -> str:
        config = self.cell.config
        return fingerprint_of([config.sweep, self.cell.name, config.fingerprint])

    def execute(self, tracker: Tracker) -> None:
        config = self.cell.config
        prepared = prepare(config)
        inputs = load_inputs(prepared, config)
        loss = resolve_loss(config.loss)
        objective = Objective(loss.fn, config.beta, config.length_normalized)
        policy = inputs.reference.trainable_copy()
        schedule = checkpoint_steps(config.optim.steps, config.evaluation.checkpoints)
        samples: list[pd.DataFrame] = []

        def checkpoint(step: int, recent: list[StepMetrics]) -> None:
            record, frame = self._measure(step, recent, policy, inputs, loss, prepared)
            append_record(self.cell.directory / RECORDS_FILE, record)
            samples.append(frame)
            tracker.log(record)
            self.on_record(record)
            self.status = replace(self.status, steps_done=step, updated_at=time.time())
            write_status(self.cell.directory, self.status)

        # The first batch, without an update: the loss is f(0) and the gradient norm is the first step's.
        first = next(shuffled_batches(len(inputs.train), config.optim.batch_pairs, self._order()))
        value, norm = accumulate_gradient(policy.model, inputs.train.take(first), objective, config.optim)
        checkpoint(0, [StepMetrics(0, value.item(), norm.item())])
        recent: list[StepMetrics] = []
        for metrics in train(policy.model, inputs.train, objective, config.optim, generator=self._order()):
            recent.append(metrics)
            if metrics.step in schedule:
                checkpoint(metrics.step, recent)
                recent = []
        _write_samples(self.cell.directory / SAMPLES_FILE, pd.concat(samples, ignore_index=True))

    def _order(self) -> torch.Generator:
        return generator_for(self.cell.config.seed, "order")

    def _measure(
        self, step: int, recent: list[StepMetrics], policy, inputs: CellInputs, loss: Loss, prepared: Prepared
    ) -> tuple[CheckpointRecord, pd.DataFrame]:
        config = self.cell.config
        sampled = (
            inputs.start
            if step == 0
            else evaluate_samples(
                policy,
                inputs.reference,
                inputs.gold,
                inputs.standardisation,
                inputs.evaluation,
                step=step,
                max_new_tokens=config.world.max_new_tokens,
                batch_size=config.evaluation.batch_size,
                generator=generator_for(config.seed, "evaluation", step),
            )
        )
        held_out = evaluate_held_out(
            policy.model,
            inputs.evaluation.held_out,
            loss,
            beta=config.beta,
            length_normalized=config.length_normalized,
            batch_size=config.evaluation.batch_size,
        )
        train_loss = sum(m.loss for m in recent) / len(recent)
        measured = {
            **sampled.metrics, **held_out, "train_loss": train_loss,
            "grad_norm": sum(m.grad_norm for m in recent) / len(recent),
        }  # fmt: skip
        _check_finite(step, measured)
        if step == 0:
            _check_step_zero(measured, loss)
        self.status = replace(self.status, warnings=(*self.status.warnings, *sampled.warnings))
        record = CheckpointRecord(
            schema=SCHEMA_VERSION, cell_id=self.cell_id, sweep=config.sweep, world=config.world.name,
            method=GPO, variant=config.loss, strength=config.beta,
            loss=config.loss, beta=config.beta, lr=config.optim.lr, seed=config.seed, step=step,
            pairs_seen=step * config.optim.batch_pairs, label_rule=config.labels.rule,
            label_probability=inputs.label_probability, wall_s=time.time() - self.status.started_at,
            config=config.fingerprint, gold_model=prepared.gold_fingerprint,
            preferences=prepared.preferences.fingerprint, reference=prepared.reference.fingerprint,
            git_commit=git_commit(), versions=package_versions(), **measured,
        )  # fmt: skip
        return record, sampled.samples


def _check_finite(step: int, measured: dict[str, float]) -> None:
    bad = {key: value for key, value in measured.items() if not abs(value) < float("inf")}
    if bad:
        raise NonFiniteLoss(f"step {step}: " + ", ".join(f"{key} = {value}" for key, value in bad.items()))


def _check_step_zero(measured: dict[str, float], loss: Loss) -> None:
    off = {"kl": measured["kl"], "train_loss": measured["train_loss"] - loss.value_at_zero}
    for key, gap in off.items():
        if abs(gap) > STEP_ZERO_TOLERANCE:
            raise RuntimeError(
                f"at step 0 the policy is a copy of π_ref, but {key} is off by {gap:.3g}: the model does not give "
                "the same log-probs in training, evaluation and the preference data"
            )


def _write_samples(path: Path, frame: pd.DataFrame) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        frame.to_parquet(temporary, index=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
