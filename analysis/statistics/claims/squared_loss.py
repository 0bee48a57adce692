"""C4: does a smaller μ-weighted squared loss E[ρ²] go with a smaller KL?

The claim denies an implication, so one clear counterexample supports it: two policies of one seed of which the one
with the smaller E[ρ²] has the larger KL. It must be of the same two configurations in several seeds, so that it is no
accident of one run. That no pair was found is no evidence for the implication; what speaks for it is a bound on how far
KL can differ at equal E[ρ²].
"""

from dataclasses import asdict
from typing import Any

from analysis.statistics.claims.claim import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Claim, make_claim
from analysis.statistics.claims.rules import Rules
from analysis.statistics.discordance import Discordance, DiscordantPair

QUANTITY = "KL of the policy with the smaller E[ρ²] over KL of the other, clearest discordant pair"
QUANTITY_AT_EQUAL = "largest ratio of KL at equal E[ρ²], between two variants or steps"


def squared_loss_is_not_kl(discordance: Discordance, rules: Rules) -> Claim:
    """Verdict on C4."""
    pair, equal = discordance.clearest, discordance.at_equal_rho
    shown: dict[str, Any]
    words: dict[str, Any] = {"rule": _rule(rules), "numbers": _numbers(discordance)}
    if pair is not None:
        verdict = SUPPORTED if pair.seeds >= rules.seeds else INCONCLUSIVE
        shown = {"estimate": pair.kl_ratio, "low": pair.kl_ratio_low, "high": pair.kl_ratio_high, "kind": "pairs"}
        return make_claim("C4", verdict, _found(discordance, pair), quantity=QUANTITY, **words, **shown)
    sentence = (
        f"Of {_total(discordance, 'compared')} pairs of policies of one seed, none has E[ρ²] and KL in opposite order "
        "beyond noise."
        if discordance.tested
        else "ρ of single held-out pairs or samples of single prompts are not kept, so policies cannot be compared."
    )
    if equal.ratios.empty:
        return make_claim("C4", INCONCLUSIVE, sentence, quantity=QUANTITY_AT_EQUAL, **words)
    sentence += f" {equal.sentence}"
    verdict = NOT_SUPPORTED if discordance.tested and equal.bound < rules.c4.kl_ratio else INCONCLUSIVE
    shown = {"estimate": equal.largest, "low": equal.low, "high": equal.high, "kind": "equal_rho"}
    return make_claim("C4", verdict, sentence, quantity=QUANTITY_AT_EQUAL, **words, **shown)


def _rule(rules: Rules) -> str:
    return (
        f"Supported: the same two configurations are discordant in at least {rules.seeds} seeds, with at most "
        f"{rules.c4.false_discovery_rate:.0%} false discoveries expected. Not supported: no pair is, and KL at equal "
        f"E[ρ²] differs between variants and steps by less than a factor of {rules.c4.kl_ratio:g} (two one-sided "
        "tests at every point; all must pass, so no correction is due)."
    )


def _total(discordance: Discordance, what: str) -> int:
    return int(discordance.pairs.set_index("pairs").loc["all", what])


def _found(discordance: Discordance, pair: DiscordantPair) -> str:
    compared, found = (_total(discordance, what) for what in ("compared", "discordant"))
    return (
        f"Of {compared:,} pairs of policies of one seed, {found:,} ({found / compared:.1%}) have E[ρ²] and KL in "
        f"opposite order beyond noise. Clearest, in {pair.seeds} {'seed' if pair.seeds == 1 else 'seeds'}: "
        f"{pair.variant_a} at "
        f"strength {pair.strength_a:g}, step {pair.step_a} has {pair.rho_sq_ratio:.2f} [{pair.rho_sq_ratio_low:.2f}, "
        f"{pair.rho_sq_ratio_high:.2f}] times the E[ρ²] of {pair.variant_b} at strength {pair.strength_b:g}, step "
        f"{pair.step_b}, and {pair.kl_ratio:.2f} [{pair.kl_ratio_low:.2f}, {pair.kl_ratio_high:.2f}] times its KL "
        f"(seed {pair.seed})."
    )


def _numbers(discordance: Discordance) -> dict[str, Any]:
    return {
        "pairs": discordance.pairs.to_dict("records"),
        "by_seed": discordance.by_seed.to_dict("records"),
        "rank_correlations": discordance.rank_correlations.to_dict("records"),
        "at_equal_rho_sq": discordance.at_equal_rho.ratios.to_dict("records"),
        "clearest": None if discordance.clearest is None else asdict(discordance.clearest),
    }
