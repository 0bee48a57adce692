"""Every committed configuration composes, names only known keys, and runs for two steps."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from bench import train, worlds
from bench.checked import build_checked
from bench.config import CellConfig, WorldConfig, cell_config
from bench.sweep.compose import compose_one
from bench.sweep.status import sweep_views
from gold_rm.train import GoldTrainConfig

CONF = Path(__file__).resolve().parent.parent / "conf"
WORLDS = sorted(path.stem for path in (CONF / "world").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def test_the_files_are_found():
    assert {"reviews", "reviews_tiny", "oracle", "directories"} <= set(WORLDS)
    assert {"frontier", "smoke", "oracle"} <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_accepted_by_its_builder(name, tiny_world):
    required = ["world.params.policy=p", "world.params.prompts=q", "world.params.gold=g"]
    job = compose_one([f"world={name}", *(required if name == "directories" else [])])
    world = cell_config(job.settings).world
    assert world.name == name
    if name != "directories":  # its builder looks at the files
        build_checked(worlds.builder_module(world.builder).Params, world.params, "world.params")
    build_checked(GoldTrainConfig, world.gold, "world.gold")


def test_the_root_file_repeats_the_defaults_of_the_code():
    """One truth: a value changed in one place only would make the library and the command line differ."""
    written = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    defaults = asdict(CellConfig(world=WorldConfig("any", "any", 1)))
    defaults = json.loads(json.dumps(defaults))  # tuples are lists in YAML
    settings = OmegaConf.create({k: v for k, v in written.items() if k not in ("defaults", "hydra", "also")})
    assert OmegaConf.to_container(settings, resolve=True) == {
        k: v for k, v in defaults.items() if k not in ("world", "external")
    }


def _also(path: Path) -> list[str]:
    """Experiments whose cells belong to the sweep of the one at `path`."""
    return yaml.safe_load(path.read_text(encoding="utf-8")).get("also", [])


def _method(name: str) -> str:
    written = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
    return written.get("method", "gpo")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_for_two_steps(name, monkeypatch, tmp_path):
    """On its own kind of world, made small; two of its cells."""
    written = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
    parts = [path.stem for path in (CONF / "experiment").glob("*.yaml") if name in _also(path)]
    assert written["sweep"] == (parts[0] if parts else name)
    small = {
        "optim.steps": 2, "optim.batch_pairs": 8, "pairs.pool": 64, "pairs.per_cell": 32, "pairs.held_out": 16,
        "evaluation.prompts": 16, "evaluation.reference_samples": 4, "evaluation.checkpoints": 1,
        "tracking.wandb.mode": "disabled", "runs_dir": tmp_path / "runs", "artifacts_dir": tmp_path / "artifacts",
        "loss": "logistic,savage", "beta": "0.1", "seed": "0", "online.every": 2,
        "proxy.size": "xs", "proxy.pool": 64, "proxy.pairs": 16, "proxy.held_out": 16, "proxy.steps": 2,
        "proxy.seed": 0, "proxy.loss": "squared", "proxy.flip_rate": 0, "best_of_n.samples": 4, "best_of_n.prompts": 4,
    }  # fmt: skip
    if name != "oracle":
        small |= {"world": "reviews_tiny", "world.params.policy.steps": 5, "world.params.comparisons": 64}
        small |= {"world.params.held_out_comparisons": 16, "world.params.facts_reviews": 16, "world.gold.steps": 3}
        small |= {"world.gold.warmup_steps": 1}
    overrides = [f"{key}={value}" for key, value in small.items()]
    launcher = ["hydra/launcher=basic"]  # in this process: no workers to start
    monkeypatch.setattr(sys, "argv", ["bench.train", "-m", f"experiment={name}", *overrides, *launcher])
    assert train.main() == 0
    views = sweep_views(tmp_path / "runs" / written["sweep"])
    methods = [written.get("method", "gpo"), *(_method(part) for part in written.get("also", []))]
    expected = {
        "gpo": [2, 2],
        "online": [2, 2],
        "rloo": [2],
        "best_of_n": [4],
    }  # last steps; two losses where there are any
    steps = [step for method in dict.fromkeys(methods) for step in expected[method]]
    assert [(view.state, view.last["step"]) for view in views] == [("done", step) for step in steps]
