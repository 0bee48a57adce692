"""Measure saved policies again, or place a policy that another tool trained on a sweep's axes.

    python -m bench.evaluate runs/<sweep> [cell=NAME] [prompts=N] [samples_per_prompt=K] [gold=DIR] [device=auto]
    python -m bench.evaluate policy=DIR variant=NAME [strength=S] [step=N] [seed=0] sweep=NAME [world=… KEY=VALUE …]

The first writes runs/<sweep>/evaluations.jsonl and prints it; gold=DIR is another gold model, put on the scale where
π_ref has mean 0 and SD 1. The second makes a cell with method `external`: KL to the world's π_ref, gold, samples;
reports on that sweep show it beside the others. The settings after sweep= are those of bench.train.

Exit status: 0 done, 1 the cell failed, 2 something in the input has to be mended, 130 interrupted.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.checked import ConfigError, nearest
from bench.messages import run_with_messages

_AGAIN = {"cell": str, "prompts": int, "samples_per_prompt": int, "gold": Path, "device": str}
_IMPORT = {"policy": str, "variant": str, "strength": float, "step": int}


def main() -> int:
    """Entry point; see the module's docstring."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    again = "=" not in arguments[0]
    return run_with_messages(lambda: _again(arguments, console) if again else _import(arguments, console))


def _options(words: Sequence[str], kinds: dict[str, type]) -> tuple[dict[str, Any], list[str]]:
    """The options among `words`, converted, and the other words."""
    options: dict[str, Any] = {}
    rest = []
    for word in words:
        key, _, value = word.partition("=")
        if key not in kinds:
            rest.append(word)
            continue
        try:
            options[key] = kinds[key](value)
        except ValueError as error:
            raise ConfigError(f"{word}: {key} is {kinds[key].__name__}") from error
    return options, rest


def _again(arguments: Sequence[str], console: Console) -> int:
    options, rest = _options(arguments[1:], _AGAIN)
    if rest:
        key = rest[0].partition("=")[0]
        raise ConfigError(f"{key}: no such option; did you mean {nearest(key, list(_AGAIN))!r}?")
    if options.get("samples_per_prompt", 1) < 1:
        raise ConfigError(f"samples_per_prompt={options['samples_per_prompt']}: must be 1 or more")
    from bench.sweep.evaluating import evaluate_again  # torch: seconds that a message about a key need not wait for

    rows = evaluate_again(Path(arguments[0]), console, **options)
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
    from bench.sweep.compose import compose_one

    job = compose_one(settings)
    if job is None:
        return 0
    from bench.sweep.evaluating import import_policy

    return import_policy(job, console, **options)


if __name__ == "__main__":
    sys.exit(main())
