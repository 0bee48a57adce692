"""Cells that train adapters on bfloat16 weights: by settings alone, from 0 at step 0, resumed to the bit."""

import math

import pandas as pd
import pytest
import torch
from running import CACHE, prepared_for, run
from safetensors import safe_open

from bench import records
from bench.cells.again import saved_policies
from bench.cells.inputs import evaluation_uniforms
from bench.cells.run import Stopped
from bench.policies.directories import is_adapter
from bench.policies.memory import forget_peak, peak_memory_mib
from bench.records import RECORDS_FILE, SAMPLES_FILE

LORA = {"policy.use_peft": True, "policy.lora_r": 2, "policy.dtype": "bfloat16", "optim.lr": 5e-2}


@pytest.fixture
def make_cell(tiny_world, tmp_path):
    def make(sweep="default", **changes):
        return tiny_world.cell(tmp_path / "runs", {"sweep": sweep, **LORA, **changes})

    return make


def rows_of(cell, *, without=("wall_s", "sweep", "cell_id")):
    rows = records.read_records(cell.directory / RECORDS_FILE)
    return [{key: value for key, value in row.items() if key not in without} for row in rows]


@pytest.mark.parametrize("method", ["gpo", "online", "rloo"])
def test_step_0_is_pi_ref_to_the_bit_and_training_goes_away_from_it(make_cell, method):
    cell = make_cell(method=method, **{"online.every": 4} if method == "online" else {})
    assert run(cell).error is None
    first, *_, last = records.read_records(cell.directory / RECORDS_FILE)
    assert first["kl"] == first["kl_k1"] == first["rho_sq_mean"] == 0
    if method != "rloo":
        assert first["held_out_loss"] == pytest.approx(math.log(2), abs=1e-7)
        assert first["train_loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert last["kl"] > 1e-3
    assert last["rho_sq_mean"] > 0


def test_a_cell_that_was_stopped_goes_on_to_the_bit(make_cell):
    smooth, stopped = make_cell(), make_cell("stopped", **{"resume.every": 1})
    assert run(smooth).state == "done"
    asked: list[int] = []
    with pytest.raises(Stopped):
        run(stopped, stop=lambda: asked.append(1) or len(asked) > 5)
    assert run(stopped).state == "done"
    assert rows_of(smooth) == rows_of(stopped)


def test_adapters_alone_are_saved_and_are_the_policy_that_was_measured(make_cell):
    cell = make_cell(save="final")
    assert run(cell).state == "done"
    (saved,) = saved_policies([cell])
    assert is_adapter(saved.directory)
    with safe_open(saved.directory / "adapter_model.safetensors", "pt") as weights:
        # GPT-2's four linear maps of each of two layers, 8 wide, rank 2: 2 · (in + out) numbers each.
        sizes = [math.prod(weights.get_slice(name).get_shape()) for name in weights.keys()]  # noqa: SIM118
    assert sum(sizes) == 2 * 2 * ((8 + 24) + (8 + 8) + (8 + 32) + (32 + 8))
    shared = CACHE.shared(prepared_for(cell), cell.config)
    policy = saved.load(shared.reference, device="cpu")
    assert policy.reference() is shared.reference
    samples = pd.read_parquet(cell.directory / SAMPLES_FILE).query("step == 8 and sample_id == 0")
    uniforms = evaluation_uniforms(cell.config, 8)
    again = policy.sample(shared.evaluation.prompt_ids, uniforms=uniforms[: len(samples)], batch_size=24)
    assert policy.decode(again) == samples["response"].tolist()


def test_seeds_draw_adapters_of_their_own(make_cell):
    rows = []
    for seed in (0, 1):
        cell = make_cell(seed=seed)
        assert run(cell).state == "done"
        rows.append(rows_of(cell)[-1]["kl"])
    assert rows[0] != rows[1]


def test_data_is_sampled_and_scored_in_the_dtype_of_the_cells(make_cell, tiny_world, tmp_path):
    in_bfloat16, adapters, whole = (
        prepared_for(cell)
        for cell in (make_cell(), make_cell(**{"policy.dtype": "float32"}), tiny_world.cell(tmp_path / "runs"))
    )
    assert adapters == whole, "adapters that are not trained yet move nothing"
    assert in_bfloat16.world == whole.world
    for part in ("reference", "preferences"):
        assert getattr(in_bfloat16, part).fingerprint != getattr(whole, part).fingerprint


def test_records_say_what_was_trained_and_the_status_how_much_memory_it_took(make_cell, tiny_world, tmp_path):
    # GPT-2 with 9 tokens, 12 positions, 2 layers, 8 wide: embeddings, per layer two norms, attention and MLP, a norm.
    layer = 2 * 16 + (8 * 24 + 24) + (8 * 8 + 8) + (8 * 32 + 32) + (32 * 8 + 8)
    whole, adapters = 9 * 8 + 12 * 8 + 2 * layer + 16, 2 * 2 * ((8 + 24) + (8 + 8) + (8 + 32) + (32 + 8))
    for cell, trained, total, dtype in (
        (make_cell(), adapters, whole + adapters, "bfloat16"),
        (tiny_world.cell(tmp_path / "runs", {"sweep": "whole"}), whole, whole, "float32"),
    ):
        status = run(cell)
        assert status.state == "done"
        for row in rows_of(cell):
            assert (row["trained_parameters"], row["parameters"]) == (trained, total)
            assert (row["dtype"], row["attention"]) == (dtype, "sdpa")
        assert status.peak_memory_mib is not None
        assert 100 < status.peak_memory_mib < 10_000, "Python with torch takes more than 100 MiB"


def test_the_peak_of_memory_is_that_since_it_was_asked_for():
    forget_peak("cpu")
    before = peak_memory_mib("cpu")
    block = torch.ones(64 * 2**20, dtype=torch.uint8)
    assert peak_memory_mib("cpu") >= before + 50
    del block
    forget_peak("cpu")
    assert peak_memory_mib("cpu") < before + 50
