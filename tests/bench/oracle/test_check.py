"""Cells of the oracle world through the whole pipeline, and their records against exact values."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from running import prepared_for
from running import run as run_cell

from bench.cells.cell import Cell
from bench.cells.evaluation import evaluate_held_out
from bench.cells.inputs import InputCache, training_pairs
from bench.cells.run import run_cell as run_one
from bench.checked import ConfigError
from bench.config import (
    CellConfig,
    EvaluationConfig,
    LabelsConfig,
    OptimConfig,
    PairsConfig,
    TrackingConfig,
    WorldConfig,
)
from bench.data.pairs import PreferencePairs
from bench.losses import resolve_loss
from bench.methods import METHODS, TrainingInputs
from bench.methods.objective import Objective
from bench.oracle import check as oracle_check
from bench.oracle.exact import tilted
from bench.oracle.population import implicit_reward, pair_probabilities
from bench.policies.kl import SequenceKL
from bench.policies.policy import Policy
from bench.policies.sampling import draw_tokens
from bench.policies.scoring import sequence_kl
from bench.records import EXACT_COLUMNS, EXACT_FILE, RECORDS_FILE, read_records
from bench.sections import WandbConfig
from bench.sweep.plan import write_plan
from bench.sweep.preparing import prepare

WORLD = {"policy": "tabular", "tokens": 4, "length": 2, "contexts": 2, "prompts": 256, "seed": 0}
SAMPLE = Policy.sample
CELLS = [("logistic", 0.5), ("squared", 0.3), ("hinge", 0.5)]


def config_of(root, loss: str, beta: float, **world) -> CellConfig:
    params = {**WORLD, **world}
    return CellConfig(
        world=WorldConfig("oracle", "oracle", params["length"], params), sweep="oracle", loss=loss, beta=beta,
        optim=OptimConfig(lr=0.05, steps=120, batch_pairs=256, warmup_steps=5),
        labels=LabelsConfig(rule="bradley_terry", temperature=0.7),
        pairs=PairsConfig(pool=12288, per_cell=8192, held_out=256),
        evaluation=EvaluationConfig(prompts=256, checkpoints=2, reference_samples=16),
        tracking=TrackingConfig(WandbConfig("disabled")), device="cpu", save="final",
        runs_dir=str(root / "runs"), artifacts_dir=str(root / "artifacts"),
    )  # fmt: skip


def run(config: CellConfig) -> Cell:
    cell = Cell.of(config)
    status = run_cell(cell)
    assert status.state == "done", status.error
    return cell


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three finished cells on the tabular world."""
    root = tmp_path_factory.mktemp("oracle")
    cells = [run(config_of(root, loss, beta)) for loss, beta in CELLS]
    write_plan(cells[0].sweep_dir, cells, {cell.name: prepared_for(cell) for cell in cells}, ["test"], "call")
    return cells


def last_record(cell: Cell) -> dict:
    return read_records(cell.directory / RECORDS_FILE)[-1]


@pytest.mark.parametrize("index", range(len(CELLS)), ids=[loss for loss, _ in CELLS])
def test_records_are_estimates_of_exact_values(sweep, index):
    """Train once more with the same seeds, which gives the same policy, and enumerate what it does."""
    config = sweep[index].config
    prepared = prepare(config)
    shared = InputCache().shared(prepared, config)
    policy = shared.reference.trainable()
    trainer = METHODS["gpo"].trainer(
        TrainingInputs(config, policy, training_pairs(shared.pool, config), shared.train_prompts, shared.labeller)
    )
    losses = [trainer.step().loss for _ in range(config.optim.steps)]
    record = last_record(sweep[index])
    assert np.mean(losses[60:]) == pytest.approx(record["train_loss"], rel=1e-5)

    world = oracle_check.load_exact_world(config, prepared)
    with torch.no_grad():
        log_policy = world.logprobs(policy)
    pairs = pair_probabilities(world, config.labels)
    log_ratio = log_policy - world.log_reference
    rho = log_ratio[:, :, None] - log_ratio[:, None, :]
    mean, square, fourth = (float((pairs * rho**power).sum()) for power in (1, 2, 4))
    held_out = config.pairs.held_out
    exact = {
        "kl": (world.mean(world.kl(log_policy)), record["kl_se"]),
        "kl_k1": (world.mean(world.kl(log_policy)), record["kl_k1_se"]),
        "gold": (world.mean(world.expected_gold(log_policy)), record["gold_se"]),
        "rho_mean": (mean, ((square - mean**2) / held_out) ** 0.5),
        "rho_sq_mean": (square, ((fourth - square**2) / held_out) ** 0.5),
    }
    for key, (value, se) in exact.items():
        assert abs(record[key] - value) < 4 * se, key
    assert record["kl"] > 0.2
    assert record["gold"] > 0.3


@pytest.mark.parametrize("index", range(len(CELLS)), ids=[loss for loss, _ in CELLS])
def test_sampled_training_comes_near_the_population_optimum(sweep, index):
    config = sweep[index].config
    world = oracle_check.load_exact_world(config, prepare(config))
    reward = implicit_reward(pair_probabilities(world, config.labels), resolve_loss(config.loss))
    optimum = tilted(world, reward, config.beta)
    record = last_record(sweep[index])
    assert record["kl"] == pytest.approx(world.mean(world.kl(optimum)), rel=0.3)
    assert record["gold"] == pytest.approx(world.mean(world.expected_gold(optimum)), abs=0.15)


def test_check_writes_exact_frontiers_and_finds_nothing_above_them(sweep, tmp_path):
    sweep_dir = sweep[0].sweep_dir
    console = Console(file=(tmp_path / "out.txt").open("w", encoding="utf-8"), width=160)
    assert oracle_check.check_sweep(sweep_dir, console) == 0
    console.file.close()
    exact = pd.read_parquet(sweep_dir / EXACT_FILE)
    assert tuple(exact.columns) == EXACT_COLUMNS
    assert set(exact["kind"]) == {"optimum", "logistic", "squared", "hinge"}
    ceiling = exact[exact["kind"] == "optimum"]
    assert (ceiling.sort_values("kl")["gold"].diff().dropna() >= -1e-9).all()
    # logistic's optimum is π* at λ = β · temperature.
    of_logistic = exact[exact["kind"] == "logistic"]
    assert 0.5 in of_logistic["strength"].tolist()
    kl, gold = ceiling.sort_values("kl")[["kl", "gold"]].to_numpy().T
    np.testing.assert_allclose(of_logistic["gold"], np.interp(of_logistic["kl"], kl, gold), atol=1e-3)
    text = (tmp_path / "out.txt").read_text(encoding="utf-8")
    assert "2 contexts × 13 responses; of 9 checkpoints" in text
    assert "3 saved policies enumerated: nothing wrong" in text


def scaled(kl_factor=1.0, k1_factor=None):
    def measure(*args, **settings):
        kl = sequence_kl(*args, **settings)
        k1_scale = kl_factor if k1_factor is None else k1_factor
        return SequenceKL(kl.exact_per_position * kl_factor, kl.k1 * k1_scale)

    return ("bench.cells.evaluation.sequence_kl", measure)


def reversed_kl(policy, reference, prompts, responses, **settings):
    return sequence_kl(reference, policy, prompts, responses, **settings)


def without_end(policy, reference, prompts, responses, **settings):
    """The end token is not scored."""
    cut = [ids[:-1] if len(ids) > 1 and policy.ends(ids[-1]) else ids for ids in responses]
    return sequence_kl(policy, reference, prompts, cut, **settings)


def turned(pool, config):
    pairs = training_pairs(pool, config)
    return PreferencePairs(pairs.rejected, pairs.chosen, pairs.ref_logp_rejected, pairs.ref_logp_chosen)


def of_double_beta(loss, beta, *, length_normalized=False):
    return Objective(loss.fn, 2 * beta, length_normalized, 1 / (2 * beta * abs(loss.slope_at_zero)))


def with_wider_rho(policy, pairs, **settings):
    measured = evaluate_held_out(policy, pairs, **settings)
    return measured._replace(rho=1.3 * measured.rho)


SABOTAGES = {
    "KL times 1.3": scaled(1.3),
    "KL times 0.8": scaled(0.8),
    "KL times 1.3, its cross-check as it is": scaled(1.3, 1.0),
    "KL of the reversed direction": ("bench.cells.evaluation.sequence_kl", reversed_kl),
    "sampling at temperature 0.8": (
        "bench.policies.sampling.draw_tokens", lambda logits, uniforms: draw_tokens(logits / 0.8, uniforms),
    ),
    "the end token is not scored": ("bench.cells.evaluation.sequence_kl", without_end),
    "labels turned round": ("bench.cells.training.training_pairs", turned),
    "β doubled in training": ("bench.methods.offline.Objective.scaled", of_double_beta),
    "gold times 1.15": (
        "gold_rm.reward_model.Standardization.apply", lambda scale, raw: 1.15 * (raw - scale.mean) / scale.sd,
    ),
    "ρ of held-out pairs times 1.3": ("bench.cells.measure.evaluate_held_out", with_wider_rho),
    "samples of π_ref in the place of the policy's": (
        "bench.policies.policy.Policy.sample", lambda policy, *args, **kw: SAMPLE(policy.reference(), *args, **kw),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGES)
def test_each_sabotage_is_found(sweep, tmp_path, monkeypatch, name):
    """The world and its data are sound; one cell is trained and measured with the fault, then all is enumerated."""
    prepared = prepared_for(sweep[0])
    cells = [Cell.of(replace(each.config, runs_dir=str(tmp_path))) for each in sweep[:2]]
    with monkeypatch.context() as patch:
        patch.setattr(*SABOTAGES[name])
        cells = [run_here(cell) for cell in cells]
    write_plan(cells[0].sweep_dir, cells, {cell.name: prepared for cell in cells}, ["test"], "call")
    assert oracle_check.check_sweep(cells[0].sweep_dir, Console(quiet=True)) == 1


def test_without_a_saved_policy_the_check_says_so(sweep, tmp_path):
    cell = run_here(Cell.of(replace(sweep[0].config, runs_dir=str(tmp_path), save="none")))
    write_plan(cell.sweep_dir, [cell], {cell.name: prepared_for(cell)}, ["test"], "call")
    with pytest.raises(ConfigError, match=r"no policy is saved.*save=final"):
        oracle_check.check_sweep(cell.sweep_dir, Console(quiet=True))


def run_here(cell: Cell) -> Cell:
    """With a cache of its own: step 0 of a sabotaged cell is not that of others."""
    status = run_one(cell, prepared_for(cell), InputCache())
    assert status.state == "done", status.error
    return cell


def test_excess_counts_both_standard_errors():
    ceiling = pd.DataFrame({"kl": [0.0, 1.0, 2.0], "gold": [0.0, 2.0, 4.0]})
    checkpoints = pd.DataFrame({"kl": [0.5], "kl_se": [0.3], "gold": [2.0], "gold_se": [0.8]})
    # One above the line of slope 2, whose KL error counts twice: 1 / √(0.8² + 0.6²).
    assert oracle_check.excess_in_se(checkpoints, ceiling)[0] == pytest.approx(1.0)


def test_a_transformer_policy_goes_through_the_same_pipeline(tmp_path):
    config = config_of(tmp_path, "logistic", 0.5, policy="transformer")
    sizes = PairsConfig(pool=1024, per_cell=512, held_out=64)
    cell = run(replace(config, pairs=sizes, optim=replace(config.optim, lr=1e-3, steps=40)))
    first, last = (read_records(cell.directory / RECORDS_FILE)[i] for i in (0, -1))
    assert abs(first["kl"]) < 1e-4
    assert last["kl"] > 0.01
    assert last["gold"] > first["gold"]


def test_what_cannot_be_checked_says_why(tmp_path, capsys):
    assert oracle_check.main([str(tmp_path / "nothing")]) == 2
    assert "no cell with records" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="19,531 responses"):
        prepare(config_of(tmp_path, "logistic", 0.5, tokens=6, length=6))
