"""Imports go one way (DESIGN), each heavy library has its place, and modules and functions stay small.

Read from the syntax tree, so that imports inside functions and under TYPE_CHECKING count, and words in
docstrings do not.
"""

import ast
import graphlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gold_rm", "bench", "analysis")
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 270, 55


class Import(NamedTuple):
    """`importer` (a module of ours) names `target`: a module, or a module and something in it."""

    importer: str
    target: str
    at_import_time: bool


class Rule(NamedTuple):
    """Modules below `importers` import nothing below `forbidden`, but for the exceptions."""

    why: str
    importers: tuple[str, ...]
    forbidden: tuple[str, ...]
    except_in: tuple[str, ...] = ()
    except_for: tuple[str, ...] = ()

    def broken_by(self, imports: Iterable[Import]) -> list[str]:
        return [
            f"{each.importer} imports {each.target}"
            for each in imports
            if _below(each.importer, self.importers)
            and _below(each.target, self.forbidden)
            and not _below(each.importer, self.except_in)
            and not _below(each.target, self.except_for)
        ]


RULES = (
    Rule("the gold model knows texts and scores, never policies", ("gold_rm",), ("bench", "analysis")),
    Rule("training does not know its analysis", ("bench",), ("analysis",)),
    Rule(
        "the analysis reads records",
        ("analysis",),
        ("bench", "gold_rm"),
        except_for=("bench.records", "gold_rm.errors", "gold_rm.command_line"),
    ),
    Rule(
        "the analysis runs without what training needs", ("analysis",), ("torch", "transformers", "hydra", "omegaconf")
    ),
    Rule(
        "Hydra and OmegaConf stop at the entry points",
        PACKAGES,
        ("hydra", "omegaconf"),
        except_in=("bench.sweep.compose",),
    ),
    Rule("W&B lives in one package", PACKAGES, ("wandb",), except_in=("bench.cells.tracking",)),
    Rule(
        "models are loaded in one place for policies and one for gold models, and made by worlds",
        PACKAGES,
        ("transformers",),
        except_in=(
            "bench.policies.load",
            "bench.policies.tabular",
            "bench.worlds",
            "gold_rm.reward_model",
            "gold_rm.train",
            "gold_rm.evaluate",
            "gold_rm.model_directory",
        ),
        except_for=(  # the types
            "transformers.PreTrainedModel",
            "transformers.PreTrainedTokenizerBase",
            "transformers.modeling_layers.GradientCheckpointingLayer",
        ),
    ),
)


def _below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def imports_of(module: str, source: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import statement of a module, relative ones resolved."""
    tree = ast.parse(source)
    inside_functions = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            base = parts[: len(parts) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{origin}.{alias.name}" if origin else alias.name for alias in node.names]
        else:
            continue
        for target in targets:
            yield Import(module, target, id(node) not in inside_functions)


def module_files() -> dict[str, Path]:
    files = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            files[name.removesuffix(".__init__")] = path
    return files


FILES = module_files()


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return [
        each
        for module, path in FILES.items()
        for each in imports_of(module, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py")
    ]


def our_module(target: str, files: Mapping[str, object] = FILES) -> str | None:
    """The module of ours that an import names: ``bench.records`` for ``bench.records.write_json``."""
    return next((name for name in (target, target.rpartition(".")[0]) if name in files), None)


def test_the_packages_are_found():
    assert {"bench.losses", "bench.worlds", "gold_rm", "analysis"} <= FILES.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.why)
def test_imports_keep_to_the_rule(rule, imports):
    assert rule.broken_by(imports) == []


def test_exceptions_name_modules_that_exist():
    assert {name for rule in RULES for name in rule.except_in} <= FILES.keys()


def test_the_record_schema_needs_the_standard_library_only(imports):
    lean = ("bench.records", "bench.claims")
    outside = [each.target for each in imports if each.importer == "bench" or _below(each.importer, lean)]
    outside = [target for target in outside if not _below(target, (*lean, "gold_rm.errors"))]  # that, too
    assert {target.split(".")[0] for target in outside} <= sys.stdlib_module_names


def test_no_module_imports_itself_through_others(imports):
    graph: dict[str, set[str]] = {module: set() for module in FILES}
    for each in imports:
        target = our_module(each.target)
        if each.at_import_time and target is not None and target != each.importer:
            graph[each.importer].add(target)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the cycle


# Each imports from those above it only. `config` checks losses and methods by their own rules, at run time.
FLOORS = (
    ("bench.checked", "bench.claims", "bench.losses", "bench.provenance", "bench.seeding"),
    ("bench.records",),
    ("bench.sections", "bench.policy_section"),
    ("bench.config", "bench.help"),
    ("bench.policies",),
    ("bench.data",),
    ("bench.worlds",),
    ("bench.methods",),
    ("bench.cells",),
    ("bench.sweep",),
    ("bench.oracle", "bench.integrations"),
    ("bench.train", "bench.prepare", "bench.freeze", "bench.worker", "bench.evaluate", "bench.status", "bench.mirror"),
)


def test_rooms_import_from_the_floors_above_them_only(imports):
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

    def room_of(module: str) -> str | None:
        return ".".join(module.split(".")[:2]) if module.startswith("bench.") else None

    rooms = {room_of(module) for module in FILES} - {None}
    assert rooms == floor.keys(), "every room has its floor"
    wrong = []
    for each in imports:
        target = our_module(each.target)
        here, there = room_of(each.importer), target and room_of(target)
        if here is None or there is None or here == there or (here == "bench.config" and not each.at_import_time):
            continue
        if floor[here] <= floor[there]:
            wrong.append(f"{each.importer} imports {target}")
    assert wrong == []


def test_no_private_name_of_hydra_or_wandb_is_used(imports):
    """Underscore names, and W&B's inner packages, change without notice."""
    theirs = [each for each in imports if each.target.split(".")[0] in ("hydra", "omegaconf", "wandb")]
    private = [
        f"{each.importer} imports {each.target}"
        for each in theirs
        if any(part.startswith("_") for part in each.target.split(".")) or each.target.startswith("wandb.sdk")
    ]
    assert private == []
    assert len(theirs) > 8, "they are found"
    used = {
        path.name: sorted(set(re.findall(r"\b(?:hydra|wandb)(?:\.\w+)*\._\w+", path.read_text(encoding="utf-8"))))
        for path in FILES.values()
    }
    assert {name: names for name, names in used.items() if names} == {}


def test_modules_and_functions_stay_small():
    too_long = []
    for module, path in FILES.items():
        source = path.read_text(encoding="utf-8")
        if (lines := len(source.splitlines())) > MAX_MODULE_LINES:
            too_long.append(f"{module}: {lines} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    too_long.append(f"{module}.{node.name}: {lines} lines")
    assert too_long == []


def models_seen(source: str) -> list[str]:
    """Expressions of a module that reach the model of something, such as ``policy.model``."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr == "model"
    ]


def test_a_policys_model_is_seen_by_its_package_only():
    outside = {
        module: models_seen(path.read_text(encoding="utf-8"))
        for module, path in FILES.items()
        # Worlds make models; a gold model is gold_rm's own; trainers of other libraries have theirs.
        if _below(module, ("bench",)) and not _below(module, ("bench.policies", "bench.worlds", "bench.integrations"))
    }
    assert {module: seen for module, seen in outside.items() if seen} == {}


def test_a_model_that_is_seen_is_found():
    source = "import torch.model\ndef f(policy):\n    model = g(policy.reference().model.config)\n"
    assert models_seen(source) == ["policy.reference().model"]


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("gold_rm.train", "def f():\n    from bench.policies.load import load_policy", 0),
        ("gold_rm.train", "from ..bench import policy", 0),
        ("bench.sweep.driver", "import analysis.report", 1),
        ("analysis.load", "from bench import kl, records", 2),
        ("analysis.load", "import bench.records_of_another_kind", 2),
        ("analysis.plots", "if TYPE_CHECKING:\n    from torch import Tensor", 3),
        ("bench.cells.evaluation", "import hydra.utils as u", 4),
        ("gold_rm.train", "from omegaconf import OmegaConf", 4),
        ("bench.cells.run", "try:\n    import wandb\nexcept ImportError:\n    pass", 5),
        ("bench.cells.evaluation", "from transformers import AutoModelForCausalLM", 6),
        ("bench.cells.evaluation", "import transformers", 6),
    ],
)
def test_a_forbidden_import_is_found_however_it_is_written(module, source, broken):
    found = list(imports_of(module, source))
    assert [bool(rule.broken_by(found)) for rule in RULES] == [index == broken for index in range(len(RULES))]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("analysis.load", "from bench import records\nfrom bench.records import write_json\nimport benchmark"),
        ("bench.cells.tracking", "import wandb"),
        ("bench.sweep.compose", "import hydra\nfrom bench.config import CellConfig"),
        (
            "bench.cells.evaluation",
            "from transformers import PreTrainedModel\nfrom gold_rm.reward_model import GoldModel",
        ),
        ("bench.cells.evaluation", '"""import wandb"""\nNAME = "hydra"'),
    ],
)
def test_allowed_imports_pass(module, source):
    found = list(imports_of(module, source))
    assert [rule.broken_by(found) for rule in RULES] == [[]] * len(RULES)
