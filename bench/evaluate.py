"""Measure saved policies again, or place a policy that another tool trained on a sweep's axes.

    python -m bench.evaluate runs/<sweep> [cell=NAME] [prompts=N] [samples_per_prompt=K] [gold=DIR] [device=auto]
    python -m bench.evaluate policy=DIR variant=NAME [strength=S] [step=N] [seed=0] sweep=NAME [world=… KEY=VALUE …]

The first draws fresh samples from every saved policy, on the first N evaluation prompts (default: all), K of each
(default: the sweep's evaluation.samples_per_prompt), and prints KL and gold; runs/<sweep>/evaluations.jsonl keeps them.
gold=DIR is another gold model, put on the scale where π_ref has mean 0 and SD 1.

The second makes a cell with method `external`: KL to the world's π_ref, gold, samples; reports on that sweep show it
beside the others. strength=S (default 1) is that of its regularization and step=N (default 1) the optimizer steps
behind it. The settings after sweep= are those of bench.train; a sweep that is there already has its own.

Exit status: 0 done, 1 the cell failed, 2 something in the input has to be mended, 130 interrupted.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.checked import ConfigError, known_keys, nearest
from bench.config import CellConfig
from bench.help import KEPT, asks_for_help
from bench.policies.directories import why_unusable
from gold_rm.command_line import run_with_messages, terminal

_AGAIN = {"cell": str, "prompts": int, "samples_per_prompt": int, "gold": Path, "device": str}
_IMPORT = {"policy": Path, "variant": str, "strength": float, "step": int}
_KINDS = {int: "a whole number", float: "a number"}
_OF_TRAINING = ("method", "loss", "beta", "optim", "save", "resume", "external")


def main() -> int:
    """Entry point; see the module's docstring."""
    arguments, console = sys.argv[1:], terminal()

    def action() -> int:
        if asks_for_help(arguments):
            print(__doc__)
            return 0
        imports = any(word.partition("=")[0] in _IMPORT for word in arguments)
        return (_import if imports else _again)(arguments, console)

    return run_with_messages(action, if_interrupted=KEPT)


def _options(words: Sequence[str], kinds: dict[str, type]) -> tuple[dict[str, Any], list[str]]:
    """The options among `words`, converted, and the other words."""
    options: dict[str, Any] = {}
    rest = []
    for word in words:
        key, sign, value = word.partition("=")
        if key not in kinds or not sign:
            rest.append(word)
            continue
        try:
            options[key] = kinds[key](value)
        except ValueError as error:
            raise ConfigError(f"{word}: must be {_KINDS[kinds[key]]}") from error
    return options, rest


def _again(arguments: Sequence[str], console: Console) -> int:
    options, rest = _options(arguments, _AGAIN)
    if unknown := [word.partition("=")[0] for word in rest if "=" in word or word.startswith("-")]:
        raise ConfigError(f"{unknown[0]}: no such option; did you mean {nearest(unknown[0], list(_AGAIN))!r}?")
    if len(rest) != 1:
        raise ConfigError(f"one RUNS/SWEEP, or policy=DIR, is needed; seen: {' '.join(rest) or 'none'} (--help)")
    if options.get("samples_per_prompt", 1) < 1:
        raise ConfigError(f"samples_per_prompt={options['samples_per_prompt']}: must be 1 or more")
    from bench.sweep.evaluating import evaluate_again  # torch: seconds that a message about a key need not wait for

    rows = evaluate_again(Path(rest[0]), console, **options)
    table = Table("cell", "step", "prompts × samples", "KL (nats)", "gold (SD)", "gold model", box=None)
    for row in rows:
        table.add_row(
            row["cell"], str(row["step"]), f"{row['prompts']} × {row['samples_per_prompt']}",
            f"{row['kl']:.3f} ± {row['kl_se']:.3f}", f"{row['gold']:+.3f} ± {row['gold_se']:.3f}", row["gold_model"],
        )  # fmt: skip
    console.print(table)
    return 0


def _import(arguments: Sequence[str], console: Console) -> int:
    options, settings = _options(arguments, _IMPORT)
    for needed in ("policy", "variant"):
        if needed not in options:
            raise ConfigError(f"{needed}=… is missing: python -m bench.evaluate policy=DIR variant=NAME sweep=NAME")
    if (refusal := why_unusable(options["policy"])) is not None:
        raise ConfigError(f"policy={options['policy']}: {refusal}")
    if options.get("step", 1) < 1:
        raise ConfigError(f"step={options['step']}: must be 1 or more; step 0 is π_ref")
    _check_settings(settings)
    from bench.sweep.compose import compose_one

    job = compose_one(settings)
    if job is None:
        return 0
    from bench.sweep.evaluating import import_policy

    return import_policy(job, console, **options)


def _check_settings(words: Sequence[str]) -> None:
    """Refuse what Hydra would take for a setting of a cell, and what says how a policy is trained: it would not count.

    Raises:
        ConfigError: naming the nearest option or setting, or what cannot be set here.
    """
    known = [*_IMPORT, "experiment", "hydra", *known_keys(CellConfig)]
    for key in (word.partition("=")[0].lstrip("+~") for word in words if "=" in word):
        root = re.split(r"[./@]", key)[0]
        if root in _OF_TRAINING:
            instead = "; give strength=" if root == "beta" else ""
            raise ConfigError(f"{key}: says how a policy is trained, and this one has been{instead}")
        if root not in known:
            raise ConfigError(f"{key}: no such option or setting; did you mean {nearest(key, known)!r}?")


if __name__ == "__main__":
    sys.exit(main())
