"""What cells stand on is built once, found again, shared as far as settings allow, refused where it does not fit."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from tiny_world import WORDS, write_gold

from bench.cells.inputs import InputCache, training_pairs
from bench.checked import ConfigError
from bench.data.artifacts import DamagedArtifact
from bench.data.prepared import Prepared
from bench.data.published import is_published, publish
from bench.records import REFERENCE_COLUMNS
from bench.sweep.driver import prepare_cells
from bench.sweep.plan import write_plan
from bench.sweep.preparing import prepare
from bench.worlds import read_world
from gold_rm.reward_model import GoldModelError


@pytest.fixture
def world(tiny_world, tmp_path):
    """The tiny world with artifacts of its own."""
    return tiny_world._replace(artifacts=tmp_path / "artifacts")


def prepared(world, tmp_path, **changes):
    """What was prepared, and the kinds of artifact that were built for it."""
    messages: list[str] = []
    config = world.config(tmp_path / "runs", changes)
    result = prepare(config, messages.append)
    return result, [message.split()[1] for message in messages if message.startswith("building ")]


def test_everything_is_built_once_and_shared_as_far_as_settings_allow(world, tmp_path):
    first, built = prepared(world, tmp_path)
    assert built == ["world", "reference", "pool", "preferences"]
    again, built = prepared(world, tmp_path, beta=0.3, loss="hinge", seed=5, **{"optim.lr": 1e-4})
    assert (again, built) == (first, [])
    for changes, expected in (
        ({"labels.rule": "bradley_terry"}, ["preferences"]),
        ({"labels.flip_rate": 0.1}, ["preferences"]),
        ({"pairs.per_cell": 20}, []),
        ({"pairs.seed": 1}, ["pool", "preferences"]),
        ({"pairs.pool": 100}, ["pool", "preferences"]),
        ({"evaluation.reference_samples": 5}, ["reference", "pool", "preferences"]),
        ({"world.max_new_tokens": 5}, ["reference", "pool", "preferences"]),
        ({"world.name": "another name"}, []),
    ):
        assert prepared(world, tmp_path, **changes)[1] == expected, changes


def test_fingerprints_follow_content(world, tmp_path):
    first, _ = prepared(world, tmp_path)
    elsewhere, built = prepared(world._replace(artifacts=tmp_path / "elsewhere"), tmp_path)
    assert len(built) == 4
    assert elsewhere.preferences.fingerprint == first.preferences.fingerprint
    assert elsewhere.preferences.path != first.preferences.path
    other, _ = prepared(world._replace(gold=write_gold(tmp_path / "gold", seed=8)), tmp_path)
    assert other.gold.fingerprint != first.gold.fingerprint
    assert other.preferences.fingerprint != first.preferences.fingerprint


def test_facts_and_splits(tiny_world, tmp_path):
    result, _ = prepared(tiny_world, tmp_path)
    pairs = pd.read_parquet(result.preferences.path / "pairs.parquet")
    world = read_world(result.world.path)
    held_out = pairs.loc[pairs["split"] == "held_out", "prompt"]
    assert set(held_out) <= set(world.eval_prompts[:24]), "held-out pairs are on the prompts of the evaluation"
    assert set(pairs.loc[pairs["split"] == "train", "prompt"]) <= set(world.train_prompts)
    assert json.loads((result.preferences.path / "facts.json").read_text())["pairs"] == 112 + 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation.prompts": 65}, "evaluation.prompts=65: world tiny holds out 64 prompts for evaluation"),
        ({"pairs.per_cell": 112}, r"pairs.per_cell=112: \d+ of pairs.pool=112 are left after ties were dropped"),
        ({"world.params.gold": "/no/where"}, "world.params.gold=/no/where: no such directory"),
        ({"world.params.polices": 1}, "world.params.polices: no such key; did you mean 'world.params.policy'"),
        ({"world.builder": "directory"}, "world.builder='directory': did you mean 'directories'?"),
        ({"device": "cuda:7"}, "device='cuda:7': "),
    ],
)
def test_settings_that_do_not_fit_the_world(tiny_world, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        prepare(tiny_world.config(tmp_path, changes))


def test_models_of_the_wrong_kind(world, tmp_path):
    write_gold(tmp_path / "two", outputs=2)
    for changes, kind, message in (
        (
            {"world.params.gold": str(world.policy)},
            GoldModelError,
            "holds a GPT2LMHeadModel, not a sequence classifier",
        ),
        ({"world.params.gold": str(tmp_path / "two")}, GoldModelError, "has 2 outputs; a reward model has exactly one"),
        ({"world.params.policy": str(world.gold)}, ConfigError, "GPT2ForSequenceClassification, a reward model"),
    ):
        with pytest.raises(kind, match=message):
            prepare(world.config(tmp_path / "runs", changes))


def test_the_same_files_by_another_spelling_are_the_same_world_and_cells(world, tmp_path, monkeypatch):
    first, _ = prepared(world, tmp_path)
    spelt = str(world.policy.parent / "." / ".." / world.policy.parent.name / f"{world.policy.name}/")
    monkeypatch.chdir(world.prompts.parent)
    changes = {"world.params.policy": spelt, "world.params.prompts": world.prompts.name}
    again, built = prepared(world, tmp_path, **changes)
    assert (again, built) == (first, [])
    runs = tmp_path / "runs"
    one, other = world.config(runs), world.config(runs, changes)
    assert one.world.params != other.world.params
    assert one.fingerprint == other.fingerprint
    nowhere = world.config(runs, {"world.params.policy": str(tmp_path / "nowhere")})
    assert nowhere.fingerprint != one.fingerprint


def test_a_note_beside_the_weights_is_no_other_world(world, tmp_path):
    policy = tmp_path / "policy"
    shutil.copytree(world.policy, policy)
    first, _ = prepared(world, tmp_path, **{"world.params.policy": str(policy)})
    (policy / "README.md").write_text("a note\n")
    assert prepared(world, tmp_path, **{"world.params.policy": str(policy)}) == (first, [])


def test_a_damaged_artifact_is_refused_and_deleting_it_helps(world, tmp_path):
    result, _ = prepared(world, tmp_path)
    file = result.preferences.path / "pairs.parquet"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DamagedArtifact, match=r"pairs\.parquet does not match its checksum; delete that directory"):
        prepared(world, tmp_path)
    shutil.rmtree(result.preferences.path)
    again, built = prepared(world, tmp_path)
    assert (again, built) == (result, ["preferences"])


def test_a_sweep_gets_copies_of_what_the_analysis_reads(world, tmp_path):
    cells = [
        world.cell(tmp_path / "runs", {"seed": seed, "labels.flip_rate": rate}) for seed in (0, 1) for rate in (0, 0.1)
    ]
    prepare_cells(cells, lambda message: None)
    sweep_dir = cells[0].sweep_dir
    results = [prepare(cell.config) for cell in cells]
    names = {f"reference-{each.reference.fingerprint}.parquet" for each in results}
    names |= {f"labels-{each.preferences.fingerprint}.parquet" for each in results}
    assert len(names) == 3
    assert {path.name for path in sweep_dir.iterdir()} == names
    (reference,) = sweep_dir.glob("reference-*.parquet")
    assert tuple(pd.read_parquet(reference).columns) == REFERENCE_COLUMNS


def test_a_copy_that_is_not_what_it_was_is_made_again(world, tmp_path):
    """Cut off, with a bit flipped, or gone."""
    cell = world.cell(tmp_path / "runs")
    built = prepare_cells([cell], lambda message: None)
    write_plan(cell.sweep_dir, [cell], built, [], "0")
    copies = {path: path.read_bytes() for path in cell.sweep_dir.glob("*.parquet")}
    assert len(copies) == 2
    assert is_published(cell.sweep_dir)
    for path, content in copies.items():
        for damage in (content[:-10], content[:-1] + bytes([content[-1] ^ 1]), None):
            path.unlink() if damage is None else path.write_bytes(damage)
            assert not is_published(cell.sweep_dir)
            publish(cell.sweep_dir, built[cell.name])
            assert path.read_bytes() == content
            assert is_published(cell.sweep_dir)


def test_held_out_pairs_that_are_all_ties_are_refused_before_training(world, tmp_path):
    """Responses of one token, so that two are often the same: a pool whose held-out pairs are all of that kind."""

    def prepare_until_all_are_ties():
        for seed in range(40):
            prepared(world, tmp_path, **{"pairs.held_out": 2, "pairs.seed": seed, "world.max_new_tokens": 1})

    with pytest.raises(ConfigError, match=r"pairs\.held_out=2: none of them is left after ties were dropped"):
        prepare_until_all_are_ties()


def test_a_cells_pairs_are_drawn_by_its_seed(tiny_world, tmp_path):
    result, _ = prepared(tiny_world, tmp_path)
    drawn = {}
    for seed in (0, 1):
        config = tiny_world.config(tmp_path, {"seed": seed})
        loaded = InputCache().shared(result, config)
        drawn[seed] = [tuple(row) for row in training_pairs(loaded.pool, config).chosen.input_ids.tolist()]
        assert len(drawn[seed]) == 48
        assert len(loaded.evaluation.held_out) <= 24
        assert loaded.label_probability == 1.0
    pool = loaded.pool.chosen.input_ids.tolist()
    assert all(set(rows) <= set(map(tuple, pool)) for rows in drawn.values())
    assert len(set(drawn[0]) ^ set(drawn[1])) > 10


def test_the_loaded_evaluation_set_is_of_the_references_samples(tiny_world, tmp_path):
    result, _ = prepared(tiny_world, tmp_path)
    loaded = InputCache().shared(result, tiny_world.config(tmp_path))
    samples = pd.read_parquet(result.reference.path / "samples.parquet")
    frame = samples.groupby("prompt_id").first()
    assert loaded.evaluation.prompts == frame["prompt"].tolist() == read_world(result.world.path).eval_prompts[:24]
    assert loaded.evaluation.reference_responses == frame["response"].tolist()
    gold = samples.groupby("prompt_id")["gold"].agg(list)
    assert loaded.evaluation.reference_gold.tolist() == gold.tolist(), "of all samples"
    assert loaded.evaluation.prompt_ids == [[WORDS.index(f" {w}") for w in p.split()] for p in frame["prompt"]]


def test_what_was_prepared_travels_in_the_plan_and_moves_with_it(world, tmp_path):
    result, _ = prepared(world, tmp_path)
    sweep_dir = tmp_path / "runs" / "default"
    sweep_dir.mkdir(parents=True)
    parts = json.loads(json.dumps(result.to_plan(sweep_dir)))
    assert Prepared.from_plan(parts, sweep_dir) == replace_paths(result)
    assert not parts["preferences"]["path"].startswith("/")
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "artifacts", moved / "artifacts")
    there = Prepared.from_plan(parts, moved / "runs" / "default")
    assert there.preferences.path.is_relative_to(moved)
    there.preferences.path.joinpath("facts.json").write_text("{}")
    with pytest.raises(DamagedArtifact, match=r"facts\.json does not match"):
        there.verify()
    result.verify()


def replace_paths(result):
    """The same with absolute, resolved paths."""
    artifacts = {
        name: replace(getattr(result, name), path=getattr(result, name).path.resolve())
        for name in ("world", "gold", "reference", "preferences")
    }
    return replace(result, policy_dir=result.policy_dir.resolve(), **artifacts)


def test_two_seeds_on_one_part_of_the_pool_are_refused_also_beside_planned_cells(tiny_world, tmp_path):
    def planned(*seeds):
        cells = [tiny_world.cell(tmp_path / "runs", {"seed": seed}) for seed in seeds]
        prepared = prepare_cells(cells, lambda message: None)
        write_plan(cells[0].sweep_dir, cells, prepared, ["typed"], "1")

    with pytest.raises(ConfigError, match="seed=1,3: both would train on part 1"):
        planned(0, 1, 3)
    planned(0)
    planned(1)
    with pytest.raises(ConfigError, match="seed=0,2: both would train on part 0"):
        planned(2)
    planned(0, 1)


def test_prompts_that_leave_no_room_for_responses_are_refused(tiny_world, tmp_path):
    config = tiny_world.config(tmp_path / "runs", {"world.max_new_tokens": 40, "artifacts_dir": str(tmp_path / "a")})
    told = r"world\.max_new_tokens=40: the policy has 12 positions, and the longest prompt, of 3 tokens .*, leaves 9"
    with pytest.raises(ConfigError, match=told):
        prepare(config)
    assert not list((tmp_path / "a").glob("reference/*/manifest.json"))
