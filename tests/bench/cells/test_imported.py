"""Policies that were trained elsewhere, as cells: measured as those that are trained here, and never as another."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from running import run
from tiny_models import word_tokenizer, write_policy
from tiny_world import LETTERS, POSITIONS, WORDS
from wandb_files import offline_run_files, read_offline_run

from bench import records
from bench.cells.cell import Cell
from bench.cells.run import Stopped
from bench.cells.settings import check_cell_config
from bench.checked import ConfigError
from bench.config import ExternalConfig
from gold_rm.fingerprint import fingerprint_of_model

HELD_OUT = ("pair_accuracy", "rho_mean", "rho_sq_mean", "logp_chosen", "logp_rejected")  # do not depend on sampling
SAMPLED = ("kl", "kl_k1", "gold", "win_rate")


@pytest.fixture(scope="module")
def trained(tiny_world, tmp_path_factory):
    """A cell of this harness that has saved its policy."""
    cell = tiny_world.cell(tmp_path_factory.mktemp("trained"), {"save": "final", "loss": "squared", "beta": 1.0})
    assert run(cell).state == "done"
    return cell


@pytest.fixture
def imported(tiny_world, tmp_path):
    """A function from a policy's directory to the cell that imports it."""

    def make(policy: Path, *, variant="theirs", strength=0.5, steps=8, runs="runs", **changes):
        config = tiny_world.config(tmp_path / runs, {"optim.steps": steps, **changes})
        external = ExternalConfig(str(policy), fingerprint_of_model(policy), variant, strength)
        return Cell.of(replace(config, method="external", external=external))

    return make


def last(cell):
    return records.read_records(cell.directory / "records.jsonl")[-1]


def test_it_leaves_what_any_cell_leaves(imported, trained):
    seen = []
    cell = imported(trained.directory / "policy", strength=0.3, steps=11, seed=4)
    status = run(cell, seen.append)
    assert (status.state, status.error, status.steps_done, status.steps_total) == ("done", None, 11, 11)
    assert cell.name == "variant=theirs,strength=0.3,seed=4"
    rows = records.read_records(cell.directory / "records.jsonl")
    assert [row["step"] for row in rows] == [record.step for record in seen] == [0, 11]
    for row in rows:
        assert (row["method"], row["variant"], row["strength"], row["seed"]) == ("external", "theirs", 0.3, 4)
        assert row["loss"] is None
        unknown = (row[key] for key in ("beta", "lr", "pairs_seen", "train_loss", "held_out_loss", "taylor_preference"))
        assert all(math.isnan(value) for value in unknown), "how it was trained is not ours to know"
    assert abs(rows[0]["kl"]) < 1e-4
    names = {path.name for path in cell.directory.iterdir()}
    assert names == {"config.yaml", "records.jsonl", "samples.parquet", "held_out.parquet", "status.json"}
    assert run(cell, pytest.fail).state == "done", "and is then left alone"


def test_a_policy_trained_here_measures_as_its_own_cell_has(imported, trained):
    """With the same seed and step its samples are the same ones; with others, up to chance."""
    cells = [imported(trained.directory / "policy"), imported(trained.directory / "policy", runs="other", steps=9)]
    assert [run(cell).state for cell in cells] == ["done", "done"]
    own, same, other = map(last, (trained, *cells))
    for key in (*HELD_OUT, *SAMPLED):
        assert same[key] == pytest.approx(own[key], rel=1e-5), key
    for key in HELD_OUT:
        assert other[key] == pytest.approx(own[key], rel=1e-5), key
    for key in SAMPLED:
        gap, se = other[key] - own[key], math.hypot(other[f"{key}_se"], own[f"{key}_se"])
        assert 0 < abs(gap) < 4 * se, key
    assert own["rho_sq_mean"] > 1
    shared = ("gold_model", "preferences", "reference", "label_probability")
    assert [own[key] for key in shared] == [other[key] for key in shared]


def test_the_reference_policy_itself_has_no_kl(imported, tiny_world):
    cell = imported(tiny_world.policy)
    assert run(cell).state == "done"
    row = last(cell)
    assert row["step"] == 8
    for key in ("kl", "kl_k1", "rho_mean"):
        assert abs(row[key]) < 1e-4, key


def test_another_architecture_with_the_same_tokens_is_measured(imported, tmp_path):
    cell = imported(write_policy(tmp_path / "llama", "llama", words=WORDS, positions=POSITIONS))
    assert run(cell).state == "done"
    assert last(cell)["kl"] > 0.1


@pytest.mark.parametrize(
    ("words", "told"),
    [((*WORDS, " i"), "' i'"), ((WORDS[0], *reversed(LETTERS)), "' a'"), (WORDS[:-1], "' h'")],
    ids=["more", "in another order", "fewer"],
)
def test_other_tokens_are_no_measurement(imported, tmp_path, words, told):
    status = run(imported(write_policy(tmp_path / "other", words=words, positions=POSITIONS)))
    assert status.state == "failed"
    assert status.error.startswith(
        f"ConfigError: the policy ({len(words)} tokens, {len(words)} in the model) and π_ref"
    )
    assert status.error.endswith(f"have different tokens, such as {told}; KL needs one vocabulary")


def test_a_model_with_room_for_more_tokens_is_measured_over_those_there_are(imported, tmp_path):
    """As larger models of one family have: rows that no text has are never drawn and have no probability."""
    directory = write_policy(tmp_path / "wide", words=(*WORDS, " i"), positions=POSITIONS)
    word_tokenizer(WORDS).save_pretrained(directory)
    cell = imported(directory)
    assert run(cell).state == "done"
    assert " i" not in "".join(pd.read_parquet(cell.directory / "samples.parquet")["response"])


def test_a_policy_that_was_exchanged_since_it_was_planned_is_not_measured(imported, tmp_path):
    directory = write_policy(tmp_path / "policy", words=WORDS, positions=POSITIONS, seed=1)
    cell = imported(directory)
    write_policy(directory, words=WORDS, positions=POSITIONS, seed=2)
    status = run(cell)
    assert (status.state, status.is_final) == ("failed", False)
    assert status.error.endswith(f"the sweep was planned with {cell.config.external.fingerprint}")
    shutil.rmtree(directory)
    assert run(cell).state == "failed"
    write_policy(directory, words=WORDS, positions=POSITIONS, seed=1)
    assert run(cell).state == "done"


def test_a_cell_is_what_its_policy_holds_and_not_where_it_is(imported, trained, tmp_path):
    cell = imported(trained.directory / "policy")
    assert run(cell).state == "done"
    moved = imported(shutil.copytree(trained.directory / "policy", tmp_path / "moved"))
    check_cell_config(moved)
    assert run(moved, pytest.fail).state == "done"
    another = imported(write_policy(tmp_path / "another", words=WORDS, positions=POSITIONS))
    with pytest.raises(ConfigError, match=r"external\.fingerprint: '\w+' there, '\w+' now"):
        run(another)


def test_a_stopped_import_is_given_back_and_measured_again(imported, trained):
    smooth, cell = (imported(trained.directory / "policy", runs=runs) for runs in ("smooth", "stopped"))
    run(smooth)
    for before in (0, 1):
        asked = iter([False] * before + [True])
        with pytest.raises(Stopped):
            run(cell, stop=lambda asked=asked: next(asked))
        assert records.read_status(cell.directory).state == "interrupted"
    assert run(cell).state == "done"
    rows, others = (
        [{k: v for k, v in json.loads(line).items() if k != "wall_s"} for line in path.read_text().splitlines()]
        for path in (each.directory / "records.jsonl" for each in (smooth, cell))
    )
    assert rows == others


def test_w_and_b_does_not_call_it_a_loss(imported, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cell = imported(trained.directory / "policy", strength=2.0, **{"tracking.wandb.mode": "offline"})
    assert run(cell).state == "done"
    (mirrored,) = map(read_offline_run, offline_run_files(cell.directory))
    assert mirrored.summary["kl"] == pytest.approx(last(cell)["kl"])
    for seen in (mirrored.config, mirrored.summary):
        assert (seen["variant"], seen["strength"], seen["method"]) == ("theirs", 2.0, "external")
        assert (seen["loss"], seen["beta"]) == (None, None)
    assert (mirrored.name, mirrored.exit_code) == (cell.name, 0)
