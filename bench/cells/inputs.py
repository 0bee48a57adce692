"""What the cells of one worker share in memory: models, evaluation set, preference pairs."""

from collections import OrderedDict
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from bench.cells.evaluation import EvaluationSet, SampleEvaluation, evaluate_held_out, evaluate_samples
from bench.config import CellConfig
from bench.data.artifacts import PAIRS_FILE
from bench.data.judges import UTILITY, Judge, load_judge
from bench.data.pairs import PairLogProbs, PreferencePairs, load_pairs
from bench.data.parts import rows_of
from bench.data.preferences import HELD_OUT, TRAIN
from bench.data.prepared import Prepared
from bench.data.proxies import read_facts
from bench.data.reference_samples import load_reference, load_standardization
from bench.policies.load import Policy, load_policy, resolve_device
from bench.policies.memory import free
from bench.policies.ranks import ALONE, Ranks
from bench.sections import GOLD, PROXY
from bench.seeding import uniforms_for
from bench.worlds import builder_module, read_world
from gold_rm.reward_model import GoldModel, Standardization, load_gold_model

_STARTS = 16  # seeds whose step 0 is kept


class SharedInputs(NamedTuple):
    """What all cells on one set of prepared data have in common.

    Attributes:
        reference: π_ref; never trained.
        pool: the preference data's training pairs, of which a seed draws its own.
        judges: who else scores what a policy says.
        labeller: who makes the labels.
        proxy: what is known of the proxy, `bench.data.proxies.read_facts`; nothing where there is none.
        train_prompts: what a method that samples for itself draws from.
        label_probability: mean probability that the higher gold score is the chosen one, over all pairs.
    """

    reference: Policy
    gold: GoldModel
    standardization: Standardization
    evaluation: EvaluationSet
    pool: PreferencePairs
    label_probability: float
    judges: tuple[Judge, ...]
    labeller: Judge
    proxy: dict[str, float]
    train_prompts: list[str]


class Start(NamedTuple):
    """π_ref as step 0 of a cell measures it: its fresh samples, and its view of the held-out pairs."""

    sampled: SampleEvaluation
    on_pairs: PairLogProbs


class InputCache:
    """Inputs of the cells of one worker. It holds one set of data: another one takes its place and its memory.

    Attributes:
        ranks: the worker's processes.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self._key: tuple[object, ...] | None = None
        self._shared: SharedInputs | None = None
        self._starts: OrderedDict[tuple[object, ...], Start] = OrderedDict()

    def shared(self, prepared: Prepared, config: CellConfig) -> SharedInputs:
        """Load what `prepared` names, verified, or return it from memory.

        Raises:
            DamagedArtifact: files are not those that were prepared.
            ConfigError, GoldModelError: a model that cannot be loaded, or no such device.
        """
        device = resolve_device(config.device)
        key = (prepared, device, config.logits_mib, *sorted(config.policy.moving_samples.items()))
        if self._shared is None or key != self._key:
            self.clear()
            prepared.verify()
            self._shared, self._key = _load(prepared, config, device, self.ranks), key
        return self._shared

    def start(self, prepared: Prepared, config: CellConfig) -> Start:
        """π_ref at step 0, which cells that differ in loss or β only have in common.

        That a cell's policy is the copy of π_ref that this stands for is checked on held-out responses.
        """
        shared, batch_size = self.shared(prepared, config), config.evaluation.batch_size
        key = (config.seed, config.world.max_new_tokens, config.length_normalized, batch_size, config.cpu_threads)
        if key not in self._starts:
            on = shared.evaluation
            self._starts[key] = Start(
                evaluate_samples(
                    shared.reference,
                    shared.gold,
                    shared.standardization,
                    on,
                    judges=shared.judges,
                    step=0,
                    uniforms=evaluation_uniforms(config, 0),
                    batch_size=batch_size,
                ),
                evaluate_held_out(
                    shared.reference, on.held_out, length_normalized=config.length_normalized, batch_size=batch_size
                ),
            )
            if len(self._starts) > _STARTS:
                self._starts.popitem(last=False)
        return self._starts[key]

    def clear(self) -> None:
        """Forget everything and give its memory back."""
        self._key = self._shared = None
        self._starts.clear()
        free()


def evaluation_uniforms(config: CellConfig, step: int) -> Float64[Tensor, "responses tokens"]:
    """What a cell's fresh samples at `step` are drawn with; the same for every loss and β of a seed.

    Several of each prompt at the last step only: policies are compared where they end. Those on the way, and π_ref,
    which is the same for all, take what costs a fourth. A prompt's first sample is the same however many there are.
    """
    samples = config.evaluation.samples_per_prompt if step == config.optim.steps else 1
    count = config.evaluation.prompts * samples
    return uniforms_for(config.seed, "evaluation", step, count=count, tokens=config.world.max_new_tokens)


def training_pairs(pool: PreferencePairs, config: CellConfig) -> PreferencePairs:
    """The pairs of a cell: a seed has data of its own, not only an order of its own (a replication, not a re-run)."""
    return pool.take(torch.tensor(rows_of(config.seed, len(pool), config.pairs.per_cell)))


def _load(prepared: Prepared, config: CellConfig, device: str, ranks: Ranks) -> SharedInputs:
    reference = load_policy(prepared.policy_dir, device=device, logits_mib=config.logits_mib, settings=config.policy)
    reference = replace(reference, ranks=ranks)
    data = prepared.preferences.path
    samples = load_reference(prepared.reference.path)
    first = samples.query("sample_id == 0")
    prompts = first["prompt"].tolist()
    labels = pd.read_parquet(data / PAIRS_FILE, columns=["label_probability"])["label_probability"]
    gold, scale = load_gold_model(prepared.gold_dir, device=device), load_standardization(prepared.reference.path)
    rater = getattr(builder_module(config.world.builder), "utilities", None)
    judges = {
        name: load_judge(name, artifact.path, device, rater=rater if name == UTILITY else None).shared(ranks)
        for name, artifact in prepared.judges
    }
    of_gold = Judge(GOLD, lambda prompts, responses: scale.apply(gold.score(prompts, responses)).double().numpy())
    of_gold = of_gold.shared(ranks)
    return SharedInputs(
        reference,
        gold,
        scale,
        EvaluationSet(
            prompts,
            reference.encode(prompts),
            first["response"].tolist(),
            samples["gold"].to_numpy().reshape(len(first), -1),
            load_pairs(data, HELD_OUT, pad_id=reference.pad_id),
        ),
        load_pairs(data, TRAIN, pad_id=reference.pad_id),
        float(labels.mean()),
        tuple(judges.values()),
        {GOLD: of_gold, **judges}[config.labels.by],
        read_facts(dict(prepared.judges)[PROXY].path) if PROXY in judges else {},
        read_world(prepared.world.path).train_prompts,
    )
