"""What the README says is what the code does: formulas, commands, settings, files."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import sympy
import torch

from bench.config import cell_config
from bench.losses import LOSSES
from bench.sweep.compose import compose_one

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0].strip()
    for line in README.replace("\\\n", " ").splitlines()
    if re.match(r" {4}(make|python) ", line)
]


def loss_rows():
    rows = [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in README.splitlines()]
    return {
        row[0]: row[1:]
        for row in rows
        if len(row) == 4 and row[0] in LOSSES and row[2] in ("DPO", "IPO", "SLiC", "GPO")
    }


def test_the_table_of_losses_has_all_of_them():
    assert list(loss_rows()) == list(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_formulas_and_facts_of_the_losses(name):
    formula, algorithm, strength = loss_rows()[name]
    text = re.split(r", (?=[a-z])", formula)[0].replace("−", "-").replace("²", "**2")
    text = re.sub(r"\^(-?\w)", r"**(\1)", text)
    f = sympy.sympify(text, locals={"e": sympy.E, "max": sympy.Max, "log": sympy.log})
    z = torch.tensor([-3.0, -0.7, 0.0, 0.4, 2.5], dtype=torch.float64)
    expected = torch.tensor([float(f.subs("z", value)) for value in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(LOSSES[name].fn(z), expected)
    assert algorithm == LOSSES[name].algorithm
    assert float(sympy.Rational(strength)) == LOSSES[name].local_strength


def test_commands_are_found():
    assert {"make sweep", "make test"} <= set(COMMANDS)
    assert len(COMMANDS) > 8


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist_and_their_settings_are_known(command):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        overrides = shlex.split(words[2].removeprefix("ARGS=")) if len(words) > 2 else []
    else:
        assert importlib.util.find_spec(words[2])
        overrides = words[3:] if words[2] == "bench.train" else []
    # One value of each key, and a loss that can be imported here.
    single = [word.split(",")[0] for word in overrides if not word.startswith(("-", "loss=my_package"))]
    cell_config(compose_one(single).settings)


def test_pictures_are_there():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert len(pictures) >= 2
    assert all((ROOT / picture).is_file() for picture in pictures)
