"""Frontiers against known curves, brute-force Pareto sets, closed-form areas and known differences."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_draws import QUIET, Noise, simulate

from analysis.statistics.frontier import fit_frontiers, pareto

BETAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
STEPS = (0, 1, 2, 4)


def kl_of(variant, beta, step):
    return 0.5 / beta**0.8 * step / STEPS[-1]  # up to 20 nats


def gao(variant, kl):
    d = np.sqrt(kl)
    return d * (1.2 - 0.6 * np.log(d)) if kl else 0.0


def frontiers(gold=gao, *, kl=kl_of, seed=0, fit=None, **design):
    draws = simulate(np.random.default_rng(seed), kl, gold, betas=BETAS, steps=STEPS, **design)
    return fit_frontiers(draws, **(fit or {}))


def test_without_noise_the_curve_is_the_true_one():
    result = frontiers(noise=QUIET)
    curve = result.curves
    truth = np.array([gao("", kl) for kl in curve["kl"]])
    # The log's infinite curvature at 0 is smoothed over; beyond 0.3 nats the spline follows.
    far = curve["kl"] > 0.3
    assert np.abs(curve["gold"] - truth)[far].max() < 0.03
    assert curve["kl"].iloc[[0, -1]].tolist() == pytest.approx([0.0, kl_of("", 0.01, 4)])
    assert np.diff(np.sqrt(curve["kl"])) == pytest.approx(np.sqrt(kl_of("", 0.01, 4)) / 79)
    assert (curve["kind"] == "none").all()  # nothing varies, so no interval is made up


def test_nothing_is_extrapolated():
    budgets = frontiers(fit={"budgets": (0.5, 5.0, 25.0)}).budgets.set_index("kl")
    assert budgets["covered"].tolist() == [True, True, False]
    assert budgets.loc[25.0, ["gold", "gold_low", "gold_high", "gold_se"]].isna().all()
    assert (budgets.loc[:5.0, "gold_low"] < budgets.loc[:5.0, "gold"]).all()


def test_the_end_is_where_two_seeds_reach():
    result = frontiers(noise=Noise(log_kl=0.5), seeds=3, seed=3)
    draws = simulate(np.random.default_rng(3), kl_of, gao, betas=BETAS, steps=STEPS, noise=Noise(log_kl=0.5))
    largest = sorted(draws.rows.groupby("seed")["kl"].max())
    assert result.common_kl == pytest.approx(largest[-2])
    alone = frontiers(noise=Noise(log_kl=0.5), seeds=1, seed=3)
    assert alone.curves["kl"].max() == pytest.approx(alone.points["kl"].max())


def test_area_is_the_integral_over_kl():
    # gold = √KL is linear in the spline's variable, so the fit is exact and ∫ √k dk = ⅔ K^1.5.
    result = frontiers(lambda variant, kl: np.sqrt(kl), noise=QUIET)
    row = result.areas.iloc[0]
    end = kl_of("", 0.01, 4)
    assert row["kl_max"] == pytest.approx(end)
    assert row["area"] == pytest.approx(2 / 3 * end**1.5, rel=1e-3)
    assert row["mean_gold"] == pytest.approx(2 / 3 * end**0.5, rel=1e-3)


def test_areas_end_at_the_kl_that_all_losses_reach():
    def kl(variant, beta, step):
        return kl_of(variant, beta, step) / (4 if variant == "squared" else 1)

    areas = frontiers(kl=kl, variants=("logistic", "squared"), noise=QUIET).areas
    assert areas["kl_max"].tolist() == pytest.approx([kl_of("", 0.01, 4) / 4] * 2)
    assert areas["area"].iloc[0] == pytest.approx(areas["area"].iloc[1], rel=0.02)


def shifted(variant, kl):
    return gao(variant, kl) + (0.5 if variant == "hinge" and kl else 0.0)


def test_equal_and_shifted_frontiers_are_told_apart():
    variants = ("logistic", "squared", "hinge")
    little = Noise(seed=0.05, cell=0.01, prompt=0.4, sample=0.05, log_kl=0.02)
    pairs = frontiers(shifted, variants=variants, noise=little).pairwise
    verdicts = pairs.set_index(["variant_a", "variant_b"])["verdict"].groupby(level=[0, 1]).agg(set)
    assert verdicts["logistic", "squared"] == {"equivalent"}
    assert verdicts["logistic", "hinge"] == verdicts["squared", "hinge"] == {"different"}
    beyond = pairs.query("variant_b == 'hinge'")["difference"]
    assert beyond.to_numpy() == pytest.approx(-0.5, abs=0.05)
    assert (pairs["kind"] == "simultaneous").all()
    assert sorted(pairs["kl"].unique()) == [0.5, 1.0, 2.0, 5.0, 10.0]


def test_noise_makes_it_unclear_and_the_margin_decides():
    variants = ("logistic", "squared")
    noisy = frontiers(variants=variants, noise=Noise(cell=0.3))
    assert "unclear" in set(noisy.pairwise["verdict"])
    assert set(frontiers(variants=variants, fit={"margin": 5.0}).pairwise["verdict"]) == {"equivalent"}


def test_without_a_common_budget_nothing_is_compared_and_it_is_said():
    result = frontiers(variants=("logistic", "squared"), fit={"budgets": (50.0,)})
    assert result.pairwise.empty
    assert "No KL budget" in result.warnings[0]
    assert "logistic" in result.warnings[0]


def test_one_loss_has_nothing_to_be_compared_with():
    assert frontiers().pairwise.empty


def test_points_are_averages_over_seeds():
    draws = simulate(np.random.default_rng(0), kl_of, gao, betas=BETAS, steps=STEPS)
    points = fit_frontiers(draws).points
    expected = draws.rows.groupby(["strength", "step"])[["kl", "gold"]].mean().reset_index()
    np.testing.assert_allclose(points[["kl", "gold"]], expected[["kl", "gold"]])
    assert (points["seeds"] == 3).all()
    assert (points["is_final"] == (points["step"] == 4)).all()


def beaten(kl, gold, index):
    no_worse = (kl <= kl[index]) & (gold >= gold[index])
    better = (kl < kl[index]) | (gold > gold[index])
    return bool((no_worse & better).any())


@pytest.mark.parametrize("seed", range(5))
def test_pareto_set_against_all_pairs(seed):
    rng = np.random.default_rng(seed)
    kl, gold = rng.integers(0, 8, (2, 40)) / 4  # with ties and duplicates
    expected = [not beaten(kl, gold, index) for index in range(40)]
    assert pareto(kl, gold).tolist() == expected


def test_pareto_sets_of_a_loss_and_overall():
    points = frontiers(shifted, variants=("logistic", "hinge"), noise=QUIET).points
    overall = points[points["pareto_overall"] & (points["kl"] > 0)]
    assert set(overall["variant"]) == {"hinge"}
    for _, rows in points.groupby("variant"):
        kl, gold = rows["kl"].to_numpy(), rows["gold"].to_numpy()
        assert rows["pareto"].tolist() == [not beaten(kl, gold, index) for index in range(len(rows))]


def test_the_smoother_is_stated():
    assert "left-out strengths" in frontiers().smoother


def test_a_single_cell_still_has_a_frontier():
    draws = simulate(np.random.default_rng(0), kl_of, gao, betas=(0.1,), steps=STEPS, seeds=1)
    result = fit_frontiers(draws)
    assert (result.curves["kind"] == "prompts").all()
    assert result.curves["kl"].max() == pytest.approx(draws.rows["kl"].max())


def covers(low, high, truth):
    return bool(low <= truth <= high)


@pytest.mark.parametrize("ends_only", [False, True])
@pytest.mark.parametrize("seeds", [2, 3])
def test_coverage_of_gold_at_a_budget(seeds, ends_only):
    rng = np.random.default_rng(seeds)
    hits = []
    for _ in range(60):
        draws = simulate(rng, kl_of, gao, betas=BETAS, steps=STEPS, seeds=seeds, draws=50)
        at = fit_frontiers(draws, ends_only=ends_only).budgets.set_index("kl")
        hits += [covers(*at.loc[kl, ["gold_low", "gold_high"]], gao("", kl)) for kl in (1.0, 5.0, 10.0)]
    # 60 sweeps, three correlated budgets each: standard error below 0.03.
    assert np.mean(hits) >= 0.88


def test_checkpoints_on_the_way_count_only_if_asked_for():
    draws = simulate(np.random.default_rng(0), kl_of, gao, betas=BETAS, steps=STEPS, noise=QUIET)
    on_the_way = (draws.rows["step"] > 0) & ~draws.rows["is_final"]
    draws.rows.loc[on_the_way, "gold"] -= 0.5
    ends, everything = (fit_frontiers(draws, ends_only=ends_only) for ends_only in (True, False))
    far = ends.curves["kl"] > 0.6  # trained policies start at 0.5 nats
    truth = np.array([gao("", kl) for kl in ends.curves["kl"]])
    assert np.abs(ends.curves["gold"] - truth)[far].max() < 0.05
    assert (everything.curves["gold"] < truth - 0.05)[far].mean() > 0.5
    assert len(ends.points) == len(everything.points) == len(BETAS) * len(STEPS)
    assert "the last checkpoints" in ends.smoother
    assert "all checkpoints" in everything.smoother


def test_the_curve_starts_at_the_origin_and_its_band_has_no_width_there():
    curve = frontiers(noise=Noise(seed=0.1, prompt=0.4), fit={"ends_only": True}).curves
    assert curve["kl"].iloc[0] == 0
    assert abs(curve["gold"].iloc[0]) < 1e-3
    band = curve["gold_high"] - curve["gold_low"]
    assert not band.iloc[0] > 1e-3  # NaN where nothing varies at all
    assert band.iloc[40] > 0.05


def moved_to(kls, variants=("logistic",), seeds=3):
    """Trained policies at the given KLs, one per β."""
    betas = [1 / (number + 1) for number in range(len(kls))]
    place = dict(zip(betas, kls, strict=True))
    return simulate(
        np.random.default_rng(0), lambda variant, beta, step: place[beta] * step, gao, betas=betas, variants=variants,
        seeds=seeds, noise=Noise(log_kl=0.01),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kls", "covered", "lost"),
    [
        ((0.3, 0.8, 1.8, 1e6), (0.5, 1.0), 1),  # one far cell says nothing of KL 10
        ((0.3, 0.8, 1.8, 40.0, 60.0, 1e6), (0.5, 1.0), 3),
        ((0.3, 0.8, 2.0, 8.0, 30.0), (0.5, 1.0, 2.0, 5.0, 10.0), 0),
        ((1.5, 3.0, 8.0, 1e6), (2.0, 5.0), 1),  # no policy near the start, and a gap behind
        ((4.0, 8.0, 16.0), (5.0, 10.0), 0),
    ],
)
def test_gold_is_read_off_only_where_data_lie_near(kls, covered, lost):
    result = fit_frontiers(moved_to(kls, variants=("logistic", "squared")), ends_only=True)
    budgets = result.budgets.query("variant == 'logistic'").set_index("kl")
    assert tuple(budgets.index[budgets["covered"]]) == covered
    assert sorted(result.pairwise["kl"].unique()) == list(covered)
    assert budgets["gold"].notna().tolist() == budgets["covered"].tolist()
    said = [text for text in result.warnings if "no policy between" in text]
    assert len(said) == (2 if lost else 0)
    assert all(f"without {3 * lost} policies beyond" in text for text in said)
    assert result.areas["area"].notna().all()


def test_a_policy_at_kl_1e6_moves_nothing_at_small_kl():
    near, far = (fit_frontiers(moved_to(kls), ends_only=True) for kls in ((0.3, 0.8, 2.0, 5), (0.3, 0.8, 2.0, 5, 1e6)))
    one, other = (result.smoothed["logistic"].gold(np.array([0.5, 1.0, 2.0]))[0] for result in (near, far))
    truth = [gao("", kl) for kl in (0.5, 1.0, 2.0)]
    np.testing.assert_allclose(one, truth, atol=0.15)
    np.testing.assert_allclose(other, truth, atol=0.15)


def test_kl_a_little_below_zero_counts_as_zero():
    draws = moved_to((0.3, 0.8, 2.0, 5.0))
    draws.rows.loc[draws.rows["step"] == 0, "kl"] = -1e-4
    draws.noise.kl[draws.rows["step"] == 0] = -1e-4
    weak = draws.rows["is_final"] & (draws.rows["strength"] == 1.0)
    draws.rows.loc[weak, "kl"] = -2e-5
    draws.noise.kl[weak] = -2e-5
    result = fit_frontiers(draws)
    assert np.isfinite(result.curves["gold"]).all()
    assert (draws.of("logistic").kl >= 0).all()


def test_differences_are_over_common_seeds_and_say_so():
    design = {"variants": ("logistic", "squared", "hinge"), "noise": Noise(seed=0.4, cell=0.01, prompt=0.2)}
    draws = simulate(np.random.default_rng(0), kl_of, gao, betas=BETAS, seeds=4, **design)
    whole = draws.rows
    lacking = replace(draws, rows=whole[~((whole["variant"] == "hinge") & (whole["seed"] == 2))])
    without = replace(draws, rows=whole[whole["seed"] != 2])
    result, expected = fit_frontiers(lacking), fit_frontiers(without)
    np.testing.assert_allclose(result.pairwise["difference"], expected.pairwise["difference"], atol=1e-6)
    np.testing.assert_allclose(result.pairwise["difference_high"], expected.pairwise["difference_high"], rtol=0.05)
    assert result.pairwise["difference"].abs().max() < 0.15  # the lacking seed's own effect is not in it
    assert "Differences between frontiers are over the 3 seeds that all variants have." in result.warnings
    # What is said of one variant rests on all seeds that it has.
    own = [fit_frontiers(each).smoothed["logistic"].design.seed_count for each in (lacking, without)]
    assert own == [4, 3]
