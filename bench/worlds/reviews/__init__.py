"""World ``reviews``: a synthetic language of short reviews, a GPT-2 trained on it, and a hidden rater (ours).

Everything is made from the word lists in ``lexicon`` and a seed: no text, no download. ``facts.json`` in the built
directory says how fluent π_ref is.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from bench.checked import ConfigError
from bench.policies.load import load_policy
from bench.seeding import generator_for
from bench.worlds import write_world
from bench.worlds.reviews.comparisons import draw_comparisons
from bench.worlds.reviews.facts import measure
from bench.worlds.reviews.language import PROMPTS
from bench.worlds.reviews.reference_policy import PolicyParams, train_reference_policy

VERSION = 1
POLICY_DIR, FACTS_FILE = "policy", "facts.json"


@dataclass(frozen=True)
class Params:
    """Settings of the world.

    Attributes:
        train_prompts, eval_prompts: sizes of the two disjoint sets, out of all prompts there are.
        comparisons, held_out_comparisons: pairs that the rater judges, to fit and to check the gold model.
        rater_temperature: of the rater's Bradley–Terry choices, in units of utility; π_ref's reviews differ by
            an SD of about 2.4.
        facts_reviews: reviews and samples behind each fact in facts.json.
        seed: of the split, the policy and the comparisons.
    """

    train_prompts: int = 712
    eval_prompts: int = 512
    policy: PolicyParams = field(default_factory=PolicyParams)
    comparisons: int = 24_000
    held_out_comparisons: int = 2_000
    rater_temperature: float = 1.0
    facts_reviews: int = 4_096
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train_prompts", "eval_prompts", "comparisons", "held_out_comparisons"):
            if getattr(self, name) < 1:
                raise ConfigError(f"world.params.{name}={getattr(self, name)}: must be 1 or more")
        if self.train_prompts + self.eval_prompts > len(PROMPTS):
            raise ConfigError(
                f"world.params.train_prompts={self.train_prompts} and eval_prompts={self.eval_prompts}: "
                f"the language has {len(PROMPTS)} prompts in all"
            )
        if not (math.isfinite(self.rater_temperature) and self.rater_temperature > 0):
            raise ConfigError(f"world.params.rater_temperature={self.rater_temperature}: must be finite and above 0")
        if self.facts_reviews < 2:
            raise ConfigError(f"world.params.facts_reviews={self.facts_reviews}: must be 2 or more")
        if self.seed < 0:
            raise ConfigError(f"world.params.seed={self.seed}: must be 0 or more")


def build(params: Params, directory: Path, progress: Callable[[str], None]) -> None:
    """Write prompts, π_ref, comparisons and facts; the same settings give the same files."""
    order = torch.randperm(len(PROMPTS), generator=generator_for(params.seed, "prompts")).tolist()
    prompts = [PROMPTS[i] for i in order[: params.train_prompts + params.eval_prompts]]
    train_reference_policy(prompts, params.policy, params.seed, directory / POLICY_DIR, progress)
    facts = measure(
        load_policy(directory / POLICY_DIR),
        prompts,
        reviews=params.facts_reviews,
        positions=params.policy.positions,
        seed=params.seed,
    )
    (directory / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")
    progress(
        f"reference policy: perplexity {facts['policy_perplexity']:.3f} per token, "
        f"the language's own {facts['language_perplexity']:.3f}"
    )
    comparisons = pd.concat(
        draw_comparisons(
            prompts,
            count,
            temperature=params.rater_temperature,
            generator=generator_for(params.seed, "comparisons", split),
        ).assign(split=split)
        for split, count in (("train", params.comparisons), ("held_out", params.held_out_comparisons))
    )
    texts = [prompt.text for prompt in prompts]
    write_world(
        directory,
        policy=POLICY_DIR,
        train_prompts=texts[: params.train_prompts],
        eval_prompts=texts[params.train_prompts :],
        comparisons=comparisons,
    )
