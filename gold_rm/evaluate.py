"""How good a gold model is: agreement with human comparisons, calibration, and how its scores are distributed.

python -m gold_rm.evaluate --model GOLD --comparisons comparisons.parquet [--split held_out]
                           [--texts samples.parquet] [--json]
"""

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import optimize, stats
from transformers.utils import logging as transformers_logging

from gold_rm.command_line import run_with_messages, terminal
from gold_rm.comparisons import COLUMNS, HELD_OUT, select_split
from gold_rm.reward_model import GoldModel, GoldModelError, load_gold_model
from gold_rm.texts import read_texts

CONFIDENCE_BINS = 5
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Share:
    """`count` of `total` with the Wilson 95 % interval of the share."""

    count: int
    total: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Comparisons whose stated probability lies in [lower, upper): its mean, and how often it came true."""

    lower: float
    upper: float
    stated: float
    observed: Share


@dataclass(frozen=True)
class Calibration:
    """Stated against observed preference.

    The model states P(chosen first) = σ(margin); as either order of a pair is the same statement, every pair is
    read with the response that the model prefers first, so stated probabilities lie in [1/2, 1].

    Attributes:
        expected_error: mean |stated − observed| over the bins, weighted by their comparisons.
        log_loss: mean −log of the probability given to what the human chose, nats.
        log_loss_coin: that of a model that always says 1/2.
    """

    bins: tuple[ReliabilityBin, ...]
    expected_error: float
    log_loss: float
    log_loss_coin: float = math.log(2)


@dataclass(frozen=True)
class ScoreDistribution:
    """Raw scores of texts; `length_correlation` is Spearman's with the response's words, None if undefined."""

    texts: int
    mean: float
    sd: float
    quantiles: dict[str, float]
    length_correlation: float | None


@dataclass(frozen=True)
class GoldEvaluation:
    """Everything `python -m gold_rm.evaluate` reports; `ties` are pairs of equal scores (no agreement)."""

    gold_model: str
    split: str
    agreement: Share
    ties: int
    calibration: Calibration
    scores: ScoreDistribution


def wilson(count: int, total: int) -> Share:
    """A share with its Wilson 95 % interval."""
    interval = stats.binomtest(count, total).proportion_ci(confidence_level=0.95, method="wilson")
    return Share(count, total, count / total, float(interval.low), float(interval.high))


def calibration(margins: NDArray[np.float64], bins: int = CONFIDENCE_BINS) -> Calibration:
    """Calibration of the margins score(chosen) − score(rejected), [pairs]; bins are equally wide over [1/2, 1]."""
    stated = 1 / (1 + np.exp(-np.abs(margins)))
    edges = np.linspace(0.5, 1.0, bins + 1)
    bin_of = np.minimum(((stated - 0.5) * 2 * bins).astype(int), bins - 1)
    rows = []
    for index in range(bins):
        inside = bin_of == index
        if inside.any():
            observed = wilson(int((margins[inside] > 0).sum()), int(inside.sum()))
            rows.append(ReliabilityBin(edges[index].item(), edges[index + 1].item(), stated[inside].mean(), observed))
    error = sum(abs(row.stated - row.observed.share) * row.observed.total for row in rows) / len(margins)
    return Calibration(tuple(rows), error, float(np.logaddexp(0, -margins).mean()))


def fit_temperature(margins: NDArray[np.float64]) -> float:
    """T that makes σ(margin / T) likeliest for these comparisons: puts a model's scores on the scale of its labels.

    Where all comparisons agree with the model no T is likeliest; the smallest that is tried is returned.

    Args:
        margins: score(chosen) − score(rejected), [pairs], not all 0.

    >>> margins = np.array([2.0, 2.0, 2.0, -2.0])  # right three times out of four: σ(2 / T) = 3/4
    >>> round(fit_temperature(margins), 3)
    1.82
    """
    scale = np.abs(margins).mean()
    log_loss = lambda log_t: np.logaddexp(0, -margins / (scale * np.exp(log_t))).mean()  # noqa: E731
    return float(scale * np.exp(optimize.minimize_scalar(log_loss, bounds=(-7, 7), method="bounded").x))


def score_distribution(scores: NDArray[np.float64], responses: list[str]) -> ScoreDistribution:
    """Moments and quantiles of raw scores, [texts], and their rank correlation with the responses' lengths.

    Raises:
        GoldModelError: fewer than two texts.
    """
    if len(scores) < 2:
        raise GoldModelError(f"{len(scores)} texts have no score distribution; give two or more")
    words = np.array([len(response.split()) for response in responses])
    constant = np.ptp(words) == 0 or np.ptp(scores) == 0
    return ScoreDistribution(
        texts=len(scores),
        mean=float(scores.mean()),
        sd=float(scores.std(ddof=1)),
        quantiles={f"{q:g}": float(value) for q, value in zip(QUANTILES, np.quantile(scores, QUANTILES), strict=True)},
        length_correlation=None if constant else float(stats.spearmanr(scores, words).statistic),
    )


def evaluate(
    gold: GoldModel, comparisons: pd.DataFrame, split: str, texts: pd.DataFrame | None = None
) -> GoldEvaluation:
    """Measure `gold` on one split of comparisons.

    Args:
        comparisons: columns of ``gold_rm.comparisons.COLUMNS``.
        texts: whose scores to describe, columns prompt and response; None takes both responses of every pair.
    Raises:
        GoldModelError: the split is empty, or a text cannot be scored.
    """
    pairs = select_split(comparisons, split)
    prompts, chosen, rejected = (pairs[column].tolist() for column in ("prompt", "chosen", "rejected"))
    both = gold.score([*prompts, *prompts], [*chosen, *rejected]).double().numpy()
    if texts is None:
        distribution = score_distribution(both, chosen + rejected)
    else:
        responses = texts["response"].tolist()
        scores = gold.score(texts["prompt"].tolist(), responses).double().numpy()
        distribution = score_distribution(scores, responses)
    margins = both[: len(pairs)] - both[len(pairs) :]
    return GoldEvaluation(
        gold_model=gold.fingerprint,
        split=split,
        agreement=wilson(int((margins > 0).sum()), len(margins)),
        ties=int((margins == 0).sum()),
        calibration=calibration(margins),
        scores=distribution,
    )


def print_tables(result: GoldEvaluation, console: Console) -> None:
    """The evaluation as tables for people."""
    summary = Table(title=f"gold model {result.gold_model} on {result.split} comparisons", show_header=False)
    fit = result.calibration
    summary.add_row("agreement with the rater", _percent(result.agreement))
    summary.add_row("comparisons", f"{result.agreement.total}, of them {result.ties} with equal scores")
    summary.add_row("log loss (a coin's)", f"{fit.log_loss:.4f} ({fit.log_loss_coin:.4f}) nats")
    summary.add_row("expected calibration error", f"{fit.expected_error:.4f}")
    console.print(summary)
    reliability = Table(
        "stated probability", "mean stated", "came true", title="calibration", caption="intervals: Wilson, 95 %"
    )
    for row in fit.bins:
        reliability.add_row(f"{row.lower:.1f} to {row.upper:.1f}", f"{row.stated:.3f}", _percent(row.observed))
    console.print(reliability)
    scores = result.scores
    distribution = Table(title=f"raw scores of {scores.texts} texts", show_header=False)
    distribution.add_row("mean, SD", f"{scores.mean:.3f}, {scores.sd:.3f}")
    for quantile, value in scores.quantiles.items():
        distribution.add_row(f"quantile {quantile}", f"{value:.3f}")
    correlation = "undefined" if scores.length_correlation is None else f"{scores.length_correlation:+.3f}"
    distribution.add_row("rank correlation with length in words", correlation)
    console.print(distribution)


def _percent(share: Share) -> str:
    return f"{share.share:.1%} [{share.low:.1%}, {share.high:.1%}] of {share.total}"


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 2 with a one-line message for bad input."""
    parser = argparse.ArgumentParser(prog="python -m gold_rm.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face sequence classifier with one output")
    parser.add_argument("--comparisons", type=Path, required=True, help=f"parquet: {', '.join(COLUMNS)}")
    parser.add_argument("--split", default=HELD_OUT, help="split of the comparisons (default: %(default)s)")
    parser.add_argument("--texts", type=Path, help="parquet with prompt and response: describe the scores of these")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    transformers_logging.set_verbosity_error()  # what is wrong with a model is said once, in the message below

    def action() -> int:
        comparisons = read_texts(options.comparisons, COLUMNS)
        texts = None if options.texts is None else read_texts(options.texts, ("prompt", "response"))
        result = evaluate(load_gold_model(options.model), comparisons, options.split, texts)
        if options.json:
            print(json.dumps(asdict(result), indent=1))
        else:
            print_tables(result, terminal())
        return 0

    return run_with_messages(action)


if __name__ == "__main__":
    sys.exit(main())
