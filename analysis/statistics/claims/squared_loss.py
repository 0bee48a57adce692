"""C4: does a smaller μ-weighted squared loss E[ρ²] go with a smaller KL?"""

from dataclasses import asdict
from typing import Any

from analysis.statistics.claims.claim import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Claim, make_claim
from analysis.statistics.claims.rules import Rules
from analysis.statistics.discordance import Discordance

QUANTITY = "KL of the checkpoint with the smaller E[ρ²] over KL of the other, clearest discordant pair"
RULE = (
    "Supported: a pair of checkpoints has E[ρ²] and KL in opposite order beyond noise. Not supported: none has among "
    "at least 100 pairs whose order is resolved."
)
ENOUGH_PAIRS = 100


def squared_loss_is_not_kl(discordance: Discordance, rules: Rules) -> Claim:
    """Verdict on C4."""
    totals = discordance.pairs.set_index("pairs").loc["all"]
    numbers = {
        "pairs": discordance.pairs.to_dict("records"),
        "rank_correlations": discordance.rank_correlations.to_dict("records"),
        "clearest": None if discordance.clearest is None else asdict(discordance.clearest),
    }
    words: dict[str, Any] = {"rule": RULE, "quantity": QUANTITY}
    if discordance.seeds < 2:
        sentence = "Noise between runs is unknown with one seed."
        return make_claim("C4", INCONCLUSIVE, sentence, numbers=numbers, **words)
    counted = f"Of {int(totals['resolved'])} pairs of checkpoints ordered beyond noise in E[ρ²] and in KL,"
    pair = discordance.clearest
    if pair is None:
        verdict = NOT_SUPPORTED if totals["resolved"] >= ENOUGH_PAIRS else INCONCLUSIVE
        return make_claim("C4", verdict, f"{counted} none has the two in opposite order.", numbers=numbers, **words)
    sentence = (
        f"{counted} {int(totals['discordant'])} ({totals['share']:.1%}) have the two in opposite order; clearest: "
        f"{pair.variant_a} at strength {pair.strength_a:g}, step {pair.step_a} has {pair.rho_sq_ratio:.2f} times the "
        f"E[ρ²] of {pair.variant_b} at strength {pair.strength_b:g}, step {pair.step_b}, and {pair.kl_ratio:.2f} times "
        f"its KL [{pair.kl_ratio_low:.2f}, {pair.kl_ratio_high:.2f}]."
    )
    interval: dict[str, Any] = {
        "estimate": pair.kl_ratio,
        "low": pair.kl_ratio_low,
        "high": pair.kl_ratio_high,
        "kind": "pairs",
    }
    return make_claim("C4", SUPPORTED, sentence, numbers=numbers, **words, **interval)
