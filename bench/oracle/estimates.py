"""The records of saved policies beside what an enumeration of these policies gives: every estimator, on both sides."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.cells.evaluation import ENDED
from bench.config import CellConfig
from bench.losses import resolve_loss
from bench.oracle.exact import ExactWorld, tilted
from bench.oracle.population import implicit_reward, pair_probabilities
from bench.policies.load import load_policy
from bench.records import POLICY_DIR, RECORDS_FILE, SAMPLES_FILE, read_records, read_status

# Three estimates of each of some sixty policies: by chance, one of them lies this far off once in 10,000 sweeps. ρ is
# of pairs that are known, and off by rounding only.
LIMIT_SE = 5.0
# E[ρ] of the final policy under the exact data, over that of its loss's optimum: 1 after long training on many pairs.
# (up to 1.4 where some labels are few). Twice the β halves it, turned labels change its sign.
REACHED = (0.75, 1.6)
_REACHABLE_KL = 1.0  # of an optimum that 120 steps come near
_ROUNDING = 1e-4  # of float32, relative, with room
_TOTAL = 1e-4  # largest difference of a policy's probabilities of all responses from 1


def judge_cells(
    world: ExactWorld, cells: Sequence[tuple[Path, CellConfig]], held_out: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """`compare_cell` of every cell in one frame, and a sentence about each thing that is wrong."""
    frames, wrong = [], []
    rewards: dict[str, Tensor | None] = {}
    probabilities = pair_probabilities(world, cells[0][1].labels)
    for cell_dir, config in cells:
        if config.loss not in rewards:
            rewards[config.loss] = _reward(probabilities, config.loss)
        with torch.no_grad():
            log_policy = world.logprobs(load_policy(cell_dir / POLICY_DIR))
        compared = compare_cell(world, cell_dir, log_policy, held_out)
        frames.append(compared)
        for row in compared[compared["off"].abs() > LIMIT_SE].itertuples():
            wrong.append(
                f"{row.cell}: {row.key} = {row.recorded:.4g} in the records, {row.exact:.4g} by enumeration, "
                f"{row.off:+.1f} SE (limit {LIMIT_SE:g})"
            )
        share = reached_share(world, probabilities, rewards[config.loss], config.beta, log_policy)
        if share is not None and not REACHED[0] <= share <= REACHED[1]:
            wrong.append(
                f"{cell_dir.name}: E[ρ] is {share:.2f} of that of its loss's optimum at its β, labels and all "
                f"(limits {REACHED[0]:g} and {REACHED[1]:g})"
            )
        status = read_status(cell_dir)
        # That responses are cut is no fault here: those that are cut are enumerated as such.
        doubts = [warning for warning in (status.warnings if status else ()) if ENDED not in warning]
        wrong += [f"{cell_dir.name}: {warning}" for warning in doubts]
    return pd.concat(frames, ignore_index=True), wrong


def compare_cell(world: ExactWorld, cell_dir: Path, log_policy: Tensor, held_out: pd.DataFrame) -> pd.DataFrame:
    """Recorded against exact values of a cell's policy, for each of kl, kl_k1, gold, rho_mean and rho_sq_mean.

    Args:
        held_out: the held-out pairs, with token ids.
    Returns:
        Columns cell, key, recorded, exact, se (of the record) and off (in SE).
    """
    record = read_records(cell_dir / RECORDS_FILE)[-1]
    exact = exact_values(world, log_policy) | exact_rho(world, log_policy, held_out)
    samples = pd.read_parquet(cell_dir / SAMPLES_FILE).query("step == @record['step']")
    errors = _standard_errors(world, samples) | {
        key: _ROUNDING * (1 + abs(exact[key])) for key in ("rho_mean", "rho_sq_mean")
    }
    rows = [(cell_dir.name, key, record[key], exact[key], se) for key, se in errors.items()]
    rows += [(cell_dir.name, *farthest) for farthest in _farthest_samples(world, log_policy, samples)]
    frame = pd.DataFrame(rows, columns=["cell", "key", "recorded", "exact", "se"])
    return frame.assign(off=(frame["recorded"] - frame["exact"]) / np.maximum(frame["se"], _ROUNDING))


def _farthest_samples(
    world: ExactWorld, log_policy: Tensor, samples: pd.DataFrame
) -> Iterator[tuple[str, float, float, float]]:
    """Of gold and log-ratio, the sample whose recorded value is farthest from the enumerated: key, both, rounding."""
    ends = [len(ids) < max(map(len, world.responses)) or ids[-1] == world.responses[0][-1] for ids in world.responses]
    place = {key: index for index, key in enumerate(zip(world.texts, ends, strict=True))}
    response = torch.tensor([place[key] for key in zip(samples["response"], samples["ended"], strict=True)])
    context = world.context_of[torch.from_numpy(samples["prompt_id"].to_numpy(copy=True))]
    for key, table in (("kl_k1", log_policy - world.log_reference), ("gold", world.gold)):
        exact, recorded = table[context, response].numpy(), samples[key].to_numpy()
        at = int(np.abs(exact - recorded).argmax())
        yield f"{key} of a sample", recorded[at], exact[at], _ROUNDING * (1 + abs(exact[at]))


def _standard_errors(world: ExactWorld, samples: pd.DataFrame) -> dict[str, float]:
    """Of the means over a policy's samples; contexts, which are all enumerated, are no source of error."""
    by_context = samples.groupby(world.context_of.numpy()[samples["prompt_id"]])
    freedom = len(samples) - by_context.ngroups
    residuals = {key: samples[key] - by_context[key].transform("mean") for key in ("kl", "kl_k1", "gold")}
    return {key: float(np.sqrt((each**2).sum() / freedom / len(samples))) for key, each in residuals.items()}


def exact_rho(world: ExactWorld, log_policy: Tensor, held_out: pd.DataFrame) -> dict[str, float]:
    """E[ρ] and E[ρ²] over the very pairs that the record was measured on.

    Args:
        held_out: preference data, with token ids.
    """
    log_ratio = log_policy - world.log_reference
    contexts, responses = (
        {tuple(ids): place for place, ids in enumerate(every)} for every in (world.contexts, world.responses)
    )
    prompt, chosen, rejected = (
        torch.tensor([places[tuple(ids)] for ids in held_out[column]])
        for column, places in (("prompt_ids", contexts), ("chosen_ids", responses), ("rejected_ids", responses))
    )
    rho = log_ratio[prompt, chosen] - log_ratio[prompt, rejected]
    return {"rho_mean": float(rho.mean()), "rho_sq_mean": float((rho**2).mean())}


def exact_values(world: ExactWorld, log_policy: Tensor) -> dict[str, float]:
    """What a policy's samples estimate, by record key.

    Args:
        log_policy: log π, [contexts, responses], nats.
    Raises:
        FloatingPointError: the probabilities of all responses do not add to 1: something of them is not scored.
    """
    for name, log_probabilities in (("π", log_policy), ("π_ref", world.log_reference)):
        if (off := float(log_probabilities.logsumexp(-1).abs().max())) > _TOTAL:
            raise FloatingPointError(f"{name} gives all responses together e^±{off:.3g}, not 1: wrong log-probs")
    kl = world.mean(world.kl(log_policy))
    return {"kl": kl, "kl_k1": kl, "gold": world.mean(world.expected_gold(log_policy))}


def _reward(probabilities: Tensor, loss: str) -> Tensor | None:
    try:
        return implicit_reward(probabilities, resolve_loss(loss))
    except (ValueError, RuntimeError):  # it lies at infinity, or is not found
        return None


def reached_share(
    world: ExactWorld, probabilities: Tensor, reward: Tensor | None, beta: float, log_policy: Tensor
) -> float | None:
    """E[ρ] of a policy over that of its loss's optimum at its β; None where that is out of reach, or unknown.

    Args:
        probabilities: of pairs, `pair_probabilities`.
        reward: what the loss makes of them, `implicit_reward`.
    """
    if reward is None:
        return None
    optimum = tilted(world, reward, beta)
    if world.mean(world.kl(optimum)) > _REACHABLE_KL:
        return None

    def rho(log_probs: Tensor) -> float:
        log_ratio = log_probs - world.log_reference
        return float((probabilities * (log_ratio[:, :, None] - log_ratio[:, None, :])).sum())

    return rho(log_policy) / rho(optimum)
