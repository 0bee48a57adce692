"""conf/claims.yaml and files like it: what is read, what is refused, and that it names the default experiment."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import yaml

from analysis.statistics.claims.rules import RULES_FILE, RefusedRules, Rules, read_rules
from bench.cells.settings import flat
from bench.config import cell_config
from bench.sweep.compose import compose_one

# Keys that are swept, or move results by rounding at most.
NOT_A_SETTING = {"loss", "beta", "seed", "sweep", "tracking", "device", "runs_dir", "artifacts_dir", "save", "resume",
                 "workers", "external", "cpu_threads", "logits_mib", "evaluation.batch_size",
                 # Of other methods and labellers: the method is named, and so are the preferences, by their content.
                 "labels.by", "proxy", "watch", "online", "rloo", "best_of_n", "parallel",
                 # Of adapters, which policy.use_peft says there are none of.
                 "policy.lora_r", "policy.lora_alpha", "policy.lora_dropout", "policy.lora_target_modules",
                 "policy.gradient_checkpointing"}  # fmt: skip


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_repeats_the_defaults_of_the_code():
    """One truth: what another file leaves out is as here."""
    rules = read_rules()
    assert rules.name == "claims.yaml"
    assert replace(rules, sweep=None, name="built in") == Rules()
    content = yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))
    assert {item.name for item in fields(Rules)} - {"name", "c1", "c2", "c3", "c4"} <= set(content)
    for key, part in (("C1", Rules().c1), ("C2", Rules().c2), ("C3", Rules().c3), ("C4", Rules().c4)):
        assert {item.name for item in fields(part)} == set(content[key])


def test_the_file_names_the_default_experiment_with_all_its_settings():
    """A default that changes must be changed here too, in a commit before the sweep is run."""
    sweep = read_rules().sweep
    experiment = yaml.safe_load((Path(RULES_FILE).parent / "experiment" / "frontier.yaml").read_text(encoding="utf-8"))
    swept = experiment["hydra"]["sweeper"]["params"]
    assert [str(value) for value in sweep.variants] == str(swept["loss"]).split(",")
    assert [float(value) for value in sweep.strengths] == [float(value) for value in str(swept["beta"]).split(",")]
    assert [str(value) for value in sweep.seeds] == str(swept["seed"]).split(",")
    composed = flat(json.loads(json.dumps(asdict(cell_config(compose_one(["experiment=frontier"]).settings)))))
    settings = {key: value for key, value in composed.items() if not {key, key.split(".")[0]} & NOT_A_SETTING}
    assert json.loads(json.dumps(dict(sweep.settings))) == settings


def test_what_a_file_leaves_out_is_built_in(tmp_path):
    rules = read_rules(written(tmp_path, "seeds: 5\nC1: {margin: 0.2}\n"))
    assert rules == replace(Rules(), seeds=5, c1=replace(Rules().c1, margin=0.2), name="mine.yaml")
    assert read_rules(written(tmp_path, "")) == replace(Rules(), name="mine.yaml")


def test_the_digest_is_of_the_rules_and_not_of_the_name():
    assert Rules().digest == replace(Rules(), name="other").digest
    assert Rules().digest != replace(Rules(), seeds=4).digest
    assert Rules().digest != read_rules().digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds: 1", "seeds=1: must be a whole number, 2 or more"),
        ("seeds: true", "seeds=True: must be a whole number"),
        ("level: 95", "level=95: must be a number above 0.5 and below 1"),
        ("fit: first", "fit='first': must be last or all"),
        ("multiplicity: none", "multiplicity='none': must be holm or bonferroni"),
        ("C1: {margin: 0}", "C1.margin=0: must be a number above 0"),
        ("C1: {margin: .nan}", "C1.margin=nan: must be a number above 0"),
        ("C1: {budgets: 1}", "C1.budgets=1: must be a list"),
        ("C1: {budgets: [2, 1]}", r"C1.budgets=\[2, 1\]: must be ascending"),
        ("C1: {budgets: []}", r"C1.budgets=\[\]: must be a list of KLs"),
        ("C2: {same: 1}", "C2.same=1: must be a number above 1"),
        ("C3: {ends: [a]}", "C3.ends='a': must be a number above 0"),
        ("C3: {reach: 4}", "C3.reach=4: must be within C3.ends"),
        ("C4: {kl_ratio: 0.5}", "C4.kl_ratio=0.5"),
        ("C1: {margn: 1}", "C1.margn: no such key; did you mean C1.margin?"),
        ("sedes: 4", "sedes: no such key; did you mean seeds?"),
        ("C1: 3", "C1=3: must be keys with values"),
        ("- a", "the file=.*: must be keys with values"),
        ("sweep: {variants: [a]}", "sweep: lacks sweep.strengths, sweep.seeds"),
        ("sweep: {variants: [a], strengths: [1], seeds: [a]}", "sweep.seeds"),
        ("sweep: {variants: [a, a], strengths: [1], seeds: [1]}", "without repeats"),
        ("sweep: {variants: [a], strengths: [1], seeds: [1], fingerprints: {gold: x}}", "sweep.fingerprints.gold"),
        ("a: [", "cannot be read"),
    ],
)
def test_bad_rules_are_refused_in_one_line(text, words, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(RefusedRules, match=words) as error:
        read_rules(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RefusedRules, match="cannot be read"):
        read_rules(tmp_path / "none.yaml")
