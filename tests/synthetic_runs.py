"""A sweep directory with known truth, written straight from the record schema (no training).

KL of a cell's last checkpoint is ``kl_at_beta_1 / (strength · β)^kl_power``; gold follows Gao's RL form
``√KL (alpha − slope ln √KL)``. Per-prompt noise is shared across cells on the same prompt, and every seed
shifts gold by its own draw, so that the two sources of variance can be told apart.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench import records

STRENGTHS = {"logistic": 0.5, "squared": 1.0, "hinge": 0.7, "exponential": 1.0, "truncated_quadratic": 0.9,
             "savage": 0.5}  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """Parameters of the synthetic sweep."""

    losses: tuple[str, ...] = tuple(STRENGTHS)
    betas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: tuple[int, ...] = (0, 12, 24, 48, 96, 192)
    prompts: int = 64
    alpha: float = 1.2
    slope: float = 0.6
    kl_at_beta_1: float = 0.5
    kl_power: float = 0.8
    seed_sd: float = 0.05
    prompt_sd: float = 0.5
    noise_sd: float = 0.5
    reference_samples: int = 16
    gold_shift: dict[str, float] = field(default_factory=dict)  # loss -> added gold (breaks claim C1)

    def kl(self, loss: str, beta: float, step: int) -> float:
        """True KL in nats at a step."""
        final = self.kl_at_beta_1 / (STRENGTHS[loss] * beta) ** self.kl_power
        return final * (step / self.steps[-1])

    def gold(self, loss: str, kl: float) -> float:
        """True gold at a KL."""
        d = np.sqrt(kl)
        return 0.0 if kl == 0 else float(d * (self.alpha - self.slope * np.log(d))) + self.gold_shift.get(loss, 0.0)


def cell_name(loss: str, beta: float, seed: int) -> str:
    return f"loss={loss},beta={beta:g},seed={seed}"


def write_sweep(sweep_dir: Path, truth: Truth = Truth(), rng_seed: int = 0, with_samples: bool = True) -> Path:
    """Write plan, cells and the reference pool of a finished sweep; returns `sweep_dir`."""
    rng = np.random.default_rng(rng_seed)
    prompts = [f"review {i} :" for i in range(truth.prompts)]
    prompt_effect = rng.normal(0, truth.prompt_sd, truth.prompts)
    sweep_dir.mkdir(parents=True, exist_ok=True)
    cells = [(loss, beta, seed) for loss in truth.losses for beta in truth.betas for seed in truth.seeds]
    planned = []
    for loss, beta, seed in cells:
        name = cell_name(loss, beta, seed)
        identity = {"method": "gpo", "variant": loss, "strength": beta, "loss": loss, "beta": beta}
        planned.append({"cell": name, "config": "c" * 12, **identity, "lr": 5e-4, "seed": seed})
        _write_cell(sweep_dir, name, loss, beta, seed, truth, rng, prompts, prompt_effect, with_samples)
    plan = {"schema": records.SCHEMA_VERSION, "sweep": sweep_dir.name, "command": ["synthetic"], "cells": planned}
    records.write_json(sweep_dir / records.PLAN_FILE, plan)
    _write_reference(sweep_dir, truth, rng, prompts)
    pd.DataFrame({"label_probability": np.ones(100)}).to_parquet(sweep_dir / "labels-p1.parquet")
    return sweep_dir


def _write_reference(sweep_dir: Path, truth: Truth, rng: np.random.Generator, prompts: list[str]) -> None:
    n, k = truth.prompts, truth.reference_samples
    frame = pd.DataFrame({
        "prompt_id": np.repeat(np.arange(n), k),
        "prompt": np.repeat(prompts, k),
        "sample_id": np.tile(np.arange(k), n),
        "response": " the plot was fine .",
        "gold": rng.normal(0, 1, n * k),
        "length": 6,
    })  # fmt: skip
    frame[list(records.REFERENCE_COLUMNS)].to_parquet(sweep_dir / "reference-r1.parquet")


def _write_cell(sweep_dir, name, loss, beta, seed, truth, rng, prompts, prompt_effect, with_samples) -> None:
    seed_effect = rng.normal(0, truth.seed_sd)
    samples, rows = [], []
    for step in truth.steps:
        kl = truth.kl(loss, beta, step)
        mean = truth.gold(loss, kl) + (seed_effect if step else 0.0)
        gold = mean + prompt_effect + rng.normal(0, truth.noise_sd, truth.prompts)
        samples.append(_samples(step, kl, gold, prompts, f" the plot was good {seed} .", rng))
        rows.append(_record(sweep_dir.name, name, loss, beta, seed, step, samples[-1]))
    _write_files(sweep_dir / name, rows, samples if with_samples else [], {"loss": loss, "beta": beta, "seed": seed})


def _samples(step, kl, gold, prompts, response, rng) -> pd.DataFrame:
    n = len(prompts)
    kls = kl * rng.gamma(4.0, 0.25, n)
    return pd.DataFrame({
        "gold_reference": rng.normal(0, 1, n), "step": step, "prompt_id": np.arange(n), "sample_id": 0,
        "prompt": prompts, "response": response, "kl": kls, "kl_k1": kls + rng.normal(0, 0.3, n), "gold": gold,
        "win_share": np.nan, "reference_response": " the plot was fine .", "length": rng.integers(5, 20, n),
        "ended": True,
    })  # fmt: skip


def _write_files(cell_dir, rows, samples, config) -> None:
    cell_dir.mkdir(exist_ok=True)
    (cell_dir / records.RECORDS_FILE).write_text("".join(row.to_json() + "\n" for row in rows))
    if samples:
        pd.concat(samples)[list(records.SAMPLE_COLUMNS)].to_parquet(cell_dir / records.SAMPLES_FILE, index=False)
    steps = rows[-1].step
    status = records.CellStatus("done", cell_dir.name, 1, 1e9, 1e9 + 5, steps, steps, "host", 1)
    records.write_status(cell_dir, status)
    (cell_dir / records.CONFIG_FILE).write_text(json.dumps(config))


def add_external(
    sweep_dir: Path, name: str, *, kl: float, gold: float, prompts: int, strength: float = 1.0, rng_seed: int = 5
) -> str:
    """Add a policy that was trained elsewhere: π_ref at step 0 and one measurement, without anything optional.

    Args:
        kl, gold: true values, nats and SD.
        prompts: of the sweep (`Truth.prompts`).
    Returns:
        The cell's name.
    """
    rng = np.random.default_rng(rng_seed)
    cell, texts = f"variant={name},strength={strength:g},seed=0", [f"review {i} :" for i in range(prompts)]
    identity = {"method": "external", "variant": name, "strength": strength, "seed": 0}
    samples, rows = [], []
    for step, at, mean in ((0, 0.0, 0.0), (1, kl, gold)):
        samples.append(_samples(step, at, mean + rng.normal(0, 0.5, prompts), texts, " the plot was great .", rng))
        rows.append(records.CheckpointRecord(**_measured(sweep_dir.name, cell, step, samples[-1]), **identity))
    _write_files(sweep_dir / cell, rows, samples, identity)
    plan = records.read_plan(sweep_dir)
    plan["cells"].append({"cell": cell, "config": "c" * 12, **identity})
    records.write_json(sweep_dir / records.PLAN_FILE, plan)
    return cell


def _measured(sweep, name, step, samples) -> dict:
    """What every record must hold, but for method, variant, strength and seed."""
    n = len(samples)
    se = {key: float(samples[key].std(ddof=1) / np.sqrt(n)) for key in ("kl", "kl_k1", "gold")}
    wins = (samples["gold"] > samples["gold_reference"]).astype(float)
    return dict(
        schema=records.SCHEMA_VERSION, cell_id=f"{abs(hash((sweep, name))):x}"[:12], sweep=sweep, world="synthetic",
        step=step, kl=float(samples["kl"].mean()), kl_se=se["kl"], kl_k1=float(samples["kl_k1"].mean()),
        kl_k1_se=se["kl_k1"], gold=float(samples["gold"].mean()), gold_se=se["gold"],
        gold_raw=float(samples["gold"].mean() * 2 + 1), win_rate=float(wins.mean()),
        win_rate_se=float(wins.std(ddof=1) / np.sqrt(n)), response_tokens=float(samples["length"].mean()),
        eos_rate=1.0, distinct_2=0.3, wall_s=0.1 * step, config="c" * 12, gold_model="g1", reference="r1",
        git_commit="deadbeef", versions={"torch": "2.13.0"},
    )  # fmt: skip


def _record(sweep, name, loss, beta, seed, step, samples) -> records.CheckpointRecord:
    kl = float(samples["kl"].mean())
    return records.CheckpointRecord(
        **_measured(sweep, name, step, samples),
        method="gpo", variant=loss, strength=beta, loss=loss, beta=beta, lr=5e-4, seed=seed, pairs_seen=32 * step,
        train_loss=0.5, grad_norm=1.0, held_out_loss=0.5, pair_accuracy=0.7,
        samples_per_prompt=1, rho_mean_se=0.01, rho_sq_se=0.02,
        rho_mean=0.4 * np.sqrt(kl), rho_sq_mean=2 * kl, logp_chosen=-20.0, logp_rejected=-21.0,
        taylor_constant=1.0, taylor_preference=-beta * 0.4 * np.sqrt(kl), taylor_regularization=beta**2 * kl,
        label_rule="deterministic", label_probability=1.0, preferences="p1",
    )  # fmt: skip
