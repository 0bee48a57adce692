"""The help page holds every key, group and command there is; what says no more than that does not wait for torch."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from bench.checked import known_keys
from bench.config import CellConfig, cell_config
from bench.help import CONF, asks_for_help, config_groups, config_keys, help_text
from bench.sweep.compose import compose_one, compose_sweep

ROOT = Path(__file__).resolve().parents[2]
PAGE = help_text()
EXAMPLES = [line.strip() for line in PAGE.splitlines() if re.match(r" +python -m bench\.\w+ .*=\S", line)]


def leaves(tree, prefix=""):
    """Dotted keys and values of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_key_has_its_default_and_a_meaning_of_one_line():
    """Against the file as YAML reads it."""
    tree = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    tree = OmegaConf.create({key: value for key, value in tree.items() if key not in ("defaults", "hydra")})
    settings = dict(leaves(OmegaConf.to_container(tree, resolve=True)))
    shown = {key: (value, meaning) for key, value, meaning in config_keys()}
    assert list(shown) == list(settings)
    assert {key: OmegaConf.create(f"x: {value}").x for key, (value, _) in shown.items()} == settings
    for key, (value, meaning) in shown.items():
        assert meaning.strip(), f"{key} has no comment in conf/train.yaml"
        (line,) = (line for line in PAGE.splitlines() if line.strip().startswith(f"{key}={value}"))
        assert line.rstrip().endswith(meaning)


def test_every_setting_of_a_cell_but_the_worlds_is_a_key():
    groups = {key.rpartition(".")[0] for key in known_keys(CellConfig)}
    settings = {key for key in known_keys(CellConfig) if key not in groups and key.split(".")[0] != "world"}
    assert {key for key, _, _ in config_keys()} == settings - {"external"} | {"also"}, (
        "imported by bench.evaluate, and said to the driver"
    )


def test_every_group_and_its_options_are_listed():
    files = {(str(path.parent.relative_to(CONF)), path.stem) for path in CONF.rglob("*.yaml") if path.parent != CONF}
    listed = {(group, option) for group, options in config_groups().items() for option in options}
    assert files <= listed
    assert {group for group, _ in listed} == {group for group, _ in files}
    for group, options in config_groups().items():
        assert re.search(rf"^  {group} +{re.escape(', '.join(options))}$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("option", config_groups()["hydra/launcher"])
def test_every_launcher_that_is_listed_is_installed(option):
    assert compose_sweep(["-m", f"hydra/launcher={option}", "seed=0"]).launcher == option


def test_every_command_exists():
    modules = set(re.findall(r"python -m ([\w.]+)", PAGE))
    assert {"bench.train", "bench.prepare", "bench.worker", "bench.evaluate", "bench.status"} <= modules
    assert all(importlib.util.find_spec(module) for module in modules)


@pytest.mark.parametrize("line", [line for line in EXAMPLES if "VALUE" not in line and "DIR" not in line])
def test_examples_compose(line, tmp_path, monkeypatch):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "losses.py").write_text("def my_f(z):\n    return (z - 1) ** 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)  # Hydra makes the folder of a run
    words = shlex.split(line)[3:]
    if "experiment=smoke" in words:
        words += ["loss=hinge", "beta=0.1", "seed=0"]  # one of its cells
    jobs = compose_sweep(words).jobs if "-m" in words else [compose_one(words)]
    assert all(cell_config(job.settings) for job in jobs)


def test_there_are_examples():
    assert sum("VALUE" not in line for line in EXAMPLES) >= 3


def test_which_command_lines_ask_for_help():
    assert asks_for_help(["-m", "--help"])
    assert asks_for_help(["-h"])
    assert not asks_for_help(["-m", "loss=hinge", "--cfg", "job", "--hydra-help"])


@pytest.mark.parametrize(
    ("module", "words", "code", "said"),
    [
        ("bench.train", ["beta=-1"], 2, "beta=-1"),
        ("bench.train", ["-m", "beta=0.1,-1"], 2, "beta=-1"),
        ("bench.prepare", ["pairs.pool=0"], 2, "pairs.pool=0"),
        ("bench.train", ["--help"], 0, "Keys and defaults"),
        ("bench.train", ["optim.lrr=1"], 2, "did you mean 'optim.lr'?"),
        ("bench.train", ["-m", "bta=0.1,1"], 2, "did you mean 'beta'?"),
        ("bench.status", [str(ROOT / "tests" / "fixtures" / "sweep_before_variants")], 1, "cells: "),
        ("bench.evaluate", ["runs/x", "promts=3"], 2, "did you mean 'prompts'?"),
        ("bench.evaluate", ["policy=conf", "variant=x"], 2, "no config.json there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_what_needs_no_model_does_not_wait_for_torch(module, words, code, said):
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{module!r}, *{words!r}]\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    print('\\nended', end.code, [name for name in ('torch', 'transformers') if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert said in ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == f"ended {code} []", ran.stderr
