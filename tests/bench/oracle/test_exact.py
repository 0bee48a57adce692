"""The oracle world; its enumeration, exact KL, gold and KL-constrained optimum against independent computations."""

import numpy as np
import pytest
import torch
from oracle_worlds import SMALL, build_small_world
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import chisquare, entropy
from tiny_models import enumerate_responses as enumerate_one_by_one

from bench.checked import ConfigError
from bench.data.artifacts import build_once
from bench.oracle.exact import ExactWorld, enumerate_responses, exact_world, require_finite, tilted, tilted_frontier
from bench.policies.load import load_policy
from bench.policies.scoring import response_logprobs
from bench.policies.tokens import collate
from bench.seeding import uniforms_for
from bench.worlds import oracle, read_world
from bench.worlds.oracle import response_count
from gold_rm.reward_model import load_gold_model


@pytest.fixture(scope="module", params=oracle.POLICIES)
def small(request, tmp_path_factory):
    return build_small_world(tmp_path_factory.mktemp(request.param), policy=request.param)


@pytest.mark.parametrize(("tokens", "length"), [(2, 1), (3, 1), (4, 2), (6, 3)])
def test_every_response_is_there_once(tokens, length):
    responses = enumerate_responses(tokens, 0, length)
    assert len(responses) == len(set(map(tuple, responses))) == response_count(tokens, length)
    for response in responses:
        assert 0 not in response[:-1]
        assert response[-1] == 0 or len(response) == length


def test_reference_logprobs_are_those_of_one_sequence_at_a_time(small):
    for context, logps in zip(small.world.contexts, small.world.log_reference.tolist(), strict=True):
        expected = enumerate_one_by_one(small.policy, context, SMALL.length)
        ours = dict(zip(map(tuple, small.world.responses), logps, strict=True))
        assert ours == pytest.approx(expected, abs=1e-5)
    assert small.world.log_reference.exp().sum(-1).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_texts_differ_and_gold_is_their_score(small):
    assert len(set(small.world.texts)) == len(small.world.responses)
    prompt = small.prompts[1]  # of the second context
    raw = small.gold.score([prompt] * len(small.world.texts), small.world.texts)
    np.testing.assert_allclose(small.world.gold[1], small.standardization.apply(raw).double(), atol=1e-5)


def test_exact_kl_and_gold_are_sums_over_responses(small):
    log_policy = small.moved_logprobs()
    for row, kl in enumerate(small.world.kl(log_policy).tolist()):
        assert kl == pytest.approx(entropy(log_policy[row].exp(), small.world.log_reference[row].exp()), rel=1e-4)
    by_hand = [float(np.dot(p, g)) for p, g in zip(log_policy.exp().numpy(), small.world.gold.numpy(), strict=True)]
    assert small.world.expected_gold(log_policy).tolist() == pytest.approx(by_hand)
    assert small.world.kl(small.world.log_reference).abs().max() < 1e-9


def test_tilted_policy_solves_the_constrained_problem():
    """scipy maximizes E[gold] − λ KL over all distributions."""
    rng = np.random.default_rng(0)
    log_reference, gold, temperature = np.log(rng.dirichlet(np.ones(5))), rng.normal(size=5), 0.4

    def objective(logits):
        p = softmax(logits)
        return -(p @ gold - temperature * entropy(p, np.exp(log_reference)))

    expected = softmax(minimize(objective, np.zeros(5), tol=1e-12).x)
    world = _bare_world(log_reference, gold)
    np.testing.assert_allclose(tilted(world, world.gold, temperature).exp()[0], expected, atol=1e-5)


def _bare_world(log_reference, gold):
    share = torch.ones(1, dtype=torch.float64)
    rows = (torch.from_numpy(values)[None] for values in (log_reference, gold))
    return ExactWorld(
        [[1]], [[0]] * len(gold), [""] * len(gold), torch.tensor([0]), share, collate([[1]], [[0]], pad_id=0), *rows
    )


def test_frontier_rises_with_slope_equal_to_the_temperature(small):
    temperatures = np.geomspace(10, 0.1, 400)
    frontier = tilted_frontier(small.world, small.world.gold, temperatures)
    slope = np.gradient(frontier["gold"], frontier["kl"])
    np.testing.assert_allclose(slope[1:-1], temperatures[1:-1], rtol=0.01)


def test_prompts_that_are_the_same_tokens_are_one_context_weighted_by_its_share(small):
    prompts = [small.prompts[0]] * 3 + [small.prompts[1]]
    world = exact_world(small.policy, small.gold, small.standardization, prompts, SMALL.length)
    assert world.context_share.tolist() == [0.75, 0.25]
    assert world.mean(torch.tensor([1.0, 5.0], dtype=torch.float64)) == 2.0


def test_samples_follow_the_enumerated_distribution(small):
    """Generation without a cache (tabular) and with one (transformer), left-padded prompts of unequal length."""
    draws = 6000
    prompts = [small.world.contexts[0], [1, *small.world.contexts[0]]] * draws
    sampled = small.policy.sample(
        prompts, uniforms=uniforms_for(0, "test", count=len(prompts), tokens=SMALL.length - 1),
        batch_size=4000,
    )[::2]  # fmt: skip
    space = enumerate_responses(SMALL.tokens, small.policy.eos_id, SMALL.length - 1)
    batch = collate([small.world.contexts[0]] * len(space), space, pad_id=0)
    expected = response_logprobs(small.policy, batch).double().exp().numpy()
    counts = np.array([sum(map(response.__eq__, sampled)) for response in space])
    assert chisquare(counts, draws * expected / expected.sum()).pvalue > 1e-3


def test_padding_on_either_side_does_not_move_tabular_logits(tmp_path):
    model = build_small_world(tmp_path, policy="tabular").policy.model
    text = torch.tensor([[1, 2, 3]])
    alone = model(input_ids=text).logits[0]
    for before, after in ((2, 0), (0, 3)):
        padded = torch.nn.functional.pad(text, (before, after))
        mask = torch.nn.functional.pad(torch.ones_like(text), (before, after))
        assert torch.equal(model(input_ids=padded, attention_mask=mask).logits[0, before : before + 3], alone)


def test_tabular_window_forgets_what_lies_before_it(tmp_path):
    model = build_small_world(tmp_path, policy="tabular").policy.model
    window = model.config.window
    long = torch.tensor([[2, 3, *[1] * window], [3, 2, *[1] * window]])
    first, second = model(input_ids=long).logits[:, -1]
    assert torch.equal(first, second)
    assert not torch.equal(*model(input_ids=long).logits[:, 1])


def test_both_splits_hold_the_same_contexts_under_distinct_prompts(tmp_path):
    oracle.build(SMALL, tmp_path, print)
    world = read_world(tmp_path)
    policy, gold = load_policy(world.policy_dir), load_gold_model(world.gold_dir)
    assert len({*world.train_prompts, *world.eval_prompts}) == 2 * SMALL.prompts
    contexts = [policy.encode(prompts) for prompts in (world.train_prompts, world.eval_prompts)]
    assert contexts[0] == contexts[1]
    assert len(set(map(tuple, contexts[0]))) == SMALL.contexts
    scores = [gold.score(prompts, [" a"] * SMALL.prompts) for prompts in (world.train_prompts, world.eval_prompts)]
    torch.testing.assert_close(*scores)


@pytest.mark.parametrize("policy", oracle.POLICIES)
def test_a_seed_fixes_every_file_and_another_seed_changes_the_weights(tmp_path, policy):
    def fingerprint(seed, root):
        params = oracle.Params(policy=policy, tokens=4, length=2, contexts=2, prompts=4, seed=seed)
        return build_once(tmp_path / root, "world", {}, lambda d: oracle.build(params, d, print)).fingerprint

    assert fingerprint(0, "a") == fingerprint(0, "b") != fingerprint(1, "c")


def test_a_world_too_large_says_how_many_responses_and_the_limit():
    # 1 + 19 + 361 + 6859 that end, 130321 that are cut.
    with pytest.raises(ConfigError, match=r"137,561 responses per prompt; exact values need 2,000 or fewer"):
        oracle.Params(tokens=20, length=4)
    with pytest.raises(ConfigError, match="137,561 responses"):
        enumerate_responses(20, 0, 4)
    # 50256^2000 · (1 + 1/50255 + …): 2000 log10(50256) = 9402.4…
    with pytest.raises(ConfigError, match=r"give about 10\^9402 responses"):
        enumerate_responses(50257, 0, 2000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "table"}, r"policy='table': allowed are tabular, transformer"),
        ({"tokens": 1}, r"tokens=1: must lie in \[2, 27\]"),
        ({"length": 0}, "length=0: must be 1 or more"),
        ({"contexts": 26}, r"contexts=26: must lie in \[1, 25\]"),
        ({"prompts": 3}, "prompts=3: must be contexts=4 or more"),
        ({"seed": -1}, "seed=-1: must be 0 or more"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=rf"world\.params\.{message}"):
        oracle.Params(**settings)


def test_values_that_are_not_finite_name_their_term():
    with pytest.raises(FloatingPointError, match=r"log π at \[1\] is -inf"):
        require_finite("log π", torch.tensor([0.0, -torch.inf]))
