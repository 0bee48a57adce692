"""Gold scores become preferences (Gao et al. 2023, arXiv 2210.10760, section 2)."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

DETERMINISTIC, BRADLEY_TERRY = "deterministic", "bradley_terry"
RULES = (DETERMINISTIC, BRADLEY_TERRY)


class PairLabels(NamedTuple):
    """Labels of pairs (a, b).

    Attributes:
        prefer_a: bool, True where a is the chosen response.
        label_probability: float64, the probability, flips included, that the response with the higher gold
            score is the chosen one; 1/2 where the scores tie.
        flipped: bool, True where the flip rate has inverted the label.
        tie: bool, True where the gold scores are exactly equal. Such a label is a fair coin under either rule.
    """

    prefer_a: Bool[Tensor, " pairs"]
    label_probability: Float[Tensor, " pairs"]
    flipped: Bool[Tensor, " pairs"]
    tie: Bool[Tensor, " pairs"]


def label_pairs(
    gold_a: Float[Tensor, "..."],
    gold_b: Float[Tensor, "..."],
    *,
    rule: str,
    temperature: float,
    flip_rate: float,
    generator: torch.Generator,
) -> PairLabels:
    """Draw one preference label per pair.

    ``deterministic``: the higher gold score wins. ``bradley_terry``: a wins with probability
    σ((gold_a − gold_b) / temperature). Either label is then inverted with probability `flip_rate`.

    Args:
        gold_a, gold_b: gold scores, [pairs]; checked in use, not only under pytest.
        temperature: in the unit of the scores; read by ``bradley_terry`` only.
        flip_rate: in [0, 0.5).
        generator: on the CPU.
    Raises:
        ValueError: unknown rule, temperature or flip rate out of range, scores that are not finite, or shapes
            that are not one equal dimension.

    >>> scores = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    >>> draw = torch.Generator().manual_seed(0)
    >>> labels = label_pairs(*scores, rule="deterministic", temperature=1.0, flip_rate=0.0, generator=draw)
    >>> labels.prefer_a.tolist(), labels.label_probability.tolist()
    ([True, False], [1.0, 1.0])
    """
    _check_settings(rule, temperature, flip_rate)
    _check_scores(gold_a, gold_b)
    margin = gold_a.to("cpu", torch.float64) - gold_b.to("cpu", torch.float64)
    tie = margin == 0
    # A tie has margin 0, for which both rules give 1/2: sign(0) = 0 and σ(0) = 1/2.
    a_wins = (1 + margin.sign()) / 2 if rule == DETERMINISTIC else torch.sigmoid(margin / temperature)
    higher_wins = torch.maximum(a_wins, 1 - a_wins)
    flipped = _draw(margin, generator) < flip_rate
    return PairLabels(
        prefer_a=(_draw(margin, generator) < a_wins) ^ flipped,
        label_probability=higher_wins * (1 - flip_rate) + (1 - higher_wins) * flip_rate,
        flipped=flipped,
        tie=tie,
    )


def _draw(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, dtype=torch.float64, generator=generator)


def _check_settings(rule: str, temperature: float, flip_rate: float) -> None:
    if rule not in RULES:
        raise ValueError(f"label rule {rule!r}: allowed are {', '.join(RULES)}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"label temperature {temperature}: must be a finite number above 0")
    if not 0 <= flip_rate < 0.5:
        raise ValueError(f"flip rate {flip_rate}: must lie in [0, 0.5); from 0.5 on labels say nothing or the opposite")


def _check_scores(gold_a: Tensor, gold_b: Tensor) -> None:
    if gold_a.ndim != 1 or gold_a.shape != gold_b.shape:
        raise ValueError(f"gold scores of shapes {tuple(gold_a.shape)} and {tuple(gold_b.shape)}: both must be [pairs]")
    for name, scores in (("gold_a", gold_a), ("gold_b", gold_b)):
        if not scores.isfinite().all():
            bad = int((~scores.isfinite()).nonzero()[0])
            raise ValueError(f"{name}[{bad}] is {scores[bad].item()}; every gold score must be finite to be labeled")
