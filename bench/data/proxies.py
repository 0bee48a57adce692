"""A proxy: a reward model fitted to the gold model's labels of π_ref's samples (Gao et al. 2023, section 2)."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from bench.checked import ConfigError
from bench.data.artifacts import PAIRS_FILE
from bench.data.judges import MODEL_DIR, raw_scorer, write_scale
from bench.data.parts import part_of, rows_of
from bench.data.preferences import HELD_OUT, TRAIN
from bench.losses import resolve_loss
from bench.sections import ProxyConfig
from gold_rm.evaluate import calibration, fit_temperature, wilson
from gold_rm.proxies import SIZES
from gold_rm.reward_model import load_gold_model
from gold_rm.train import GoldTrainConfig, train_gold_model

VERSION = 1  # raised whenever the same settings would give another proxy, or other facts
FACTS_FILE = "facts.json"
_THREADS = 1  # a proxy is the same wherever it is fitted, however many cores there are


def write_proxy(
    comparisons_dir: Path,
    tokenizer_dir: Path,
    config: ProxyConfig,
    max_tokens: int,
    reference_dir: Path,
    directory: Path,
) -> None:
    """Fit a proxy; write its model, its scale on π_ref's samples, and how well it agrees with held-out gold labels.

    Args:
        comparisons_dir: preference data labeled by the gold model, splits ``train`` and ``held_out``.
        max_tokens: of prompt and response.
    Raises:
        ConfigError: fewer comparisons than it is to be fitted to.
    """
    comparisons = pd.read_parquet(comparisons_dir / PAIRS_FILE)
    train, held_out = (comparisons[comparisons["split"] == split] for split in (TRAIN, HELD_OUT))
    if config.pairs > len(train):
        raise ConfigError(
            f"proxy.pairs={config.pairs}: {len(train)} of proxy.pool={config.pool} comparisons are left after ties"
        )
    size = SIZES[config.size]
    settings = GoldTrainConfig(
        layers=size.layers, width=size.width, heads=size.heads, max_tokens=max_tokens, steps=config.steps,
        batch_pairs=min(config.batch_pairs, config.pairs), lr=config.lr, seed=config.seed,
        threads=_THREADS,
    )  # fmt: skip
    own = train.iloc[rows_of(config.seed, len(train), config.pairs)]
    loss = resolve_loss(config.loss).fn
    model_dir = directory / MODEL_DIR
    train_gold_model(pd.concat([own, held_out]), tokenizer_dir, settings, model_dir, loss=loss)
    write_scale(reference_dir, raw_scorer(model_dir), directory, who=f"proxy.size={config.size}")
    facts = {"comparisons": len(train), **_facts(model_dir, held_out)}
    (directory / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")


def _facts(model_dir: Path, held_out: pd.DataFrame) -> dict[str, float]:
    """Size, agreement with gold on held-out pairs, and calibration: scaled on one half of them, measured on the other.

    What counts is which response gold scores higher, also where the label says otherwise, as noise has turned it.

    A loss other than the logistic has no stake in the scale of its margins, so that only what is left after one common
    factor says how well it is calibrated.
    """
    model = load_gold_model(model_dir)
    prompts = held_out["prompt"].tolist()
    chosen, rejected = (
        model.score(prompts, held_out[side].tolist()).double().numpy() for side in ("chosen", "rejected")
    )
    margins = (chosen - rejected) * np.sign(held_out["gold_chosen"] - held_out["gold_rejected"]).to_numpy()
    margins = margins[margins != 0]  # a tie in gold has no right order
    agreement = wilson(int((margins > 0).sum()), len(margins))
    temperature = fit_temperature(margins[::2])
    scaled = calibration(margins[1::2] / temperature)
    return {
        "parameters": model.parameters,
        "held_out": len(margins),
        "agreement": agreement.share,
        "agreement_low": agreement.low,
        "agreement_high": agreement.high,
        "temperature": temperature,
        "calibration_error": scaled.expected_error,
        "log_loss": scaled.log_loss,
    }


def read_facts(directory: Path) -> dict[str, float]:
    """What is known of the proxy in `directory`."""
    return dict(json.loads((directory / FACTS_FILE).read_text()))


def check_parts(fitted: Iterable[tuple[ProxyConfig, Path]]) -> None:
    """Refuse two seeds of proxies on the same comparisons: the spread between them would understate their error.

    Args:
        fitted: settings and directory of each proxy.
    Raises:
        ConfigError: naming two such seeds.
    """
    owner: dict[tuple[int, int, int], int] = {}
    for config, directory in fitted:
        there = int(read_facts(directory)["comparisons"])
        part = part_of(config.seed, there, config.pairs)
        first = owner.setdefault((config.pool, config.pairs, part), config.seed)
        if first != config.seed:
            raise ConfigError(
                f"proxy.seed={first},{config.seed}: both proxies would be fitted to part {part} of the comparisons; "
                f"proxy.pool={config.pool} gives {there // config.pairs} disjoint parts of proxy.pairs={config.pairs}, "
                "and a seed takes part seed mod that number"
            )
