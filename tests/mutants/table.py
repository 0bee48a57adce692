"""The mutants: what is changed, where, and the tests that are to notice."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One wrong line: `old` of `file` becomes `new`; `tests` are run until one fails."""

    what: str
    file: str
    old: str
    new: str
    tests: str


_GPO, _USER = "bench/losses/gpo.py", "bench/losses/user.py"
_KL, _PAIRS, _LABELS = "bench/policies/kl.py", "bench/data/pairs.py", "gold_rm/labeling.py"
_OFFLINE, _OBJECTIVE, _OPTIMIZER = (
    "bench/methods/offline.py",
    "bench/methods/objective.py",
    "bench/methods/optimizer.py",
)
_INPUTS, _EVALUATION, _RLOO = "bench/cells/inputs.py", "bench/cells/evaluation.py", "bench/methods/rloo.py"
_PREFERENCES, _BEST, _PARTS = "bench/data/preferences.py", "bench/records/best_of_n.py", "bench/data/parts.py"
_INTERVALS, _CONFIGURATIONS = "analysis/statistics/intervals.py", "analysis/statistics/configurations.py"
_CURVES, _THEORY, _SAMPLING = "analysis/statistics/curves.py", "analysis/theory/losses.py", "bench/policies/sampling.py"

_LOSS_TESTS, _KL_TESTS = "tests/bench/test_losses.py", "tests/bench/policies/test_kl.py"
_TRAIN_TESTS, _PAIR_TESTS = "tests/bench/methods/test_offline.py", "tests/bench/data/test_pairs.py"
_INPUT_TESTS, _EVALUATION_TESTS = "tests/bench/cells/test_inputs.py", "tests/bench/cells/test_evaluation.py"
_PREFERENCE_TESTS, _LABEL_TESTS = "tests/bench/data/test_preferences.py", "tests/gold_rm/test_labeling.py"
_STATISTICS_TESTS = "tests/analysis/statistics"
_CONFIGURATION_TESTS = f"{_STATISTICS_TESTS}/test_discordance.py"
_CURVE_TESTS = f"{_STATISTICS_TESTS}/test_curves.py {_STATISTICS_TESTS}/test_frontier.py"

MUTANTS = (
    Mutant("logistic, 1 % steeper", _GPO, "functional.logsigmoid(z)", "functional.logsigmoid(1.01 * z)", _LOSS_TESTS),
    Mutant("hinge with another kink", _GPO, "relu(1 - z)\n", "relu(1.001 - z)\n", _LOSS_TESTS),
    Mutant("squared, halved", _GPO, "return (z - 1) ** 2", "return (z - 1) ** 2 / 2", _LOSS_TESTS),
    Mutant(
        "exponential's tangent, other sign", _GPO, "value.detach() * beyond", "-value.detach() * beyond", _LOSS_TESTS
    ),
    Mutant("truncated cubic", _GPO, "relu(1 - z) ** 2", "relu(1 - z) ** 3", _LOSS_TESTS),
    Mutant("savage mirrored", _GPO, "sigmoid(-z) ** 2", "sigmoid(z) ** 2", _LOSS_TESTS),
    Mutant("savage called convex", _GPO, "-1 / 4, 1 / 8, False", "-1 / 4, 1 / 8, True", _LOSS_TESTS),
    Mutant("users' losses not in groups", _USER, "for size, _ in _SUBSETS:", "for size, _ in ():", _LOSS_TESTS),
    Mutant("users' losses may draw", _USER, "if _states() != before:", "if False:", _LOSS_TESTS),
    Mutant(
        "users' losses not far out",
        _USER,
        "if (wrong := values.isnan()",
        "if (wrong := 0 * values.isnan()",
        _LOSS_TESTS,
    ),
    Mutant(
        "edited losses are one", _USER, "numbers = torch.cat([value.detach(), ", "numbers = torch.cat([", _LOSS_TESTS
    ),
    Mutant(
        "KL reversed", _KL, "torch.sub(log_policy, log_reference,", "torch.sub(log_reference, log_policy,", _KL_TESTS
    ),
    Mutant("KL over the reference", _KL, "log_policy.exp_()", "log_policy.add(-log_ratio).exp_()", _KL_TESTS),
    Mutant(
        "rounding of KL 1e-1", _KL, "ROUNDING_NATS = 1e-4", "ROUNDING_NATS = 1e-1", f"{_KL_TESTS} {_EVALUATION_TESTS}"
    ),
    Mutant("SE without √n", _KL, "len(difference) ** 0.5", "1.0", _KL_TESTS),
    Mutant(
        "−∞ logits",
        _KL,
        "(banned := kl.isnan() & ~drawn.isnan()).any()",
        "(banned := kl.isnan()).any() and False",
        _KL_TESTS,
    ),
    Mutant(
        "sampling at temperature 0.95",
        _SAMPLING,
        "logits.double().softmax(-1)",
        "(logits.double() / 0.95).softmax(-1)",
        "tests/bench/policies/test_sampling.py",
    ),
    Mutant(
        "ρ with π_ref added",
        _PAIRS,
        "logp_rejected - ref_logp_rejected",
        "logp_rejected + ref_logp_rejected",
        _PAIR_TESTS,
    ),
    Mutant(
        "π_ref of other batches in bfloat16",
        _PAIRS,
        "if not policy.is_float32:  # the data's",
        "if False:  # the data's",
        "tests/bench/policies/test_precision.py",
    ),
    Mutant(
        "a response that goes on behind its stop string",
        "bench/policies/policy.py",
        "        return bool(self._stops_in(text))",
        "        return False",
        "tests/bench/policies/test_ends.py",
    ),
    Mutant(
        "a conversation with one more BOS",
        "bench/policies/policy.py",
        "self.tokenizer(texts, add_special_tokens=False)",
        "self.tokenizer(texts)",
        "tests/bench/policies/test_chat.py",
    ),
    Mutant("ρ turned", _PAIRS, "ratio_chosen - ratio_rejected)", "ratio_rejected - ratio_chosen)", _PAIR_TESTS),
    Mutant(
        "lengths of the other side",
        _PAIRS,
        "ratio_rejected / _response_tokens(pairs.rejected)",
        "ratio_rejected / _response_tokens(pairs.chosen)",
        _PAIR_TESTS,
    ),
    Mutant("β left out", _OBJECTIVE, "self.fn(self.beta * rho)", "self.fn(rho)", _TRAIN_TESTS),
    Mutant("β twice in the scale", _OBJECTIVE, "1 / (beta * abs(", "1 / (beta**2 * abs(", _TRAIN_TESTS),
    Mutant(
        "length_normalized ignored in training",
        _OFFLINE,
        ", length_normalized=config.length_normalized)",
        ")",
        f"{_TRAIN_TESTS} tests/bench/cells/test_run.py",
    ),
    Mutant(
        "order with seed 0", _OFFLINE, 'generator_for(self._seed, "order")', 'generator_for(0, "order")', _TRAIN_TESTS
    ),
    Mutant("micro-batches weighted alike", _OFFLINE, "part.loss.sum() / len(batch)", "part.loss.mean()", _TRAIN_TESTS),
    Mutant("no warm-up", _OPTIMIZER, "min(1.0, max(step, 1) / max(1, self._optim.warmup_steps))", "1.0", _TRAIN_TESTS),
    Mutant("warm-up one step late", _OPTIMIZER, "max(step, 1) /", "max(step - 1, 1) /", _TRAIN_TESTS),
    Mutant(
        "other AdamW decay",
        _OPTIMIZER,
        "optim.adam_beta1, optim.adam_beta2)",
        "optim.adam_beta1, 0.999)",
        f"{_TRAIN_TESTS} tests/bench/methods/test_trl.py",
    ),
    Mutant(
        "gradients averaged over the processes of a group",
        _OFFLINE,
        "objective.scale * ranks.size * loss",
        "objective.scale * loss",
        "tests/bench/sweep/test_group.py",
    ),
    Mutant(
        "resume without moments",
        _OPTIMIZER,
        '{"state": on_ranks, ',
        '{"state": {}, ',
        "tests/bench/cells/test_resume.py",
    ),
    Mutant(
        "RLOO's baseline with its own reward",
        _RLOO,
        "(regularized.sum(1, keepdim=True) - regularized) / (regularized.shape[1] - 1)",
        "regularized.mean(1, keepdim=True)",
        "tests/bench/methods/test_rloo.py",
    ),
    Mutant(
        "RLOO without the KL",
        _RLOO,
        "reward - beta * (logp.detach() - ref_logp)\n",
        "reward + 0 * (logp.detach() - ref_logp)\n",
        "tests/bench/methods/test_rloo.py",
    ),
    Mutant(
        "evaluation draws without the step",
        _INPUTS,
        'uniforms_for(config.seed, "evaluation", step,',
        'uniforms_for(config.seed, "evaluation",',
        f"{_INPUT_TESTS} tests/bench/cells/test_run.py",
    ),
    Mutant(
        "evaluation draws with seed 0",
        _INPUTS,
        'uniforms_for(config.seed, "evaluation", step,',
        'uniforms_for(0, "evaluation", step,',
        f"{_INPUT_TESTS} tests/bench/cells/test_run.py",
    ),
    Mutant(
        "held-out pairs are training pairs",
        _INPUTS,
        "load_pairs(data, HELD_OUT,",
        "load_pairs(data, TRAIN,",
        f"{_INPUT_TESTS} tests/bench/cells/test_run.py",
    ),
    Mutant(
        "another reference sample as the baseline",
        _INPUTS,
        'first = samples.query("sample_id == 0")',
        'first = samples.query("sample_id == 1")',
        f"{_INPUT_TESTS} tests/bench/cells/test_run.py",
    ),
    Mutant(
        "prompts and their ids in other orders",
        _INPUTS,
        "            prompts,\n            reference.encode(prompts),",
        "            prompts[::-1],\n            reference.encode(prompts),",
        f"{_INPUT_TESTS} tests/bench/cells/test_run.py",
    ),
    Mutant("all seeds on one part", _PARTS, "return seed % (pairs // per_cell)", "return 0", _INPUT_TESTS),
    Mutant(
        "labels' seed fixed",
        _PREFERENCES,
        'generator=generator_for(seed, "labels")',
        'generator=generator_for(0, "labels")',
        _PREFERENCE_TESTS,
    ),
    Mutant("the lower gold wins", _PREFERENCES, "a.where(prefer_a, b)", "b.where(prefer_a, a)", _PREFERENCE_TESTS),
    Mutant("temperature inverted", _LABELS, "margin / temperature", "margin * temperature", _LABEL_TESTS),
    Mutant("flips counted as gold's order", _LABELS, "higher_wins * (1 - flip_rate)", "higher_wins * 1", _LABEL_TESTS),
    Mutant("turned labels are not turned", _LABELS, "< a_wins) ^ flipped", "< a_wins)", _LABEL_TESTS),
    Mutant("ties lose", _EVALUATION, "0.5 * (np.abs(gap) <= TIE)", "0.0 * (np.abs(gap) <= TIE)", _EVALUATION_TESTS),
    Mutant(
        "gold not standardized", _EVALUATION, '"gold": standardization.apply(raw)', '"gold": (raw)', _EVALUATION_TESTS
    ),
    Mutant(
        "best-of-n, weights one off",
        _BEST,
        "weight *= (i - n) / (i - 1)",
        "weight *= (i - n) / i",
        "tests/bench/cells/test_best_of_n.py",
    ),
    Mutant(
        "best-of-n's KL without its last term",
        _BEST,
        "math.log(n) - (n - 1) / n",
        "math.log(n)",
        "tests/bench/cells/test_best_of_n.py",
    ),
    Mutant(
        "one-sided t",
        _INTERVALS,
        "[stats.t.ppf((1 + level) / 2, df) for df in (max(",
        "[stats.t.ppf(level, df) for df in (max(",
        f"{_STATISTICS_TESTS}/test_intervals.py",
    ),
    Mutant(
        "jackknife without its factor",
        _INTERVALS,
        "(seeds - 1) / seeds * ((without",
        "1 / seeds * ((without",
        f"{_STATISTICS_TESTS}/test_intervals.py",
    ),
    Mutant(
        "Tukey without √2",
        _INTERVALS,
        "ppf(level, variants, df) / np.sqrt(2)",
        "ppf(level, variants, df)",
        f"{_STATISTICS_TESTS}/test_intervals.py",
    ),
    Mutant("C4 by one of its two tests", _CONFIGURATIONS, "p = np.maximum(", "p = np.minimum(", _CONFIGURATION_TESTS),
    Mutant(
        "C4 without false discovery control",
        _CONFIGURATIONS,
        'stats.false_discovery_control(p, method="by")',
        "p",
        _CONFIGURATION_TESTS,
    ),
    Mutant(
        "curves on another axis",
        _CURVES,
        "np.log1p(np.sqrt(np.maximum(kl, 0)))",
        "np.sqrt(np.maximum(kl, 0))",
        _CURVE_TESTS,
    ),
    Mutant(
        "curves weighted the other way",
        _CURVES,
        "weight = np.exp(-steepness * x)",
        "weight = np.exp(steepness * x)",
        _CURVE_TESTS,
    ),
    Mutant("squared's link", _THEORY, "link=lambda p: 2 * p - 1", "link=lambda p: p - 0.5", "tests/analysis/theory"),
    Mutant("savage's curvature", _THEORY, "(2 - 3 * s)", "(2 - 2 * s)", "tests/analysis/theory"),
)
