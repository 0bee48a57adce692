"""Cells that need more memory than there is: what they try, what they say, and that the sweep goes on."""

import re

import pytest
import torch
from running import run

import bench.policies.policy
from bench.cells.memory import words_of
from bench.methods.offline import OfflineTrainer
from bench.records import read_records
from gold_rm.memory import is_out_of_memory

HUGE = 1 << 60  # bytes, more than any address space


def ask_for(count):
    """A tensor of so many bytes, from torch's own allocator."""
    return torch.empty(count, dtype=torch.uint8)


def test_torch_s_own_words_are_recognised():
    with pytest.raises(RuntimeError) as raised:
        ask_for(HUGE)
    assert is_out_of_memory(raised.value)
    assert re.search(rf"{HUGE} bytes.* Peak so far: \d{{3,}} MiB", words_of(raised.value, "cpu"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def sampling_of_at_most(limit, monkeypatch):
    """Have sampling run out of memory above `limit` at once; the batch sizes that were asked for."""
    asked = []
    really = bench.policies.policy.sample_responses

    def sample(policy, prompts, *, uniforms, batch_size):
        asked.append(batch_size)
        if batch_size > limit:
            ask_for(HUGE)
        return really(policy, prompts, uniforms=uniforms, batch_size=batch_size)

    monkeypatch.setattr(bench.policies.policy, "sample_responses", sample)
    return asked


def test_an_evaluation_that_does_not_fit_is_tried_again_with_half_the_batch(tiny_world, tmp_path, monkeypatch):
    changes = {"evaluation.batch_size": 23, "seed": 31}
    fits = run(tiny_world.cell(tmp_path / "fits", {**changes, "evaluation.batch_size": 11}))
    cell = tiny_world.cell(tmp_path / "runs", changes)
    asked = sampling_of_at_most(12, monkeypatch)
    status = run(cell)
    assert (fits.state, status.state) == ("done", "done")
    assert asked[0] == 23
    assert set(asked[1:]) == {11}, "once: the rest of the cell keeps to it"
    (warning,) = status.warnings
    assert "evaluating 23 sequences at once needs more memory than there is (" in warning
    assert str(HUGE) in warning
    assert "from here on it is 11 at once" in warning
    ours, theirs = (
        [
            {k: v for k, v in row.items() if k not in ("wall_s", "cell_id")}
            for row in read_records(path / "records.jsonl")
        ]
        for path in (cell.directory, tmp_path / "fits" / "default" / cell.name.replace("=23", "=11"))
    )
    assert ours == theirs


def test_an_evaluation_that_does_not_fit_by_half_fails_with_what_it_needed(tiny_world, tmp_path, monkeypatch):
    asked = sampling_of_at_most(5, monkeypatch)
    status = run(tiny_world.cell(tmp_path, {"evaluation.batch_size": 23, "seed": 32}))
    assert asked == [23, 11]
    assert status.state == "failed"
    assert "OutOfMemory: evaluating 11 sequences at once needs more memory" in status.error
    assert status.error.endswith("lower evaluation.batch_size or logits_mib")
    assert str(HUGE) in status.error


def test_a_training_step_that_does_not_fit_names_the_setting_that_helps(tiny_world, tmp_path, monkeypatch):
    monkeypatch.setattr(OfflineTrainer, "_gradient", lambda self, step: ask_for(HUGE))
    status = run(tiny_world.cell(tmp_path, {"seed": 33, "optim.micro_batch_pairs": 4}))
    assert status.state == "failed"
    assert "a training step of 8 pairs, 4 at once, needs more memory" in status.error
    assert "lower optim.micro_batch_pairs or logits_mib" in status.error
