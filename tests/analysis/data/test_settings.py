"""What a sweep varies beside variant, strength and seed separates it, within a method."""

import json

import pytest
from synthetic_runs import Truth, add_external, write_sweep

from analysis.data.load import load_sweep
from analysis.data.sweep import RefusedSweep
from bench import records

TRUTH = Truth(losses=("logistic", "squared"), betas=(0.1,), seeds=(0, 1), steps=(0, 5), prompts=4)


def change(sweep_dir, alter):
    """Give plan and records the values of ``alter(row)``, which gets a planned row."""
    plan = records.read_plan(sweep_dir)
    for row in plan["cells"]:
        new = alter(row)
        row.update(new)
        path = sweep_dir / row["cell"] / records.RECORDS_FILE
        lines = [json.loads(line) | new for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    records.write_json(sweep_dir / records.PLAN_FILE, plan)
    return sweep_dir


def two_rates(row):
    return {"lr": 1e-3 if row["seed"] else 5e-4, "seed": 0} if row["method"] == "gpo" else {}


def test_a_policy_without_the_setting_stands_in_every_part(tmp_path):
    sweep_dir = write_sweep(tmp_path / "s", TRUTH)
    add_external(sweep_dir, "other", kl=1.0, gold=0.5, prompts=4)
    parts = load_sweep(change(sweep_dir, two_rates)).by_setting()
    assert [setting for setting, _ in parts] == [{"lr": 5e-4}, {"lr": 1e-3}]
    for setting, part in parts:
        assert part.variants == ("logistic", "squared", "other")
        assert set(part.checkpoints["lr"].dropna()) == {setting["lr"]}
        assert len(part.cells) == 3
        assert part.setting_keys == ()


def test_a_method_with_a_learning_rate_of_its_own_is_no_setting(tmp_path):
    def alter(row):
        own = {"method": "rloo", "variant": "rloo", "lr": 1e-5}
        return own if row["variant"] == "squared" else {}

    sweep = load_sweep(change(write_sweep(tmp_path / "s", TRUTH), alter))
    assert sweep.by_setting() == [({}, sweep)]
    assert sweep.methods == {"logistic": "gpo", "rloo": "rloo"}
    assert sweep.strength_name == "strength"


def test_a_method_with_other_values_of_the_setting_has_parts_of_its_own(tmp_path):
    def alter(row):
        if row["variant"] == "squared":
            return {"method": "rloo", "variant": "rloo", "lr": 1e-5 * (1 + row["seed"]), "seed": 0}
        return two_rates(row)

    parts = load_sweep(change(write_sweep(tmp_path / "s", TRUTH), alter)).by_setting()
    assert [(setting["lr"], part.variants) for setting, part in parts] == [
        (5e-4, ("logistic",)), (1e-3, ("logistic",)), (1e-5, ("rloo",)), (2e-5, ("rloo",)),
    ]  # fmt: skip


def test_a_variant_of_two_methods_is_refused(tmp_path):
    sweep_dir = write_sweep(tmp_path / "s", TRUTH)
    add_external(sweep_dir, "squared", kl=1.0, gold=0.5, prompts=4)
    with pytest.raises(RefusedSweep, match="'squared' is of 2 methods \\(gpo, external\\)"):
        load_sweep(sweep_dir)
