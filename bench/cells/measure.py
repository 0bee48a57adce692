"""One checkpoint of one cell: everything measured, checked, and made into a record."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch

from bench.cells.cell import Cell
from bench.cells.evaluation import (
    SampleEvaluation,
    evaluate_held_out,
    evaluate_samples,
    held_out_metrics,
    held_out_table,
)
from bench.cells.inputs import InputCache, Start, evaluation_uniforms
from bench.data.pairs import PairLogProbs, measure_pairs
from bench.data.prepared import Prepared
from bench.losses import Loss, resolve_loss
from bench.methods.trainer import NonFiniteLoss
from bench.policies.policy import Policy
from bench.provenance import git_commit, package_versions
from bench.records import BEST_OF_N, SCHEMA_VERSION, CheckpointRecord, StepMetrics
from bench.sections import GOLD

# At step 0 the policy is a copy of π_ref: its log-probs of held-out responses are those in the preference data, up to
# the rounding of float32 in other batches. In nats per token, as rounding grows with the length; not of f(βρ), which
# would make it grow with β.
COPY_TOLERANCE = 1e-4
_COPIED_PAIRS = 32


class Checkpoint(NamedTuple):
    """A record, its samples (SAMPLE_COLUMNS), ρ of its held-out pairs (HELD_OUT_COLUMNS), and what looked wrong."""

    record: CheckpointRecord
    samples: pd.DataFrame
    held_out: pd.DataFrame
    warnings: list[str]


class Measurement:
    """Measures the policy of one cell at any of its steps."""

    def __init__(self, cell: Cell, prepared: Prepared, cache: InputCache) -> None:
        self._cell, self._prepared, self._cache = cell, prepared, cache
        self._shared = cache.shared(prepared, cell.config)
        # Not every method has one, and that of an imported policy is not ours to know.
        self._loss: Loss | None = resolve_loss(cell.config.loss) if cell.config.has_loss else None

    def at(
        self,
        step: int,
        policy: Policy,
        recent: Sequence[StepMetrics],
        *,
        wall_s: float,
        samples_drawn: int | None = None,
    ) -> Checkpoint:
        """Measure `policy` after `step` steps.

        Args:
            recent: training steps since the last checkpoint; none for a policy that was trained elsewhere.
            samples_drawn: responses sampled for the training so far.
            wall_s: seconds spent on the cell so far.
        Raises:
            NonFiniteLoss: a measurement is NaN or infinite.
            RuntimeError: at step 0, the policy does not measure as the copy of π_ref that it is.
        """
        config = self._cell.config
        start = self._cache.start(self._prepared, config) if step == 0 else None
        sampled, on_pairs = start or Start(self._sample(step, policy), self._on_pairs(policy))
        measured = {**sampled.metrics, **held_out_metrics(on_pairs, self._loss, config.beta)}
        if recent:
            measured["train_loss"] = sum(each.loss for each in recent) / len(recent)
            measured["grad_norm"] = sum(each.grad_norm for each in recent) / len(recent)
        if samples_drawn is not None:
            measured |= {"samples_drawn": samples_drawn, "labels_bought": self._labels_bought(samples_drawn)}
        _check_finite(step, measured)
        measured |= policy.facts
        if step == 0:
            self._check_copy(policy)
        return Checkpoint(
            self.record(step, measured, wall_s), sampled.samples, held_out_table(step, on_pairs), sampled.warnings
        )

    def _check_copy(self, policy: Policy) -> None:
        pairs = self._shared.evaluation.held_out
        pairs = pairs.take(torch.arange(min(_COPIED_PAIRS, len(pairs))))
        ours = measure_pairs(policy, pairs, length_normalized=False, batch_size=_COPIED_PAIRS)
        theirs = (pairs.ref_logp_chosen, pairs.ref_logp_rejected)
        # There, ρ is against π_ref in the same batches (bench.data.pairs): a copy is equal to the bit.
        if not policy.is_float32:
            reference = policy.reference()
            theirs = measure_pairs(reference, pairs, length_normalized=False, batch_size=_COPIED_PAIRS)[:2]
        for side, logps, expected in zip((pairs.chosen, pairs.rejected), ours[:2], theirs, strict=True):
            gap = (logps - expected).abs() / side.response_mask.sum(1).clamp(min=1)
            if not (worst := float(gap.max())) <= COPY_TOLERANCE:
                raise RuntimeError(
                    f"at step 0 the policy is a copy of π_ref, but its log-probs of held-out responses are off by "
                    f"{worst:.3g} nats per token: the model does not give the same log-probs in training, evaluation "
                    "and the preference data"
                )

    def _sample(self, step: int, policy: Policy) -> SampleEvaluation:
        config, shared = self._cell.config, self._shared
        return evaluate_samples(
            policy,
            shared.gold,
            shared.standardization,
            shared.evaluation,
            judges=shared.judges,
            step=step,
            uniforms=evaluation_uniforms(config, step),
            batch_size=config.evaluation.batch_size,
        )

    def _on_pairs(self, policy: Policy) -> PairLogProbs:
        return evaluate_held_out(
            policy,
            self._shared.evaluation.held_out,
            length_normalized=self._cell.config.length_normalized,
            batch_size=self._cell.config.evaluation.batch_size,
        )

    def _labels_bought(self, samples_drawn: int) -> int:
        """Gold scores behind the training: of what was sampled, or of the comparisons that the proxy was fitted to."""
        config = self._cell.config
        return samples_drawn if config.labels.by == GOLD else 2 * config.proxy.pairs

    def record(
        self, step: int, measured: dict[str, Any], wall_s: float, *, strength: float | None = None
    ) -> CheckpointRecord:
        """The record of what was measured; `strength` where checkpoints of one cell differ in it."""
        config = self._cell.config
        proxy = self._shared.proxy
        trained, paired = config.external is None and config.method != BEST_OF_N, config.has_loss
        return CheckpointRecord(
            schema=SCHEMA_VERSION, cell_id=self._cell.id, sweep=config.sweep, world=config.world.name,
            method=config.method, variant=config.variant, strength=strength or config.strength, seed=config.seed,
            step=step, loss=config.loss if paired else None, beta=config.beta if trained else None,
            lr=config.optim.lr if trained else None, pairs_seen=step * config.optim.batch_pairs if paired else None,
            label_rule=config.labels.rule, label_probability=self._shared.label_probability,
            proxy_agreement=proxy.get("agreement"), proxy_calibration=proxy.get("calibration_error"),
            proxy_log_loss=proxy.get("log_loss"), wall_s=wall_s,
            config=config.fingerprint, gold_model=self._prepared.gold.fingerprint,
            preferences=self._prepared.preferences.fingerprint, reference=self._prepared.reference.fingerprint,
            git_commit=git_commit(), versions=package_versions(), **measured,
        )  # fmt: skip


def _check_finite(step: int, measured: dict[str, Any]) -> None:
    flat = {**measured, **measured.get("watched", {})}
    bad = {k: value for k, value in flat.items() if not isinstance(value, dict) and not abs(value) < float("inf")}
    if bad:
        raise NonFiniteLoss(f"step {step}: " + ", ".join(f"{key} = {value}" for key, value in bad.items()))
