"""Time a warm cell and its parts, against another checkout if asked; medians over cells, in seconds.

    python benchmarks/cell.py [--cells 5] [--against CHECKOUT] [--cpu] [KEY=VALUE ...]

Every process loads and warms up once. Two checkouts take turns cell by cell, so that a busy machine slows both. The
first run builds what the cells stand on, in `artifacts_dir`. `--ours KEY=VALUE` is for this checkout only, such as a
key that the other does not know. Checkouts are told apart by PYTHONPATH: the parts are timed by names that both have.
`--cpu` counts processor time in place of the clock's: on a busy machine the steadier of the two.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve()
PARTS = ("step", "sampling", "kl", "gold", "held_out")
# Both sides of the grid: responses become longer or shorter under training, and with them the work.
CELLS = [("logistic", 0.1), ("squared", 0.03), ("exponential", 0.4), ("hinge", 1.0), ("savage", 0.2)]


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the cells")
    parser.add_argument("--cells", type=int, default=5, help="cells to time, after one to warm up")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another working tree of this repository")
    parser.add_argument("--ours", action="append", default=[], metavar="KEY=VALUE", help="for this checkout only")
    parser.add_argument("--cpu", action="store_true", help="processor time in place of the clock's")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.overrides, time.process_time if options.cpu else time.perf_counter)
    roots = {"here": HERE.parents[1], **({"against": options.against.resolve()} if options.against else {})}
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                worker(root, [*options.overrides, *(options.ours if name == "here" else []), *["--cpu"] * options.cpu])
            )
            for name, root in roots.items()
        }
        rounds = [{name: ask(index) for name, ask in workers.items()} for index in range(-1, options.cells)]
    print_table(rounds[1:])


def print_table(rounds: list[dict[str, dict[str, float]]]) -> None:
    """Medians of each part, and of the ratio of two checkouts within a round."""
    for part in ("cell", *PARTS):
        medians = {name: median(each[name][part] for each in rounds) for name in rounds[0]}
        line = f"{part:10}" + "".join(f"{name:>10} {value:7.3f} s" for name, value in medians.items())
        if len(medians) == 2:
            ratios = sorted(each["here"][part] / each["against"][part] for each in rounds)
            line += f"     here/against {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(line)


@contextlib.contextmanager
def worker(root: Path, arguments: list[str]) -> Iterator[Callable[[int], dict[str, float]]]:
    """A process on the checkout at `root`; what is yielded runs a cell there and returns its seconds by part."""
    process = subprocess.Popen(
        [sys.executable, str(HERE), "--serve", *arguments],
        env={**os.environ, "PYTHONPATH": str(root)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    asking, answers = process.stdin, process.stdout

    def ask(index: int) -> dict[str, float]:
        print(index, file=asking, flush=True)
        answer = answers.readline()
        if not answer:
            sys.exit(f"error: the process on {root} has ended without an answer")
        return json.loads(answer)

    try:
        yield ask
    finally:
        asking.close()
        process.wait()


def serve(overrides: list[str], clock: Callable[[], float]) -> None:
    """Run a cell for every line of the standard input, and answer with its seconds by part."""
    from bench.cells.inputs import InputCache
    from bench.config import cell_config
    from bench.sweep.compose import compose_one
    from bench.sweep.preparing import prepare

    cache, prepared, seconds = InputCache(), None, dict.fromkeys(PARTS, 0.0)
    with time_parts(seconds, clock), tempfile.TemporaryDirectory() as runs, contextlib.redirect_stdout(sys.stderr):
        for line in sys.stdin:
            loss, beta = CELLS[int(line) % len(CELLS)]
            changes = [f"loss={loss}", f"beta={beta}", f"runs_dir={runs}/{line.strip()}"]
            job = compose_one([*changes, "tracking.wandb.mode=disabled", *overrides])
            assert job is not None
            config = cell_config(job.settings)
            prepared = prepared or prepare(config)
            seconds.update(dict.fromkeys(PARTS, 0.0))
            seconds["cell"] = run(config, prepared, cache, clock)
            print(json.dumps(seconds), file=sys.__stdout__, flush=True)


def run(config: Any, prepared: Any, cache: Any, clock: Callable[[], float]) -> float:
    """Seconds that the cell takes."""
    from bench.cells.cell import Cell
    from bench.cells.run import run_cell

    start = clock()
    status = run_cell(Cell.of(config), prepared, cache)
    assert status.state == "done", status.error
    return clock() - start


@contextlib.contextmanager
def time_parts(seconds: dict[str, float], clock: Callable[[], float]) -> Iterator[None]:
    """Within, what each part takes is added to `seconds`."""
    from unittest import mock

    from bench.cells import evaluation, measure
    from bench.methods.offline import OfflineTrainer
    from bench.policies.policy import Policy
    from gold_rm.reward_model import GoldModel

    places: dict[str, tuple[Any, str]] = {
        "step": (OfflineTrainer, "step"), "sampling": (Policy, "sample"), "kl": (evaluation, "sequence_kl"),
        "gold": (GoldModel, "score"), "held_out": (measure, "evaluate_held_out"),
    }  # fmt: skip

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] += clock() - start

        return call

    with contextlib.ExitStack() as stack:
        for part, (owner, name) in places.items():
            stack.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name))))
        yield


if __name__ == "__main__":
    main()
