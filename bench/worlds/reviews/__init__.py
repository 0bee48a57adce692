"""World ``reviews``: a synthetic language of short reviews, a GPT-2 trained on it, and a hidden rater (ours).

Everything is made from the word lists in ``lexicon`` and a seed: no text, no download. ``facts.json`` in the built
directory says how fluent π_ref is on prompts that it was not trained on, and how often a rater without error would
agree with the noisy comparisons.

World ``reviews`` of conf/world is not built but comes with the code (``frozen/``): training rounds differently on every
machine, and a benchmark needs one world.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bench.checked import ConfigError
from bench.policies.load import load_policy
from bench.seeding import generator_for
from bench.worlds import write_world
from bench.worlds.reviews.comparisons import draw_comparisons
from bench.worlds.reviews.facts import measure, rater_agreement
from bench.worlds.reviews.language import PROMPTS
from bench.worlds.reviews.rater import utility
from bench.worlds.reviews.reference_policy import PolicyParams, train_reference_policy

VERSION = 2
SHIPS = "reviews"  # conf/world/reviews.yaml, by `python -m bench.freeze`
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
        rebuild: build from the word lists on this machine instead of taking what comes with the code.
    """

    train_prompts: int = 712
    eval_prompts: int = 512
    policy: PolicyParams = field(default_factory=PolicyParams)
    comparisons: int = 24_000
    held_out_comparisons: int = 2_000
    rater_temperature: float = 1.0
    facts_reviews: int = 4_096
    seed: int = 0
    rebuild: bool = False

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
    """Write prompts, π_ref, comparisons and facts; the same settings give the same files on one machine.

    π_ref and the comparisons that the gold model is fitted to have the train prompts only.
    """
    order = torch.randperm(len(PROMPTS), generator=generator_for(params.seed, "prompts")).tolist()
    train = [PROMPTS[i] for i in order[: params.train_prompts]]
    evaluation = [PROMPTS[i] for i in order[params.train_prompts : params.train_prompts + params.eval_prompts]]
    train_reference_policy(train, params.policy, params.seed, directory / POLICY_DIR, progress)
    policy = load_policy(directory / POLICY_DIR)
    comparisons = {
        split: draw_comparisons(
            prompts,
            count,
            temperature=params.rater_temperature,
            generator=generator_for(params.seed, "comparisons", split),
        )
        for split, prompts, count in (
            ("train", train, params.comparisons), ("held_out", evaluation, params.held_out_comparisons),
        )
    }  # fmt: skip
    positions = params.policy.positions
    facts = {
        **measure(policy, evaluation, reviews=params.facts_reviews, positions=positions, seed=params.seed),
        **rater_agreement(comparisons["held_out"], evaluation),
    }
    (directory / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")
    progress(
        f"reference policy: perplexity {facts['policy_perplexity']:.3f} per token, "
        f"the language's own {facts['language_perplexity']:.3f}"
    )
    write_world(
        directory,
        policy=POLICY_DIR,
        train_prompts=[prompt.text for prompt in train],
        eval_prompts=[prompt.text for prompt in evaluation],
        comparisons=pd.concat(frame.assign(split=split) for split, frame in comparisons.items()),
    )


def utilities(prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
    """What each response is worth to the hidden rater, in the rater's own units, [responses].

    Raises:
        ConfigError: a prompt that is none of this language's.
    """
    return np.array([_utility(prompt, response) for prompt, response in zip(prompts, responses, strict=True)])


def _utility(prompt: str, response: str) -> float:
    if prompt not in _BY_TEXT:
        raise ConfigError(f"prompt {prompt!r}: the rater of world {SHIPS} knows prompts such as {min(_BY_TEXT)!r}")
    return utility(_BY_TEXT[prompt], response.split())


_BY_TEXT = {prompt.text: prompt for prompt in PROMPTS}
