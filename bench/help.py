"""What ``python -m bench.train --help`` prints: commands, groups, keys and examples, read from conf/."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

SWEEP_DIR_TO = "--sweep-dir-to="  # bench.train's option: a file that is to hold the sweep's directory
KEPT = "finished cells are kept; the same command runs what is missing"  # said where a command is interrupted
CONF = Path(__file__).resolve().parent.parent / "conf"

_COMMANDS = """\
GPO bench: train policies with the GPO losses over a grid of β, and place them by KL to π_ref against gold reward.

Commands
  python -m bench.train KEY=VALUE ...                one cell, checkpoint by checkpoint
  python -m bench.train -m KEY=VALUE,VALUE ...       a sweep: every combination of the values
  python -m bench.prepare KEY=VALUE ...              only what cells stand on: world, gold model, preference data
  python -m bench.worker RUNS/SWEEP                  another worker for a planned sweep, on any machine that sees it
  python -m bench.evaluate RUNS/SWEEP                measure saved policies again
  python -m bench.evaluate policy=DIR variant=NAME   place a policy trained elsewhere on the same axes
  python -m bench.status RUNS/SWEEP                  state of a sweep
  python -m analysis.report RUNS/SWEEP ...           the report
"""
_EXAMPLES = """\
Examples
  python -m bench.train loss=squared beta=0.3 optim.lr=2e-4
  python -m bench.train -m loss=logistic,my_package.losses:my_f beta=0.03,0.1,0.3 seed=0,1,2 sweep=mine
  python -m bench.train -m experiment=smoke labels.rule=bradley_terry save=best

Hydra's own options: --cfg job (print the configuration), --config-dir DIR (add your own files), --hydra-help.
"""
_KEY = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: (?P<value>[^#]*?))?(?: +# (?P<meaning>.*))?$")


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for this page."""
    return "--help" in arguments or "-h" in arguments


def help_text() -> str:
    """The page."""
    groups = "\n".join(f"  {group:16} {', '.join(options)}" for group, options in config_groups().items())
    keys = "\n".join(f"  {f'{key}={value}':34} {meaning}".rstrip() for key, value, meaning in config_keys())
    return f"{_COMMANDS}\nGroups (GROUP=OPTION)\n{groups}\n\nKeys and defaults\n{keys}\n\n{_EXAMPLES}"


def config_groups() -> dict[str, list[str]]:
    """Options of every group in conf/, such as ``world``; ``hydra/launcher`` with those of installed packages."""
    groups: dict[str, list[str]] = {}
    for path in sorted(CONF.glob("*/**/*.yaml")):
        groups.setdefault(str(path.parent.relative_to(CONF)), []).append(path.stem)
    groups["hydra/launcher"] += ["basic", "joblib"]
    return groups


def config_keys() -> Iterator[tuple[str, str, str]]:
    """Key, default and meaning of every setting in conf/train.yaml, whose comments are the meanings."""
    parents: list[str] = []
    reading = False
    for line in (CONF / "train.yaml").read_text(encoding="utf-8").splitlines():
        reading = (reading or line.startswith("sweep:")) and not line.startswith("hydra:")
        found = _KEY.match(line)
        if not reading or found is None:
            continue
        parents = [*parents[: len(found["indent"]) // 2], found["key"]]
        if found["value"]:
            yield ".".join(parents), found["value"], found["meaning"] or ""
