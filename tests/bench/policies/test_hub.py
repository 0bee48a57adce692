"""Models of the Hugging Face hub by name and revision, from its cache; what cannot be had is one sentence."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from tiny_models import write_policy
from tiny_world import write_gold

from bench.checked import ConfigError
from bench.config import cell_config
from bench.policies.directories import fingerprint_of_policy, locate
from bench.policies.load import load_policy
from bench.worlds import directories

COMMITS = {"main": "a" * 40, "v2": "b" * 40}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the hub with two revisions of one policy, as a download leaves it."""
    root = tmp_path / "hub"
    repository = root / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    for seed, (revision, commit) in enumerate(COMMITS.items()):
        (repository / "refs" / revision).write_text(commit)
        write_policy(repository / "snapshots" / commit, seed=seed)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    return repository / "snapshots"


def test_a_name_is_its_snapshot_and_a_revision_another(cache):
    assert locate("someone/tiny") == cache / COMMITS["main"]
    assert locate("someone/tiny@v2") == cache / COMMITS["v2"]
    assert load_policy(locate("someone/tiny")).encode(["p a"]) == [[1, 2]]


def test_a_path_is_a_path(cache, tmp_path, monkeypatch):
    write_policy(tmp_path / "someone" / "tiny", seed=5)
    monkeypatch.chdir(tmp_path)
    assert locate("someone/tiny") == Path("someone/tiny"), "what lies here comes first"
    assert locate("./nowhere/x") == Path("./nowhere/x")
    with pytest.raises(ConfigError, match=r"policy\.revision=v2: someone/tiny is no model of the hub"):
        locate("someone/tiny@v2")


@pytest.mark.parametrize("name", ["someone/else", "someone/tiny@v3"])
def test_what_is_not_in_the_cache_is_one_sentence(cache, name):
    with pytest.raises(
        ConfigError, match=r"not in the cache of the Hugging Face hub, .*hf download someone/"
    ) as caught:
        locate(name)
    assert "\n" not in str(caught.value)
    assert ("at revision v3" in str(caught.value)) == ("@" in name)


def test_a_world_takes_the_revision_of_the_policy_section(cache, tmp_path):
    gold = write_gold(tmp_path / "gold")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "p", "split": "train"}\n{"prompt": "a", "split": "eval"}')

    def config(**policy):
        params = {"policy": "someone/tiny", "gold": str(gold), "prompts": str(tmp_path / "prompts.jsonl")}
        world = {"name": "hub", "builder": "directories", "max_new_tokens": 4, "params": params}
        return cell_config({"world": world, "policy": policy})

    main, other = config(), config(revision="v2")
    assert main.fingerprint != other.fingerprint
    hashes = [directories.inputs(directories.Params(**each.world_params)) for each in (main, other)]
    assert [each["policy"] for each in hashes] == [fingerprint_of_policy(cache / commit) for commit in COMMITS.values()]
    assert hashes[0]["gold"] == hashes[1]["gold"]
