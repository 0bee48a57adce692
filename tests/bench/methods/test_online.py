"""Online pairs: Theorem 1 by enumeration, whose pairs they are, and that a cell goes on to the last bit."""

import itertools

import numpy as np
import pytest
import torch
from oracle_worlds import build_small_world
from running import CACHE, prepared_for, run

from bench.cells.inputs import training_pairs
from bench.cells.run import Stopped
from bench.methods import METHODS, TrainingInputs
from bench.methods.offline import OfflineTrainer
from bench.methods.online import NothingToCompare, OnlineTrainer
from bench.records import read_records


def test_on_its_own_samples_the_squared_regularizer_pulls_twice_as_the_kl(tmp_path):
    """∇ ½ E[ρ²] = 2 ∇ KL(π‖π_ref) where pairs come from π itself, held fixed; on π_ref's samples it is another."""
    small = build_small_world(tmp_path)
    policy, world, context = small.moved(), small.world, 0
    pairs = torch.tensor(list(itertools.product(range(len(world.responses)), repeat=2)))

    def gradient(value):
        policy.zero_grad()
        value.backward()
        return torch.cat([parameter.grad.flatten().double() for parameter in policy.parameters()])

    def regularizer(log_sampler):
        ratio = world.logprobs(policy)[context] - world.log_reference[context]
        rho = ratio[pairs[:, 0]] - ratio[pairs[:, 1]]
        return (log_sampler[pairs].sum(1).exp() * rho.square() / 2).sum()

    own = world.logprobs(policy).detach()[context]
    logp = world.logprobs(policy)[context]
    of_kl = gradient((logp.exp() * (logp - world.log_reference[context])).sum())
    on_policy, off_policy = gradient(regularizer(own)), gradient(regularizer(world.log_reference[context]))
    assert torch.allclose(on_policy, 2 * of_kl, atol=1e-5 * float(of_kl.norm()))
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(on_policy, of_kl, dim=0) > 0.99999 > cosine(off_policy, of_kl, dim=0)


@pytest.fixture
def make(tiny_world, tmp_path):
    """A function from changes to a cell's trainer, its policy and what they share."""

    def trainer(**changes):
        cell = tiny_world.cell(tmp_path, {"method": "online", **changes})
        shared = CACHE.shared(prepared_for(cell), cell.config)
        policy = shared.reference.trainable()
        pairs = training_pairs(shared.pool, cell.config)
        inputs = TrainingInputs(cell.config, policy, pairs, shared.train_prompts, shared.labeller)
        return METHODS["online"].trainer(inputs), policy, shared

    return trainer


def test_without_new_pairs_it_is_offline_gpo(make):
    trainer, policy, _ = make()
    assert type(trainer) is OfflineTrainer
    offline, other, _ = make(**{"method": "gpo"})
    for _ in range(8):
        assert trainer.step() == offline.step()
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), other.parameters(), strict=True))


def test_pairs_are_the_policys_own_and_ordered_by_the_labeller(make):
    trainer, policy, shared = make(**{"online.every": 4})
    assert isinstance(trainer, OnlineTrainer)
    trainer.step()
    pairs = trainer._pairs
    assert len(pairs) == 4 * 8
    scores, prompts = {}, set()
    for side in ("chosen", "rejected"):
        batch = getattr(pairs, side)
        rows = zip(batch.input_ids.tolist(), batch.attention_mask.tolist(), batch.response_mask.tolist(), strict=True)
        kept = [[(t, r) for t, a, r in zip(*row, strict=True) if a] for row in rows]
        prompt_ids = [[t for t, r in row if not r] for row in kept]
        responses = [[t for t, r in row if r] for row in kept]
        texts = [policy.tokenizer.decode(ids) for ids in prompt_ids]
        prompts |= set(texts)
        scores[side] = shared.labeller.score(texts, policy.decode(responses))
        logps = shared.reference.logprobs(prompt_ids, responses)
        assert torch.allclose(logps, getattr(pairs, f"ref_logp_{side}"), atol=1e-4)
    assert (scores["chosen"] > scores["rejected"]).all()
    assert prompts <= set(shared.train_prompts)
    assert trainer.samples_drawn >= 2 * 32
    first = trainer._pairs
    for _ in range(3):
        trainer.step()
        assert trainer._pairs is first
    trainer.step()
    assert trainer._pairs is not first
    assert not np.array_equal(trainer._pairs.chosen.input_ids.numpy(), first.chosen.input_ids.numpy())


def test_a_policy_whose_samples_all_tie_is_named(make):
    trainer, _, _ = make(**{"online.every": 2})
    trainer._labeller = trainer._labeller._replace(score=lambda prompts, responses: np.zeros(len(prompts)))
    with pytest.raises(NothingToCompare, match=r"after step 0: 0 of \d+ pairs of the policy's samples differ .* gold"):
        trainer.step()


@pytest.mark.parametrize("method", ["online", "rloo"])
def test_a_cell_that_was_stopped_goes_on_to_the_last_bit(tiny_world, tmp_path, method):
    changes = {
        "method": method,
        "resume.every": 3,
        "loss": "squared",
        **({"online.every": 5} if method == "online" else {}),
    }
    whole, stopped = (tiny_world.cell(tmp_path / name, changes) for name in ("whole", "stopped"))
    assert run(whole).state == "done"
    asked = iter([False] * 6 + [True])
    with pytest.raises(Stopped):
        run(stopped, stop=lambda: next(asked))
    assert run(stopped).state == "done"
    ignored = ("cell_id", "wall_s")
    rows = [
        [{k: v for k, v in row.items() if k not in ignored} for row in read_records(cell.directory / "records.jsonl")]
        for cell in (whole, stopped)
    ]
    assert repr(rows[0]) == repr(rows[1])
    assert rows[0][-1]["variant"] == ("online/squared" if method == "online" else "rloo")
    assert rows[0][-1]["labels_bought"] == rows[0][-1]["samples_drawn"] >= 2 * 8 * 8
    training = [(cell.directory / "training.jsonl").read_bytes() for cell in (whole, stopped)]
    assert training[0] == training[1]
