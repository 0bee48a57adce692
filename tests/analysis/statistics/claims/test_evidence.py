"""What stands against a verdict: on disk and in memory."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_claims import RULES, draw
from synthetic_runs import Truth, add_external, cell_name, write_sweep

from analysis.data.load import RefusedSweep, load_sweep
from analysis.report.__main__ import main
from analysis.statistics.analyze import analyze
from analysis.statistics.claims import (
    CONFIRMATORY,
    EXPLORATORY,
    INCONCLUSIVE,
    RULES_FILE,
    gather_evidence,
    read_rules,
    standing_of,
)
from analysis.statistics.claims.rules import NamedSweep
from bench import records

TRUTH = Truth(losses=("logistic", "squared"), betas=(0.03, 0.1, 0.3, 1.0), seeds=(0, 1, 2), steps=(0, 192), prompts=16,
              seed_sd=0.02, noise_sd=0.1)  # fmt: skip
SETTINGS = {"optim": {"steps": 192, "lr": 5e-4}, "world": {"name": "synthetic"}}


@pytest.fixture
def sweep_dir(tmp_path):
    """A finished sweep whose plan says with what settings it was made."""
    path = write_sweep(tmp_path / "small", TRUTH)
    plan = records.read_plan(path)
    jobs = {row["cell"]: {"settings": "s", "prepared": "p", "changes": {"beta": row["beta"]}} for row in plan["cells"]}
    records.write_json(path / records.PLAN_FILE, plan | {"settings": {"s": SETTINGS}, "jobs": jobs})
    return path


def named(**changes):
    settings = {"optim.steps": 192, "world.name": "synthetic"}
    return replace(RULES, sweep=NamedSweep(**{"variants": TRUTH.losses, "strengths": TRUTH.betas, "seeds": TRUTH.seeds,
                                              "settings": settings} | changes), name="mine.yaml")  # fmt: skip


def obstacles(path):
    analysis = analyze(load_sweep(path), np.random.default_rng(0))
    assert [claim.verdict for claim in analysis.claims] == [INCONCLUSIVE] * 4
    return analysis.claims[0].numbers["obstacles"]


def test_a_complete_sweep_has_none(sweep_dir):
    analysis = analyze(load_sweep(sweep_dir), np.random.default_rng(0))
    assert all("obstacles" not in claim.numbers for claim in analysis.claims)
    assert not any(claim.sentence.startswith("No verdict") for claim in analysis.claims)


def test_three_cells_left_of_a_sweep(sweep_dir):
    for row in records.read_plan(sweep_dir)["cells"][3:]:
        shutil.rmtree(sweep_dir / row["cell"])
    found = " ".join(obstacles(sweep_dir))
    assert "21 of 24 planned cells are not finished (21 missing)" in found
    assert "logistic has 1 strength, 4 are needed" in found


def test_one_failed_cell(sweep_dir):
    name = cell_name("squared", 0.1, 2)
    records.write_status(sweep_dir / name, records.CellStatus("failed", name, 1, 1e9, 1e9, 12, 192, "host", 1, "why"))
    found = obstacles(sweep_dir)
    assert found[0] == "1 of 24 planned cells are not finished (1 failed)"
    assert found[1] == "1 pairs of variant and strength lack a seed, such as squared at 0.1: seed 2"


def test_a_copied_cell_is_not_another_seed(sweep_dir):
    """One that says to be another cell; others are refused when they are read."""
    first, copy = (sweep_dir / cell_name("squared", 0.1, seed) for seed in (0, 2))
    ids = [json.loads((each / records.RECORDS_FILE).read_text().splitlines()[0])["cell_id"] for each in (first, copy)]
    for name in (records.RECORDS_FILE, records.SAMPLES_FILE):
        shutil.copy(first / name, copy / name)
    with pytest.raises(RefusedSweep, match="seed = 0 at step 0, but 2 in the plan"):
        load_sweep(sweep_dir)
    text = (copy / records.RECORDS_FILE).read_text().replace('"seed": 0', '"seed": 2').replace(*ids)
    (copy / records.RECORDS_FILE).write_text(text)
    found = " ".join(obstacles(sweep_dir))
    assert "2 cells of different seeds are copies of each other, such as squared at 0.1, seed 0 and" in found


def test_a_cell_that_is_planned_under_two_names_counts_for_nothing(sweep_dir):
    plan = records.read_plan(sweep_dir)
    first = next(row for row in plan["cells"] if row["cell"] == cell_name("squared", 0.1, 0))
    copy = sweep_dir / f"{first['cell']},again"
    shutil.copytree(sweep_dir / first["cell"], copy)
    rows = [
        json.loads(line) | {"cell_id": "another"} for line in (copy / records.RECORDS_FILE).read_text().splitlines()
    ]
    (copy / records.RECORDS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    records.write_json(sweep_dir / records.PLAN_FILE, plan | {"cells": [*plan["cells"], first | {"cell": copy.name}]})
    found = " ".join(obstacles(sweep_dir))
    assert "2 cells repeat a variant, strength and seed, such as squared at 0.1, seed 0" in found


def test_imported_policies_stand_against_nothing(sweep_dir):
    add_external(sweep_dir, "mine", kl=2.0, gold=0.3, prompts=TRUTH.prompts)
    sweep = load_sweep(sweep_dir)
    analysis = analyze(sweep, np.random.default_rng(0))
    assert all("obstacles" not in claim.numbers for claim in analysis.claims)


def test_variants_with_other_seeds_cannot_be_paired():
    draws = draw(seeds=4)
    rows = draws.rows[(draws.rows["variant"] != "hinge") | (draws.rows["seed"] != 3)]
    evidence = gather_evidence(replace(draws, rows=rows), RULES)
    assert evidence.obstacles == ("differences are paired by seed, and hinge has no seed 3",)


def test_runs_of_other_seeds_or_strengths_are_not_identical():
    evidence = gather_evidence(draw(seeds=3), RULES)
    assert evidence.identical.empty
    assert evidence.words_on_identical == ""
    assert evidence.same_at(1.0) == {variant: variant for variant in evidence.variants}


# Confirmatory or exploratory


def test_the_named_sweep_is_confirmatory(sweep_dir):
    standing = standing_of(load_sweep(sweep_dir), named())
    assert (standing.status, standing.rules) == (CONFIRMATORY, f"mine.yaml ({named().digest})")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seeds": (0, 1, 2, 3)}, "8 of the 32 cells that mine.yaml names are not planned, such as logistic at β = "
                                  "0.03, seed 3."),
        ({"seeds": (0, 1)}, "8 planned cells are not among those that mine.yaml names, such as logistic at β = 0.03, "
                            "seed 2."),
        ({"strengths": (0.03, 0.1, 0.3, 2.0)}, "6 of the 24 cells that mine.yaml names are not planned"),
        ({"settings": {"optim.steps": 160}}, "optim.steps is 192 for loss=logistic,beta=0.03,seed=0; mine.yaml has"),
        ({"settings": {"optim.batch": 16}}, "optim.batch is not in the plan for loss=logistic,beta=0.03,seed=0"),
        ({"settings": {"beta": 0.03}}, "beta is 0.1 for loss=logistic,beta=0.1,seed=0"),
        ({"fingerprints": {"gold_model": "g2"}}, "gold_model is g1; mine.yaml has g2."),
    ],
)  # fmt: skip
def test_the_first_difference_is_said(changes, why, sweep_dir):
    standing = standing_of(load_sweep(sweep_dir), named(**changes))
    assert standing.status == EXPLORATORY
    assert standing.why.startswith(why)


def test_a_section_that_came_later_is_at_its_defaults_in_older_plans_and_said_in_newer_ones(sweep_dir):
    rules = named(settings={"policy.use_peft": False})
    assert standing_of(load_sweep(sweep_dir), rules).status == CONFIRMATORY
    plan = records.read_plan(sweep_dir)
    for job in plan["jobs"].values():
        job["changes"] |= {"policy.use_peft": True}
    records.write_json(sweep_dir / records.PLAN_FILE, plan)
    assert standing_of(load_sweep(sweep_dir), rules).why.startswith("policy.use_peft is True for ")


def test_what_is_unfinished_or_of_an_older_version_is_exploratory(sweep_dir):
    shutil.rmtree(sweep_dir / cell_name("squared", 0.1, 2))
    assert standing_of(load_sweep(sweep_dir), named()).why == "1 of 24 planned cells are not finished."
    plan = records.read_plan(sweep_dir)
    plan["cells"] = [row for row in plan["cells"] if row["seed"] != 2]
    records.write_json(sweep_dir / records.PLAN_FILE, plan | {"jobs": {}})
    assert "does not say" in standing_of(load_sweep(sweep_dir), named(seeds=(0, 1))).why


def test_the_report_takes_rules_and_says_what_it_is(sweep_dir, few_figures, capsys):
    arguments = [str(sweep_dir), "--no-notebooks"]
    rules = sweep_dir / "mine.yaml"
    rules.write_text(
        "C1: {margin: 0.3}\nsweep: {variants: [logistic, squared], strengths: [0.03, 0.1, 0.3, 1], seeds: [0, 1, 2]}\n"
    )
    assert main([*arguments, "--rules", str(rules)]) == 0
    content = json.loads((sweep_dir / "report" / "claims.json").read_text())
    assert content["status"] == CONFIRMATORY
    assert "±0.3 SD" in content["claims"][0]["rule"]
    assert main([*arguments, "--rules", str(rules), "--fit", "all"]) == 0
    content = json.loads((sweep_dir / "report" / "claims.json").read_text())
    assert (content["status"], content["why"]) == (EXPLORATORY, "mine.yaml fits frontiers to last checkpoints.")
    capsys.readouterr()
    rules.write_text("C1: {margin: -1}")
    assert main([*arguments, "--rules", str(rules)]) == 2
    assert capsys.readouterr().err == f"error: rules {rules}: C1.margin=-1: must be a number above 0\n"


def test_a_report_is_made_again_when_the_rules_change(sweep_dir, few_figures, capsys):
    rules = sweep_dir / "mine.yaml"
    rules.write_text("seeds: 3\n")
    arguments = [str(sweep_dir), "--no-notebooks", "--if-changed", "--rules", str(rules)]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert "up to date" in capsys.readouterr().out
    rules.write_text("seeds: 4\n")
    assert main(arguments) == 0
    assert "up to date" not in capsys.readouterr().out
    assert json.loads((sweep_dir / "report" / "claims.json").read_text())["claims"][0]["verdict"] == INCONCLUSIVE


def test_the_shipped_rules_are_used_by_default(sweep_dir, few_figures):
    assert main([str(sweep_dir), "--no-notebooks"]) == 0
    content = json.loads((sweep_dir / "report" / "claims.json").read_text())
    assert content["rules"] == f"{RULES_FILE.name} ({read_rules().digest})"
    assert content["why"].startswith("420 of the 420 cells that claims.yaml names are not planned")
    assert isinstance(pd.DataFrame(content["claims"]), pd.DataFrame)
