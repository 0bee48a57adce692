"""What a CUDA device must get right: the same losses, draws, log-probs, KL and records as the CPU, up to its rounding.

Run by `make test-gpu` on a machine with CUDA; skipped elsewhere.
"""

import pytest
import torch
from running import prepared_for
from running import run as run_cell
from sweep_process import SweepProcess, state_of
from tiny_models import ARCHITECTURES, tiny_policy

from bench import records
from bench.cells.folder import Stopped
from bench.losses import LOSSES
from bench.policies.load import load_policy
from bench.policies.sampling import draw_tokens
from bench.policies.scoring import sequence_kl
from bench.seeding import uniforms_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
PROMPTS = [[1], [1, 2, 3, 2, 1], [3, 3]] * 100
TOKENS = 6


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_slopes(name):
    values = []
    for device in ("cpu", "cuda"):
        z = torch.linspace(-40, 40, 4001, device=device, requires_grad=True)
        loss = LOSSES[name].fn(z)
        loss.sum().backward()
        values.append((loss.detach().cpu(), z.grad.cpu()))
    for ours, theirs in zip(*values, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


def test_draws_by_inverse_cdf():
    logits = torch.randn(64, 50_000, generator=torch.Generator().manual_seed(0)) * 2
    uniforms = uniforms_for(0, "test", count=64, tokens=1)[:, 0]
    assert (draw_tokens(logits.cuda(), uniforms.cuda()).cpu() == draw_tokens(logits, uniforms)).float().mean() >= 0.98


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sampling_log_probs_and_kl(tmp_path, architecture):
    ours = tiny_policy(tmp_path / "ours", architecture, seed=0, positions=16)
    other = tiny_policy(tmp_path / "other", architecture, seed=1, positions=16)
    theirs, moved = (load_policy(tmp_path / name, device="cuda") for name in ("ours", "other"))
    uniforms = uniforms_for(0, "test", count=len(PROMPTS), tokens=TOKENS)
    responses = ours.sample(PROMPTS, uniforms=uniforms, batch_size=64)
    again = theirs.sample(PROMPTS, uniforms=uniforms, batch_size=7)
    assert sum(a == b for a, b in zip(responses, again, strict=True)) >= 0.98 * len(PROMPTS)
    torch.testing.assert_close(
        theirs.logprobs(PROMPTS, responses), ours.logprobs(PROMPTS, responses), rtol=1e-4, atol=1e-4
    )
    on_cpu, on_gpu = (
        sequence_kl(*pair, PROMPTS, responses, batch_size=50) for pair in ((ours, other), (theirs, moved))
    )
    for cpu, gpu in zip(on_cpu, on_gpu, strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-3, atol=1e-3)
    same = sequence_kl(theirs, theirs.trainable(), PROMPTS, responses, batch_size=64)
    assert same.exact_per_position.abs().max() < 1e-5


@pytest.fixture
def make_cell(tiny_world, tmp_path):
    return lambda sweep, **changes: tiny_world.cell(tmp_path / "runs", {"sweep": sweep, "device": "cuda", **changes})


def rows_of(cell):
    return records.read_records(cell.directory / records.RECORDS_FILE)


def test_a_cell_starts_at_the_reference_and_ends_near_the_cpus(make_cell):
    gpu, cpu = make_cell("gpu", seed=1), make_cell("cpu", seed=1, device="cpu")
    assert [run_cell(cell).state for cell in (gpu, cpu)] == ["done", "done"]
    first = rows_of(gpu)[0]
    assert abs(first["kl"]) < 1e-4
    assert first["train_loss"] == pytest.approx(LOSSES["logistic"].value_at_zero, abs=1e-5)
    for ours, theirs in zip(rows_of(gpu), rows_of(cpu), strict=True):
        assert ours["held_out_loss"] == pytest.approx(theirs["held_out_loss"], rel=0.02)
        assert abs(ours["gold"] - theirs["gold"]) < 4 * theirs["gold_se"]


def test_adapters_in_bfloat16_start_at_the_reference_to_the_bit(make_cell):
    """Both are scored in the same batches, and untrained adapters add 0."""
    cell = make_cell("lora", **{"policy.use_peft": True, "policy.lora_r": 2, "policy.dtype": "bfloat16"})
    assert run_cell(cell).state == "done"
    first, *_, last = rows_of(cell)
    assert (first["kl"], first["rho_mean"], first["rho_sq_mean"]) == (0, 0, 0)
    assert last["kl"] > 0


def test_a_stopped_cell_goes_on(make_cell):
    whole, stopped = make_cell("whole"), make_cell("stopped")
    run_cell(whole)
    asked = iter(range(100))
    with pytest.raises(Stopped):
        run_cell(stopped, stop=lambda: next(asked) >= 3)
    assert run_cell(stopped).state == "done"
    for ours, theirs in zip(rows_of(stopped), rows_of(whole), strict=True):
        assert ours["held_out_loss"] == pytest.approx(theirs["held_out_loss"], rel=1e-4)
    assert prepared_for(stopped) == prepared_for(whole)


@pytest.mark.parametrize("method", ["online", "rloo", "best_of_n"])
def test_every_method_runs_beside_a_proxy(make_cell, method):
    proxy = {"labels.by": "proxy", "proxy.pool": 128, "proxy.pairs": 48, "proxy.held_out": 16, "proxy.steps": 4}
    sizes = {"online.every": 4, "best_of_n.samples": 8, "best_of_n.prompts": 8}
    cell = make_cell(method, method=method, **proxy, **sizes)
    status = run_cell(cell)
    assert status.state == "done", status.error
    last = rows_of(cell)[-1]
    assert last["proxy_se"] > 0
    assert last["kl"] > 0


def test_a_sweep_with_two_workers_on_one_device(tiny_world, tmp_path):
    sweep = SweepProcess(tiny_world, tmp_path / "runs", "device=cuda")
    output = sweep.finish()
    assert sweep.process.returncode == 0, output
    cells = sorted(path.parent for path in sweep.directory.glob("*/status.json"))
    assert [state_of(cell) for cell in cells] == ["done"] * 8
