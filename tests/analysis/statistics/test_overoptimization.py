"""Forms of over-optimization against known parameters, scipy's curve_fit, numerical maxima and simulated choices."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import OptimizeWarning, curve_fit
from synthetic_draws import QUIET, Noise, simulate

from analysis.statistics.frontier import fit_frontiers
from analysis.statistics.gold_forms import FORMS, fit_form, form_gold
from analysis.statistics.lack_of_fit import by_configuration, lack_of_fit
from analysis.statistics.overoptimization import NO_PEAK, NONE_FITS, fit_overoptimization

BETAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
STEPS = (0, 1, 2, 4)
TRUTH = {"best_of_n": (1.2, 0.25), "rl": (1.2, 0.8), "saturating": (1.5, 0.8)}
# Written anew, not by analysis.statistics.gold_forms; d > 0.
CURVES = {
    "best_of_n": lambda d, alpha, beta: d * (alpha - beta * d),
    "rl": lambda d, alpha, beta: d * (alpha - beta * np.log(d)),
    "saturating": lambda d, a, s: a * (1 - np.exp(-d / s)),
}


def kl_of(variant, beta, step):
    return 0.5 / beta**0.8 * step / STEPS[-1]  # up to 20 nats


def gold_of(form, parameters=None):
    values = parameters or TRUTH[form]
    return lambda variant, kl: float(CURVES[form](np.sqrt(kl), *values)) if kl else 0.0


def fitted(gold, rng, *, ends_only=False, **design):
    draws = simulate(rng, kl_of, gold, **{"betas": BETAS, "steps": STEPS, **design})
    draws = draws.at_ends() if ends_only else draws
    return fit_overoptimization(draws, fit_frontiers(draws).smoothed), draws


def noiseless(gold, **design):
    result, _ = fitted(gold, np.random.default_rng(0), noise=QUIET, **design)
    return result, result.peaks.iloc[0]


def weighted_fit(form, d, gold, weight):
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # of the covariance, which is not used
        return curve_fit(CURVES[form], d, gold, p0=TRUTH[form], sigma=1 / np.sqrt(weight), xtol=1e-12, ftol=1e-12)[0]


@pytest.mark.parametrize("form", FORMS)
def test_parameters_are_recovered_without_noise(form):
    rng = np.random.default_rng(0)
    truth = np.array(TRUTH[form]) * rng.uniform(0.7, 1.4, (6, 2))  # six data sets at once
    d = np.concatenate([np.zeros((6, 1)), rng.uniform(0.05, 4, (6, 30))], axis=1)
    gold = np.stack([np.append(0.0, CURVES[form](row[1:], *pair)) for row, pair in zip(d, truth, strict=True)])
    np.testing.assert_allclose(form_gold(form, truth[0], d[0]), gold[0], atol=1e-12)
    np.testing.assert_allclose(fit_form(form, d, gold, rng.uniform(0.1, 2, d.shape)), truth, rtol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_weighted_least_squares_as_scipy(form):
    rng = np.random.default_rng(1)
    d = rng.uniform(0.05, 4, (4, 40))
    weight = rng.uniform(0.05, 4, d.shape)
    gold = CURVES[form](d, *TRUTH[form]) + rng.normal(0, 0.3, d.shape)
    expected = [weighted_fit(form, *rows) for rows in zip(d, gold, weight, strict=True)]
    np.testing.assert_allclose(fit_form(form, d, gold, weight), expected, rtol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_observations_of_weight_0_do_not_count(form):
    rng = np.random.default_rng(2)
    d = rng.uniform(0.05, 4, (1, 40))
    gold = CURVES[form](d, *TRUTH[form]) + rng.normal(0, 0.3, d.shape)
    weight = (np.arange(40) % 3 > 0).astype(float)[None]
    kept = weight[0] > 0
    np.testing.assert_allclose(
        fit_form(form, d, gold, weight), fit_form(form, d[:, kept], gold[:, kept], weight[:, kept]), rtol=2e-3
    )


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_the_true_form_its_parameters_and_its_peak(form):
    result, peak = noiseless(gold_of(form))
    row = result.fits.set_index("form").loc[form]
    assert result.fits.set_index("form")["chosen"].to_dict() == {name: name == form for name in FORMS}
    assert (row["first"], row["second"]) == pytest.approx(TRUTH[form], rel=1e-6)
    assert row["held_out_rmse"] == pytest.approx(0, abs=1e-9)
    first, second = TRUTH[form]
    d = first / (2 * second) if form == "best_of_n" else np.exp(first / second - 1)
    assert (peak["form"], peak["inside"], peak["note"]) == (form, True, "")
    assert peak["kl_peak"] == pytest.approx(d**2, rel=0.03)  # of the spline
    assert peak["gold_peak"] == pytest.approx(CURVES[form](d, first, second), abs=0.01)
    end = kl_of("", 0.01, 4)
    assert peak["kl_max"] == pytest.approx(end)
    assert peak["drop"] == pytest.approx(peak["gold_peak"] - gold_of(form)("", end), abs=0.03)  # of the spline
    assert np.isnan([row["first_low"], peak["kl_peak_low"], peak["drop_low"]]).all()  # nothing varies
    curve = result.curves[result.curves["chosen"].astype(bool)]
    np.testing.assert_allclose(curve["gold"].iloc[1:], CURVES[form](np.sqrt(curve["kl"].iloc[1:]), first, second))
    assert curve["kl"].iloc[[0, -1]].tolist() == pytest.approx([0, end])


@pytest.mark.parametrize("gold", [gold_of("saturating"), gold_of("rl", (3.0, 1.2)), gold_of("best_of_n", (1.0, 0.05))])
def test_no_peak_inside_the_data(gold):
    result, peak = noiseless(gold)
    assert (peak["inside"], peak["note"]) == (False, NO_PEAK)
    assert peak[["kl_peak", "kl_peak_low", "gold_peak"]].isna().all()
    assert peak["drop"] == pytest.approx(0, abs=0.02)
    assert result.warnings == ()


def test_held_out_error_leaves_out_one_beta_at_a_time():
    result, draws = fitted(gold_of("saturating"), np.random.default_rng(4), betas=BETAS[::2], noise=Noise(cell=0.1))
    rows = draws.rows[draws.rows["step"] > 0]  # step 0 has d = 0, where every form is 0
    d, gold, weight = np.sqrt(rows["kl"].to_numpy()), rows["gold"].to_numpy(), 1 / rows["gold_se"].to_numpy() ** 2
    start = draws.rows[draws.rows["step"] == 0]
    constant = (start["gold"] ** 2 / start["gold_se"] ** 2).sum()
    total = weight.sum() + (1 / start["gold_se"] ** 2).sum()
    for row in result.fits.itertuples():
        squares = constant
        for beta in BETAS[::2]:
            out = (rows["strength"] == beta).to_numpy()
            fit = weighted_fit(row.form, d[~out], gold[~out], weight[~out])
            squares += (weight[out] * (CURVES[row.form](d[out], *fit) - gold[out]) ** 2).sum()
        assert row.held_out_rmse == pytest.approx(np.sqrt(squares / total), rel=1e-3)
        assert row.folds == 4
        expected = weighted_fit(row.form, d, gold, weight)
        assert (row.first, row.second) == pytest.approx(tuple(expected), rel=2e-3)


def test_precise_checkpoints_weigh_more():
    draws = simulate(np.random.default_rng(0), kl_of, gold_of("rl"), betas=BETAS, steps=STEPS, seeds=2, noise=Noise())
    rows = draws.rows.assign(gold_se=np.where(draws.rows["seed"] == 0, 1e-4, 1.0))
    rows.loc[rows["seed"] == 1, "gold"] = 5.0
    uneven = type(draws)(**{**vars(draws), "rows": rows})
    row = fit_overoptimization(uneven, fit_frontiers(draws).smoothed).fits.set_index("form").loc["rl"]
    assert (row["first"], row["second"]) == pytest.approx(TRUTH["rl"], abs=0.3)


def test_seeds_are_held_out_where_there_are_too_few_betas():
    result, _ = fitted(gold_of("rl"), np.random.default_rng(0), betas=(0.02, 0.2))
    assert (result.fits["folds"] == 3).all()
    assert result.fits["chosen"].sum() == 1


def test_one_beta_and_seed_choose_no_form():
    result, _ = fitted(gold_of("rl"), np.random.default_rng(0), betas=(0.02,), seeds=1)
    assert not result.fits["chosen"].any()
    assert result.fits["held_out_rmse"].isna().all()
    assert result.peaks["form"].tolist() == ["none"]
    assert "no form can be chosen" in result.warnings[0]


@pytest.mark.parametrize("form", FORMS)
def test_held_out_error_picks_the_true_form(form):
    rng = np.random.default_rng(5)
    variants = tuple(f"variant {number}" for number in range(20))  # twenty sweeps in one, seeds and prompts in common
    noise = Noise(seed=0.02, cell=0.05, prompt=0.2, sample=0.3)
    result, _ = fitted(gold_of(form), rng, variants=variants, draws=2, noise=noise)
    assert (result.peaks["form"] == form).mean() >= 0.8


def test_coverage_of_parameters_and_peak():
    rng = np.random.default_rng(6)
    kl_peak = np.exp(TRUTH["rl"][0] / TRUTH["rl"][1] - 1) ** 2
    variants = tuple(f"variant {number}" for number in range(20))
    hits, peaks = [], []
    for _ in range(4):  # twenty sweeps in one share seeds and prompts
        result, _ = fitted(gold_of("rl"), rng, draws=50, ends_only=True, seeds=5, variants=variants)
        fit = result.fits.query("form == 'rl'")
        for name, truth in zip(("first", "second"), TRUTH["rl"], strict=True):
            hits += ((fit[f"{name}_low"] <= truth) & (truth <= fit[f"{name}_high"])).tolist()
        inside = result.peaks[result.peaks["inside"]]
        peaks += ((inside["kl_peak_low"] <= kl_peak) & (kl_peak <= inside["kl_peak_high"])).tolist()
    assert np.mean(hits) >= 0.88
    assert len(peaks) == 80
    assert np.mean(peaks) >= 0.8  # smoothing flattens a broad peak; of the best of three forms it was 0.36


def bump(variant, kl):
    """No form of FORMS: a step that comes late."""
    return float(1.2 / (1 + np.exp(-4 * (np.log(kl) - 0.5)))) if kl else 0.0


def test_a_curve_that_no_form_follows_has_none():
    noise = Noise(seed=0.05, cell=0.02, prompt=0.2, sample=0.2, log_kl=0.02)
    result, _ = fitted(bump, np.random.default_rng(0), ends_only=True, seeds=8, noise=noise)
    assert not result.fits["chosen"].any()
    assert (result.fits["lack_of_fit"] < 0.05).all()
    assert result.peaks["form"].tolist() == [NONE_FITS]
    drawn = result.curves[result.curves["chosen"].astype(bool)]
    assert set(drawn["form"]) == {"spline"}
    truth = [bump("", kl) for kl in drawn["kl"]]
    assert np.abs(drawn["gold"] - truth).max() < 0.2


def test_a_true_form_is_rejected_as_often_as_the_level_says():
    """Seeds shift all configurations, prompts too, and larger KL is noisier: none of these is a lack of fit."""
    rng = np.random.default_rng(8)
    noise = Noise(seed=0.2, cell=0.05, prompt=0.5, sample=0.2, log_kl=0.05)
    variants = tuple(f"variant {number}" for number in range(60))
    p = {form: [] for form in FORMS}
    for form, values in p.items():
        result, _ = fitted(gold_of(form), rng, variants=variants, draws=2, ends_only=True, seeds=8, noise=noise)
        values += result.fits.query("form == @form")["lack_of_fit"].tolist()
    rejected = {form: np.mean(np.array(values) < 0.05) for form, values in p.items()}
    assert all(share <= 0.12 for share in rejected.values()), rejected


def test_lack_of_fit_is_the_repeated_measures_f_test():
    """Against scipy's one-sample t test, which it is when one dimension is left."""
    rng = np.random.default_rng(9)
    strengths, seeds = (0.1, 0.2, 0.4, 0.8), range(6)
    d = np.array([2.0, 1.5, 1.0, 0.5])
    gold = CURVES["best_of_n"](d, 1.0, 0.2) + rng.normal(0, 0.1, (6, 4)) + rng.normal(0, 0.3, (6, 1))
    rows = pd.DataFrame(
        [(b, s, 1, d[k] ** 2, gold[s, k]) for k, b in enumerate(strengths) for s in seeds],
        columns=["strength", "seed", "step", "kl", "gold"],
    )
    taken = np.stack([d, -(d**2), np.ones(4)], axis=1)
    free = np.linalg.svd(taken)[0][:, 3]
    expected = stats.ttest_1samp(gold @ free, 0).pvalue  # what the parameters take up is gone, whatever they are
    rows = pd.concat([rows, rows.assign(step=0, kl=0.0, gold=0.1), rows[:1].assign(strength=9.0)])
    table = by_configuration(rows)
    np.testing.assert_allclose(table[1], gold)
    for parameters in ((1.0, 0.2), (0.7, 0.3)):
        assert lack_of_fit("best_of_n", np.array(parameters), *table) == pytest.approx(expected, rel=1e-4)
    for few in (rows[rows["seed"] == 0], rows[rows["strength"] > 0.1]):
        assert np.isnan(lack_of_fit("best_of_n", np.array([1.0, 0.2]), *by_configuration(few)))


@pytest.mark.parametrize("ends_only", [False, True])
def test_noise_alone_makes_no_drop(ends_only):
    rng = np.random.default_rng(7)
    rows = [fitted(lambda variant, kl: 0.0, rng, ends_only=ends_only, draws=50)[0].peaks.iloc[0] for _ in range(30)]
    drops = np.array([row["drop"] for row in rows])
    assert drops.mean() < 3 * drops.std() / np.sqrt(len(drops))
    assert np.mean([row["drop_low"] > 0 for row in rows]) <= 0.1
