"""Saved policies: which checkpoint each mode keeps, that other tools can load them, and that no interruption shows."""

import functools
import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from running import run
from transformers import AutoModelForCausalLM, AutoTokenizer

import bench.cells.folder
import bench.cells.saving
from bench import records
from bench.cells.run import Stopped
from bench.cells.saving import ORIGIN_FILE, SavedPolicies
from bench.policies.policy import Policy

OFTEN = {"evaluation.checkpoints": 4}  # after steps 1, 2, 4 and 8
UNDECIDED = {**OFTEN, "loss": "squared", "beta": 1.0}  # seeds whose checkpoints change places between prompts


@pytest.fixture
def make_cell(tiny_world, tmp_path):
    """A function from changed settings to a cell; `runs` tells directories of one cell apart."""
    return lambda runs="runs", **changes: tiny_world.cell(tmp_path / runs, changes)


def finished(cell):
    status = run(cell)
    assert (status.state, status.error) == ("done", None)
    return cell


def files_of(cell):
    """Content of every file of the saved policies, by its path there."""
    root = cell.directory / "policy"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def origins(cell):
    """What the saved policies say of themselves, by their directory."""
    found = (cell.directory / "policy").rglob(ORIGIN_FILE)
    return {str(path.parent.relative_to(cell.directory)): json.loads(path.read_text()) for path in found}


def test_what_each_mode_keeps_and_that_it_changes_no_record(make_cell):
    cells = {mode: finished(make_cell(mode, save=mode, **OFTEN)) for mode in ("none", "final", "all")}
    kept = {mode: {name: origin["step"] for name, origin in origins(cell).items()} for mode, cell in cells.items()}
    every = {f"policy/step-{step:06d}": step for step in (1, 2, 4, 8)}
    assert kept == {"none": {}, "final": {"policy": 8}, "all": every}
    none, *others = (records.read_records(cell.directory / "records.jsonl") for cell in cells.values())
    for rows in others:
        assert [row | {"wall_s": 0} for row in rows] == [row | {"wall_s": 0} for row in none]


def test_best_has_the_most_gold_on_every_other_prompt(make_cell):
    """Against the samples on disk; gold on all prompts, or on the other half, would choose other checkpoints."""
    saved, by_rule = [], {"selection": [], "all": [], "other": []}
    for seed in (1, 2, 3):
        cell = finished(make_cell(seed=seed, save="best", **UNDECIDED))
        (origin,) = origins(cell).values()
        saved.append(origin["step"])
        samples = pd.read_parquet(cell.directory / "samples.parquet").query("step > 0")
        for rule, part in (
            ("all", samples), ("selection", samples.query("prompt_id % 2 == 0")),
            ("other", samples.query("prompt_id % 2 == 1")),
        ):  # fmt: skip
            by_rule[rule].append(int(part.groupby("step")["gold"].mean().idxmax()))
    assert saved == by_rule["selection"]
    assert by_rule["selection"] not in (by_rule["all"], by_rule["other"], [8, 8, 8]), "the seeds tell the rules apart"


def test_step_0_is_never_the_best_and_of_equals_the_earlier_is():
    saved, config = [], SimpleNamespace(save="best", optim=SimpleNamespace(steps=8))
    folder = SimpleNamespace(cell=SimpleNamespace(config=config), recorded=SimpleNamespace(samples=[]))
    keeper = SavedPolicies(folder)
    for step, gold in ((0, 9.0), (1, -1.0), (2, 0.5), (4, 0.5), (8, 0.4)):
        samples = pd.DataFrame({"step": step, "prompt_id": [0, 1], "gold": [gold, 5.0 * step]})
        folder.save_policy = lambda name, write, step=step: saved.append(step)
        keeper.offer(SimpleNamespace(record=SimpleNamespace(step=step), samples=samples), None)
        folder.recorded.samples.append(samples)
    assert saved == [1, 2]


def text_logprob(model, tokenizer, prompt, response, ended):
    """log-prob of a response after its prompt, token by token from the model's own logits."""
    before = tokenizer(prompt)["input_ids"]
    ids = before + tokenizer(response)["input_ids"] + [tokenizer.eos_token_id] * ended
    with torch.no_grad():
        logps = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logps[at - 1, ids[at]]) for at in range(len(before), len(ids)))


def test_transformers_loads_the_policy_that_was_measured(make_cell, tiny_world):
    """Its log-ratios on the samples of the last checkpoint, with nothing of ours, are the recorded ones."""
    cell = finished(make_cell(save="final"))
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(path, local_files_only=True).eval()
        for path in (cell.directory / "policy", tiny_world.policy)
    )
    tokenizer = AutoTokenizer.from_pretrained(cell.directory / "policy", local_files_only=True)
    samples = pd.read_parquet(cell.directory / "samples.parquet").query("step == 8")
    for row in samples.itertuples():
        given = (tokenizer, row.prompt, row.response, row.ended)
        ratio = text_logprob(policy, *given) - text_logprob(reference, *given)
        assert row.kl_k1 == pytest.approx(ratio, abs=1e-3)
    assert samples["kl_k1"].abs().max() > 1
    assert {path.suffix for path in (cell.directory / "policy").iterdir()} <= {".json", ".safetensors", ".md"}


def test_the_model_card_says_which_cell_made_it(make_cell):
    cell = finished(make_cell(save="final", sweep="mine", loss="hinge", beta=0.3, seed=2))
    path = cell.directory / "policy" / "README.md"
    card = ModelCard.load(path)  # the Hub's own reader
    assert card.data.library_name == "transformers"
    assert yaml.safe_load(path.read_text().split("---")[1]) == {
        "library_name": "transformers", "tags": ["gpo-bench", "preference-optimization"],
    }  # fmt: skip
    for part in ("hinge, strength 0.3, seed 2", cell.name, "`mine`", "Step 8"):
        assert part in card.text
    record = records.read_records(cell.directory / "records.jsonl")[-1]
    (origin,) = origins(cell).values()
    assert origin == {key: record[key] for key in origin if key in record} | {"cell": cell.name, "save": "final"}
    assert {"kl", "gold", "config", "gold_model", "variant", "strength"} <= origin.keys() & record.keys()


@pytest.fixture(scope="module")
def smooth(tiny_world, tmp_path_factory):
    """A function from settings to the files that a cell saves which nothing has interrupted."""

    @functools.cache
    def files(mode, seed):
        changes = {"save": mode, "seed": seed, **UNDECIDED}
        return files_of(finished(tiny_world.cell(tmp_path_factory.mktemp("smooth"), changes)))

    return files


@pytest.mark.parametrize("mode", ["best", "all"])
def test_a_cell_that_was_stopped_saves_what_one_that_was_not_does(make_cell, smooth, mode):
    """Stopped before the second step and again before the sixth: the best, of step 2, stays in its place."""
    cell = make_cell(save=mode, seed=1, **UNDECIDED)
    for steps in (1, 4):
        asked = iter([False] * steps + [True])
        with pytest.raises(Stopped):
            run(cell, stop=lambda asked=asked: next(asked))
    finished(cell)
    assert records.read_status(cell.directory).attempts == 3
    assert files_of(cell) == smooth(mode, 1)


class Killed(BaseException):
    """What no handler catches: as SIGKILL would, it ends the attempt where it is."""


@pytest.mark.parametrize(
    ("mode", "when"), [("best", "half written"), ("best", "before the record"), ("all", "before the record")]
)
def test_a_cell_that_was_killed_while_it_saved_saves_it_again(make_cell, monkeypatch, mode, when):
    """At step 8, which is made the best after others."""
    monkeypatch.setattr(bench.cells.saving, "selection_gold", lambda samples: samples["step"].iloc[0])
    cell = make_cell(save=mode, **UNDECIDED, **{"resume.every": 1})
    save, append = Policy.save, bench.cells.folder.append_record

    def half(policy, directory):
        save(policy, directory)
        if records.read_records(cell.directory / "records.jsonl")[-1]["step"] == 4:
            (directory / "model.safetensors").write_bytes(b"half")
            raise Killed

    def before(path, record):
        if record.step == 8:
            raise Killed
        append(path, record)

    with monkeypatch.context() as patch:
        if when == "half written":
            patch.setattr(Policy, "save", half)
        else:
            patch.setattr(bench.cells.folder, "append_record", before)
        with pytest.raises(Killed):
            run(cell)
    finished(cell)
    assert files_of(cell) == files_of(finished(make_cell("smooth", save=mode, **UNDECIDED)))
    assert not list(cell.directory.glob(".policy*"))
