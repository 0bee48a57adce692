"""The world of ready parts: what it reads, and what it says when a part is missing or wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench.checked import ConfigError
from bench.data.artifacts import DamagedArtifact
from bench.data.sources import SOURCES_FILE, verify_sources
from bench.worlds import read_world
from bench.worlds.directories import Params, build, inputs

PROMPTS = [f"prompt {i}:" for i in range(10)]


@pytest.fixture
def parts(tmp_path: Path) -> Params:
    """Directories that look like models: this builder does not load them."""
    for name in ("policy", "gold"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n\n")
    return Params(
        policy=str(tmp_path / "policy"),
        gold=str(tmp_path / "gold"),
        prompts=str(tmp_path / "prompts.txt"),
        eval_fraction=0.3,
    )


def _build(params: Params, directory: Path) -> None:
    directory.mkdir()
    build(params, directory, lambda message: None)


def _write(path: Path, frame: pd.DataFrame) -> str:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)
    return str(path)


def test_world_refers_to_the_parts(parts: Params, tmp_path: Path) -> None:
    _build(parts, tmp_path / "world")
    world = read_world(tmp_path / "world")
    assert world.policy_dir == Path(parts.policy)
    assert world.gold_dir == Path(str(parts.gold))
    assert world.comparisons is None
    assert (len(world.train_prompts), len(world.eval_prompts)) == (7, 3)
    assert {*world.train_prompts, *world.eval_prompts} == set(PROMPTS)


def test_split_depends_on_the_seed_alone(parts: Params, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        _build(replace(parts, seed=seed), tmp_path / name)
    a, b, c = (read_world(tmp_path / name).eval_prompts for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_split_of_the_file(suffix: str, parts: Params, tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt": PROMPTS, "split": ["train"] * 6 + ["eval"] * 4, "other": 1})
    prompts = _write(tmp_path / f"prompts{suffix}", frame)
    _build(replace(parts, prompts=prompts, eval_fraction=None), tmp_path / "world")
    assert read_world(tmp_path / "world").eval_prompts == PROMPTS[6:]


def test_texts_that_look_like_numbers_or_dates_stay_texts(parts: Params, tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt": ["007", "2024-01-01", "1e5"], "split": ["train", "train", "eval"]})
    prompts = _write(tmp_path / "prompts.jsonl", frame)
    _build(replace(parts, prompts=prompts, eval_fraction=None), tmp_path / "world")
    assert read_world(tmp_path / "world").train_prompts == ["007", "2024-01-01"]


def test_comparisons_instead_of_a_gold_model(parts: Params, tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt": PROMPTS[:2], "chosen": "a", "rejected": "b", "split": ["train", "held_out"]})
    path = _write(tmp_path / "comparisons.parquet", frame.assign(rater=1))
    _build(replace(parts, gold=None, comparisons=path), tmp_path / "world")
    world = read_world(tmp_path / "world")
    assert world.gold_dir is None
    assert world.comparisons is not None
    pd.testing.assert_frame_equal(pd.read_parquet(world.comparisons), frame, check_dtype=False)


@pytest.mark.parametrize("changed", ["policy/model.safetensors", "gold/config.json", "prompts.txt"])
def test_other_content_at_the_same_path_is_another_world(changed: str, parts: Params, tmp_path: Path) -> None:
    _build(parts, tmp_path / "world")
    before = inputs(parts)
    noted = json.loads((tmp_path / "world" / SOURCES_FILE).read_text())
    assert {key: value for key, value in noted.items() if key != "paths"} == before
    verify_sources(tmp_path / "world")
    with (tmp_path / changed).open("a") as stream:
        stream.write("another prompt:\n")
    if changed == "prompts.txt":  # they were copied into the world
        verify_sources(tmp_path / "world")
    else:
        with pytest.raises(DamagedArtifact, match=f"^{changed.split('/')[0]} .*: not what .* was built from"):
            verify_sources(tmp_path / "world")
    differing = {key for key, value in inputs(parts).items() if value != before[key]}
    assert differing == {changed.split("/")[0].removesuffix(".txt")}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"policy": "/no/where"}, r"policy=/no/where: no such directory; a Hugging Face model directory is needed"),
        ({"gold": "{tmp}"}, r"gold=.*: no config\.json there"),
        ({"gold": None}, r"gold=None and comparisons=None: give one of them"),
        ({"comparisons": "x.parquet"}, r"give one of them and not the other"),
        ({"gold": None, "comparisons": "/no/where"}, r"comparisons=/no/where: no such file"),
        ({"gold": None, "comparisons": "{tmp}/prompts.txt"}, r"comparisons=.*: column 'chosen' is missing"),
        ({"prompts": "/no/where.txt"}, r"prompts=/no/where\.txt: no such file"),
        ({"prompts": "{tmp}/policy/config.json"}, r"must end in \.txt, \.jsonl, \.csv, \.parquet"),
        ({"eval_fraction": None}, r"gives no split: set world\.params\.eval_fraction"),
        ({"eval_fraction": 1.5}, r"eval_fraction=1\.5: must lie between 0 and 1"),
        ({"eval_fraction": 0.01}, r"10 train and 0 eval prompts; both need some"),
        ({"seed": -1}, r"seed=-1: must be 0 or more"),
    ],
)
def test_bad_settings(setting: dict, message: str, parts: Params, tmp_path: Path) -> None:
    values = {k: v.replace("{tmp}", str(tmp_path)) if isinstance(v, str) else v for k, v in setting.items()}
    with pytest.raises(ConfigError, match=message):
        _build(replace(parts, **values), tmp_path / "world")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"text": PROMPTS}), "column 'prompt' is missing; its columns are text"),
        (pd.DataFrame({"prompt": ["a", None]}), r"1 values of 'prompt' are no texts"),
        (pd.DataFrame({"prompt": ["a", "a"]}), "1 prompts occur more than once, such as 'a'"),
        (pd.DataFrame({"prompt": ["a", "b"], "split": ["train", "test"]}), "split 'test'; allowed are 'train' and"),
        (pd.DataFrame({"prompt": ["a", "b"], "split": ["train", "train"]}), "2 train and 0 eval prompts"),
    ],
)
def test_bad_prompts(frame: pd.DataFrame, message: str, parts: Params, tmp_path: Path) -> None:
    for suffix in (".jsonl", ".parquet"):
        prompts = _write(tmp_path / f"bad{suffix}", frame)
        fraction = None if "split" in frame else 0.5
        with pytest.raises(ConfigError, match=message):
            _build(replace(parts, prompts=prompts, eval_fraction=fraction), tmp_path / f"world{suffix}")


def test_damaged_jsonl(parts: Params, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b')
    with pytest.raises(ConfigError, match=r"bad\.jsonl:2: cannot be read as JSON"):
        _build(replace(parts, prompts=str(tmp_path / "bad.jsonl")), tmp_path / "world")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"prompt": ["a"], "chosen": ["b"], "split": ["train"]}), "column 'rejected' is missing"),
        (
            pd.DataFrame({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"], "split": ["test"]}),
            "split 'test'; allowed are 'train' and 'held_out'",
        ),
    ],
)
def test_bad_comparisons(frame: pd.DataFrame, message: str, parts: Params, tmp_path: Path) -> None:
    path = _write(tmp_path / "comparisons.parquet", frame)
    with pytest.raises(ConfigError, match=message):
        _build(replace(parts, gold=None, comparisons=path), tmp_path / "world")


def test_one_prompt_in_two_spellings_is_there_twice(parts: Params, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("caf\u00e9\ncafe\u0301\nother\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="1 prompts occur more than once, such as 'cafe"):
        _build(parts, tmp_path / "world")
