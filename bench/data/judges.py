"""Who scores responses beside the gold model: a proxy, other reward models, and a synthetic world's hidden rater.

Each is put on the scale on which π_ref's reference samples (at most 64 of each prompt) have mean 0 and SD 1, as gold's.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from bench.checked import ConfigError
from bench.data.artifacts import DamagedArtifact
from bench.data.preferences import Scorer
from bench.data.reference_samples import STANDARDIZATION_FILE, load_reference, load_standardization
from bench.policies.ranks import Ranks
from gold_rm.fingerprint import fingerprint_of_model
from gold_rm.reward_model import GoldModelError, Standardization, load_gold_model

MODEL_DIR = "model"  # of one that was fitted here
WHERE_FILE = "model.json"  # of one that lies elsewhere
_OF_EACH_PROMPT = 64  # of π_ref's samples: the scale of 256 prompts' is then known to 0.01 SD
UTILITY = "utility"  # the hidden rater's


class Judge(NamedTuple):
    """A name, and standardized scores [texts] float64 of responses to prompts."""

    name: str
    score: Scorer

    def shared(self, ranks: Ranks) -> "Judge":
        """The same judge, whose work ranks share."""
        return self if ranks.world_size == 1 else Judge(self.name, partial(_score_together, self.score, ranks))


def _score_together(score: Scorer, ranks: Ranks, prompts: list[str], responses: list[str]) -> np.ndarray:
    part = ranks.part(len(prompts))
    own = score(prompts[part], responses[part]) if prompts[part] else np.empty(0)
    return np.concatenate(ranks.gather(np.asarray(own)))


def write_scale(reference_dir: Path, scorer: Scorer, directory: Path, *, who: str) -> None:
    """Fit the scale of raw scores to π_ref's samples.

    Raises:
        ConfigError: a sample cannot be scored, or all have one score.
    """
    samples = load_reference(reference_dir)
    samples = samples[samples["sample_id"] < _OF_EACH_PROMPT]
    try:
        raw = scorer(samples["prompt"].tolist(), samples["response"].tolist())
        scale = Standardization.fit(torch.from_numpy(np.asarray(raw, dtype=np.float64)))
    except GoldModelError as error:
        raise ConfigError(f"{who} cannot score π_ref's samples: {error}") from error
    (directory / STANDARDIZATION_FILE).write_text(json.dumps(asdict(scale)) + "\n")


def write_watched(model_dir: Path, reference_dir: Path, directory: Path) -> None:
    """The scale of a ready reward model, and where it lies."""
    write_scale(reference_dir, raw_scorer(model_dir), directory, who=f"watch={model_dir}")
    where = {"path": str(model_dir.resolve()), "fingerprint": fingerprint_of_model(model_dir)}
    (directory / WHERE_FILE).write_text(json.dumps(where) + "\n")


def raw_scorer(model_dir: Path, device: str = "cpu") -> Scorer:
    """A reward model's own scores."""
    model = load_gold_model(model_dir, device=device)
    return lambda prompts, responses: model.score(prompts, responses).double().numpy()


def load_judge(name: str, directory: Path, device: str = "cpu", *, rater: Scorer | None = None) -> Judge:
    """The judge whose scale is in `directory`.

    Args:
        rater: a world's own, whose raw scores need no model.
    Raises:
        DamagedArtifact: its model lies elsewhere, and is not there or another one by now.
    """
    scale = load_standardization(directory)
    if rater is not None:
        raw = rater
    elif (directory / MODEL_DIR).is_dir():
        raw = raw_scorer(directory / MODEL_DIR, device)
    else:
        where = json.loads((directory / WHERE_FILE).read_text())
        if (found := fingerprint_of_model(Path(where["path"]))) != where["fingerprint"]:
            raise DamagedArtifact(f"{where['path']} is {found}, the sweep was planned with {where['fingerprint']}")
        raw = raw_scorer(Path(where["path"]), device)
    return Judge(name, lambda prompts, responses: (raw(prompts, responses) - scale.mean) / scale.sd)


def score_columns(judges: Sequence[Judge], prompts: list[str], responses: list[str]) -> pd.DataFrame:
    """Scores of every judge, a column each."""
    return pd.DataFrame({judge.name: judge.score(prompts, responses) for judge in judges})
