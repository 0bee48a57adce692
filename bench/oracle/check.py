"""A finished sweep on the oracle world beside exact values.

python -m bench.oracle.check runs/oracle

Writes runs/<sweep>/exact.parquet (the KL-constrained optimum, and each loss's optimum over all pairs, where one is
found) and prints, per loss and β, what training reached. Then it enumerates what the saved policies (`save=final`) do.
Exit status 1 if something is wrong: a record's KL, gold or ρ is not that of its policy, on either side; a checkpoint
lies above the optimum, which no policy can; a policy is not where its loss, β and labels lead; KL and its cross-check
differ.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.cells.settings import read_cell_config
from bench.checked import ConfigError
from bench.config import CellConfig
from bench.data.artifacts import PAIRS_FILE
from bench.data.preferences import HELD_OUT
from bench.data.prepared import Prepared
from bench.data.reference_samples import load_reference, load_standardization
from bench.losses import resolve_loss
from bench.oracle.estimates import judge_cells
from bench.oracle.exact import ExactWorld, exact_world, tilted_frontier
from bench.oracle.population import implicit_reward, pair_probabilities
from bench.policies.load import load_policy
from bench.records import EXACT_COLUMNS, EXACT_FILE, GPO, POLICY_DIR, RECORDS_FILE, read_plan, read_records
from bench.sweep.preparing import prepare
from gold_rm.command_line import run_with_messages, terminal
from gold_rm.reward_model import load_gold_model

# λ from a policy that hardly moves to one that puts all its mass on the best response, in SD per nat.
TEMPERATURES = tuple(np.geomspace(100, 1e-3, 201).tolist())
# A sweep has hundreds of checkpoints; by chance one lies this many standard errors too high once in a million.
EXCESS_LIMIT = 5.0


def load_exact_world(config: CellConfig, prepared: Prepared) -> ExactWorld:
    """Enumerate the world of a cell on its evaluation prompts.

    Raises:
        ConfigError: more responses than can be enumerated; says how many and the limit.
    """
    prompts = load_reference(prepared.reference.path).query("sample_id == 0")["prompt"].tolist()
    return exact_world(
        load_policy(prepared.policy_dir),
        load_gold_model(prepared.gold_dir),
        load_standardization(prepared.reference.path),
        prompts,
        config.world.max_new_tokens,
    )


def exact_frontiers(world: ExactWorld, config: CellConfig, cells: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Exact KL and gold of the KL-constrained optimum over λ, and of every loss's own optimum over β.

    Args:
        cells: ``loss`` and ``beta``; these β are among those of a loss's optima.
    Returns:
        Frame with EXACT_COLUMNS, and why losses are left out.
    """
    frames, left_out = [tilted_frontier(world, world.gold, TEMPERATURES).assign(kind="optimum")], []
    pairs = pair_probabilities(world, config.labels)
    for loss, betas in cells.groupby("loss", sort=False)["beta"]:
        try:
            reward = implicit_reward(pairs, resolve_loss(str(loss)))
        except (ValueError, RuntimeError) as error:
            left_out.append(str(error))
            continue
        strengths = sorted({*TEMPERATURES, *betas})
        frames.append(tilted_frontier(world, reward, strengths).assign(kind=loss))
    return pd.concat(frames, ignore_index=True)[list(EXACT_COLUMNS)], left_out


def excess_in_se(checkpoints: pd.DataFrame, ceiling: pd.DataFrame) -> np.ndarray:
    """How many standard errors each checkpoint's gold lies above the exact optimum at its KL, [checkpoints].

    Args:
        checkpoints: record keys ``kl, kl_se, gold, gold_se``.
        ceiling: ``kl, gold`` of the KL-constrained optimum, any order.
    """
    ceiling = ceiling.sort_values("kl")
    kl, gold = ceiling["kl"].to_numpy(), ceiling["gold"].to_numpy()
    slope = np.interp(checkpoints["kl"], (kl[1:] + kl[:-1]) / 2, np.diff(gold) / np.maximum(np.diff(kl), 1e-12))
    se = np.hypot(checkpoints["gold_se"], slope * checkpoints["kl_se"])
    return ((checkpoints["gold"] - np.interp(checkpoints["kl"], kl, gold)) / se).to_numpy()


def _read_sweep(sweep_dir: Path) -> tuple[CellConfig, pd.DataFrame]:
    """A configuration that stands for all cells' data, and every checkpoint of the sweep."""
    names = [row["cell"] for row in read_plan(sweep_dir)["cells"]]
    recorded = [sweep_dir / name for name in names if (sweep_dir / name / RECORDS_FILE).exists()]
    if not recorded:
        raise ConfigError(f"{sweep_dir}: no cell with records there; run the sweep first")
    checkpoints = pd.DataFrame([row for cell in recorded for row in read_records(cell / RECORDS_FILE)])
    for key in ("world", "preferences", "reference"):
        if (seen := checkpoints[key].nunique()) > 1:
            raise ConfigError(f"{sweep_dir}: {seen} values of {key!r}; exact values are of one world and one labeling")
    return read_cell_config(recorded[0]), checkpoints


def check_sweep(sweep_dir: Path, console: Console) -> int:
    """Write the exact frontiers and print the comparison; returns the exit status."""
    config, checkpoints = _read_sweep(sweep_dir)
    prepared = prepare(config)
    world = load_exact_world(config, prepared)
    exact, left_out = exact_frontiers(world, config, checkpoints)
    exact.to_parquet(sweep_dir / EXACT_FILE, index=False)
    for reason in left_out:
        console.print(f"no exact optimum: {reason}", highlight=False)
    ceiling = exact[exact["kind"] == "optimum"]
    console.print(_comparison(checkpoints, exact, ceiling))
    excess = excess_in_se(checkpoints, ceiling)
    console.print(
        f"{len(world.contexts)} contexts × {len(world.responses)} responses; of {len(checkpoints)} checkpoints the "
        f"highest lies {excess.max():+.1f} SE from the optimum (limit {EXCESS_LIMIT:g})",
        highlight=False,
    )
    pairs = pd.read_parquet(prepared.preferences.path / PAIRS_FILE, filters=[("split", "==", HELD_OUT)])
    compared, wrong = judge_cells(world, _saved_cells(sweep_dir), pairs)
    console.print(_estimates(compared))
    for sentence in wrong:
        console.print(sentence, style="red", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{compared['cell'].nunique()} saved policies enumerated: {len(wrong) or 'nothing'} wrong", highlight=False
    )
    return 1 if wrong or excess.max() > EXCESS_LIMIT else 0


def _saved_cells(sweep_dir: Path) -> list[tuple[Path, CellConfig]]:
    """Cells that have kept their last policy.

    Raises:
        ConfigError: none has.
    """
    dirs = [sweep_dir / row["cell"] for row in read_plan(sweep_dir)["cells"]]
    cells = [(path, read_cell_config(path)) for path in dirs if (path / POLICY_DIR / "config.json").exists()]
    cells = [(path, config) for path, config in cells if config.method == GPO and config.save == "final"]
    if not cells:
        raise ConfigError(
            f"{sweep_dir}: no policy is saved, so nothing can be enumerated; run the sweep with save=final"
        )
    return cells


def _estimates(compared: pd.DataFrame) -> Table:
    table = Table("estimate", "cells", "mean of (recorded − exact)/SE", "farthest below", "farthest above")
    for key, rows in compared.groupby("key", sort=False):
        off = rows["off"]
        table.add_row(str(key), str(len(rows)), f"{off.mean():+.2f}", f"{off.min():+.2f}", f"{off.max():+.2f}")
    return table


def _comparison(checkpoints: pd.DataFrame, exact: pd.DataFrame, ceiling: pd.DataFrame) -> Table:
    table = Table("loss", "β", "KL", "KL of its optimum", "gold", "gold of its optimum", "gold of π* at that KL")
    final = checkpoints[checkpoints["step"] == checkpoints["step"].max()]
    optima = exact.set_index(["kind", "strength"])
    ceiling = ceiling.sort_values("kl")
    for (loss, beta), seeds in final.groupby(["loss", "beta"], sort=False):
        kl, gold = seeds["kl"].mean(), seeds["gold"].mean()
        known = (loss, beta) in optima.index
        own = [f"{optima.loc[(loss, beta), key]:.3f}" if known else "–" for key in ("kl", "gold")]
        highest = np.interp(kl, ceiling["kl"], ceiling["gold"])
        table.add_row(str(loss), f"{beta:g}", f"{kl:.3f}", own[0], f"{gold:+.3f}", own[1], f"{highest:+.3f}")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.oracle.check", description="Compare with exact values.")
    parser.add_argument("sweep_dir", type=Path, metavar="RUNS/SWEEP")
    options = parser.parse_args(arguments)
    return run_with_messages(lambda: check_sweep(options.sweep_dir, terminal()))


if __name__ == "__main__":
    sys.exit(main())
