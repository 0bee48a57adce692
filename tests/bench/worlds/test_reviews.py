"""The world `reviews`, built small: complete, readable, repeatable, and whole after a failed build."""

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from bench.checked import ConfigError, build_checked
from bench.data.artifacts import Artifact, build_once
from bench.policies.load import load_policy
from bench.seeding import uniforms_for
from bench.worlds import read_world, reviews
from bench.worlds.reviews import Params, build

CONF = Path(__file__).parents[3] / "conf" / "world"
SMALL = build_checked(
    Params,
    {
        "train_prompts": 40, "eval_prompts": 20, "comparisons": 60, "held_out_comparisons": 20, "facts_reviews": 50,
        "policy": {"layers": 1, "width": 16, "heads": 2, "steps": 20, "batch_reviews": 16, "threads": 1},
    },
)  # fmt: skip


def _build(root: Path, params: Params = SMALL) -> Artifact:
    return build_once(root, "world", {}, lambda directory: build(params, directory, lambda message: None))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return _build(tmp_path_factory.mktemp("artifacts"))


def test_world_is_complete(world: Artifact) -> None:
    read = read_world(world.path)
    assert (len(read.train_prompts), len(read.eval_prompts)) == (40, 20)
    assert read.gold_dir is None
    assert read.comparisons is not None
    comparisons = pd.read_parquet(read.comparisons)
    assert list(comparisons.columns) == ["prompt", "chosen", "rejected", "split"]
    assert comparisons["split"].value_counts().to_dict() == {"train": 60, "held_out": 20}
    assert set(comparisons["prompt"]) <= {*read.train_prompts, *read.eval_prompts}
    assert (world.path / reviews.FACTS_FILE).exists()


def test_policy_samples_responses(world: Artifact) -> None:
    read = read_world(world.path)
    policy = load_policy(read.policy_dir)
    prompts = policy.encode(read.eval_prompts)
    responses = policy.sample(prompts, uniforms=uniforms_for(0, "test", count=20, tokens=32), batch_size=8)
    assert len(responses) == 20
    assert all(1 <= len(ids) <= 32 for ids in responses)
    assert any(policy.decode(responses))


def test_failed_build_leaves_nothing_and_the_next_one_is_the_same(
    world: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(reviews, "draw_comparisons", fail)
        with pytest.raises(OSError, match="disk full"):
            _build(tmp_path)
    assert not [path for path in (tmp_path / "world").iterdir() if path.is_dir()]
    assert _build(tmp_path).fingerprint == world.fingerprint


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"train_prompts": 1000, "eval_prompts": 500}, "train_prompts=1000 and eval_prompts=500.* 1224 prompts"),
        ({"comparisons": 0}, "comparisons=0: must be 1 or more"),
        ({"rater_temperature": 0.0}, r"rater_temperature=0\.0: must be finite and above 0"),
        ({"facts_reviews": 1}, "facts_reviews=1: must be 2 or more"),
        ({"seed": -1}, "seed=-1: must be 0 or more"),
    ],
)
def test_bad_settings(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"world\.params\.{message}"):
        Params(**setting)


@pytest.mark.parametrize("name", ["reviews", "reviews_tiny"])
def test_configuration_gives_every_setting_and_fits_the_policy(name: str) -> None:
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(config, dict)
    params = build_checked(Params, config["params"], "world.params")
    assert config["max_new_tokens"] + 4 <= params.policy.positions


def test_the_tiny_world_is_rebuilt_bit_for_bit(tmp_path: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(CONF / "reviews_tiny.yaml"))
    assert isinstance(config, dict)
    params = build_checked(Params, config["params"], "world.params")
    assert params.rebuild, "it does not ship"
    one, other = (_build(tmp_path / name, params) for name in ("one", "other"))
    assert one.fingerprint == other.fingerprint, "of every byte in it"
