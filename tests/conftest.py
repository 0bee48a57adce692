"""Every test runs offline, on one torch thread, with shapes checked and the same hypothesis examples each time."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"

import hypothesis
import jaxtyping
import pytest
import torch

# Before anything of ours is imported. Outside pytest nothing is checked and nothing is slower.
CHECKED_MODULES = ("bench.losses", "bench.policies", "bench.data.pairs", "gold_rm")
jaxtyping.install_import_hook(list(CHECKED_MODULES), "shape_checks.typechecked")

# One thread: sums keep one order of additions on every machine, and pytest-xdist workers do not fight for cores.
torch.set_num_threads(1)

hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("reproducible")


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory):
    """A world of one-word tokens (tests/tiny_world.py); the first test that needs its artifacts builds them."""
    from tiny_world import write_tiny_world  # not before: the tests of the analysis run without transformers

    return write_tiny_world(tmp_path_factory.mktemp("tiny") / "world")


@pytest.fixture(scope="session")
def preferences(tiny_world, tmp_path_factory: pytest.TempPathFactory):
    """A directory with preference data of the tiny world, as the harness writes it (tests/preference_files.py)."""
    from preference_files import write_preference_files

    from bench.policies.load import load_policy

    pool, directory = tmp_path_factory.mktemp("pool"), tmp_path_factory.mktemp("preferences")
    return write_preference_files(tiny_world, load_policy(tiny_world.policy), pool, directory)
