"""Building artifacts: what ships with the code is copied, the rest is built once; and what π_ref's samples are."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import worlds
from bench.checked import ConfigError
from bench.config import CellConfig
from bench.data.artifacts import Artifact, build_once
from bench.data.preferences import sample_pool
from bench.data.prepared import gold_directory
from bench.data.reference_samples import load_standardization, sample_best_of_n, sample_reference
from bench.data.shipped import copy_of_shipped, frozen_directory
from bench.policies.load import load_policy, resolve_device
from bench.policies.policy import Policy
from bench.sections import PairsConfig
from bench.worlds import World
from gold_rm.reward_model import GoldModel, load_gold_model

Progress = Callable[[str], None]


class Building:
    """Where artifacts are built, and what of them ships with the code."""

    def __init__(self, config: CellConfig, progress: Progress, *, from_shipped: bool) -> None:
        self.root, self.progress = Path(config.artifacts_dir), progress
        self.shipped = frozen_directory(worlds.builder_module(config.world.builder)) if from_shipped else None

    def build(self, kind: str, inputs: dict[str, Any], builder: Callable[[Path], None]) -> Artifact:
        """The artifact made from `inputs`: found, copied from what ships, or built."""
        if self.shipped is not None and kind in worlds.SHIPPED_KINDS:
            builder = copy_of_shipped(self.shipped, kind, inputs) or builder
        return build_once(self.root, kind, inputs, builder, self.progress)


class Sampling:
    """What π_ref's samples are drawn with: reference samples first, then the pool, on one scale of gold."""

    def __init__(
        self, building: Building, config: CellConfig, world: World, gold: Artifact, eval_prompts: list[str]
    ) -> None:
        self._building, self._config, self._world, self._gold = building, config, world, gold
        self._eval_prompts = eval_prompts

    def build_reference(self, world: Artifact) -> Artifact:
        """π_ref's own samples on the evaluation prompts."""
        per_prompt = self._config.evaluation.reference_samples
        return self._building.build(
            "reference",
            {**self._inputs(world), "per_prompt": per_prompt},
            lambda directory: sample_reference(
                *self._models(),
                self._eval_prompts,
                per_prompt=per_prompt,
                max_new_tokens=self._config.world.max_new_tokens,
                directory=directory,
            ),
        )

    def build_pool(self, world: Artifact, reference: Artifact, pairs: PairsConfig, purpose: str = "pairs") -> Artifact:
        """Unlabeled pairs, in SD of the reference samples' gold; other ones for another purpose."""
        sizes: dict[str, Any] = {"pool": pairs.pool, "held_out": pairs.held_out, "seed": pairs.seed}
        if purpose != "pairs":
            sizes["purpose"] = purpose
        return self._building.build(
            "pool",
            {**self._inputs(world), "reference": reference.fingerprint, **sizes},
            lambda directory: sample_pool(
                *self._models(),
                load_standardization(reference.path),
                {"train": self._world.train_prompts, "eval": self._eval_prompts},
                pairs,
                self._config.world.max_new_tokens,
                directory,
                purpose=purpose,
            ),
        )

    def build_best_of_n(self, world: Artifact, reference: Artifact) -> Artifact:
        """Samples of π_ref to take the best of, scored by gold."""
        sizes = self._config.best_of_n
        return self._building.build(
            "best_of_n",
            {**self._inputs(world), "reference": reference.fingerprint, **asdict(sizes)},
            lambda directory: sample_best_of_n(
                *self._models(),
                load_standardization(reference.path),
                self._eval_prompts[: sizes.prompts],
                per_prompt=sizes.samples,
                max_new_tokens=self._config.world.max_new_tokens,
                directory=directory,
            ),
        )

    @property
    def longest_text(self) -> int:
        """Tokens that a reward model with π_ref's tokenizer must be able to read of a prompt and a response.

        Twice as many as π_ref writes: what it has written may be encoded in more tokens than it was written in.
        """
        prompts = [*self._world.train_prompts, *self._eval_prompts]
        policy = load_policy(self._world.policy_dir, settings=self._config.policy)
        return 2 * (max(map(len, policy.encode(prompts))) + self._config.world.max_new_tokens)

    def _inputs(self, world: Artifact) -> dict[str, Any]:
        return {
            "world": world.fingerprint,
            "gold": self._gold.fingerprint,
            "max_new_tokens": self._config.world.max_new_tokens,
            "eval_prompts": len(self._eval_prompts),
            **self._config.policy.moving_samples,
        }

    def _models(self) -> tuple[Policy, GoldModel]:
        device = resolve_device(self._config.device)
        policy = load_policy(
            self._world.policy_dir, device=device, logits_mib=self._config.logits_mib, settings=self._config.policy
        )
        _check_room(policy, [*self._world.train_prompts, *self._eval_prompts], self._config.world.max_new_tokens)
        return policy, load_gold_model(gold_directory(self._gold), device=device)


def _check_room(policy: Policy, prompts: list[str], max_new_tokens: int) -> None:
    """Refuse prompts that leave no room for the longest response among the policy's positions."""
    if (positions := policy.context_length) is None:
        return
    lengths = list(map(len, policy.encode(prompts)))
    if (longest := max(lengths)) + max_new_tokens > positions:
        prompt, room = prompts[lengths.index(longest)], max(0, positions - longest)
        raise ConfigError(
            f"world.max_new_tokens={max_new_tokens}: the policy has {positions} positions, and the longest prompt, of "
            f"{longest} tokens ({prompt!r:.60}), leaves {room} of them; shorten the prompts or the responses"
        )
