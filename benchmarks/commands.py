"""Times of whole commands (messages, imports, a sweep with nothing left to do, reports), and of another checkout's.

    python benchmarks/commands.py [--rounds 5] [--against CHECKOUT] [--sweep runs/frontier]

Every command is a process of its own. Two checkouts take turns; printed are medians, and the ratio within a round with
its range. Commands that read a finished sweep, of `experiment=frontier`, are left out where there is none; reports are
written elsewhere and thrown away. The clock's seconds, with the files in the system's memory after the first round.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve()
REPORT = "report"  # in the names of what takes long


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="after one to warm up")
    parser.add_argument("--reports", type=int, default=2, metavar="N", help="rounds of reports; 0 leaves them out")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another working tree of this repository")
    parser.add_argument("--sweep", type=Path, default=Path("runs/frontier"), help="a finished one of the experiment")
    options = parser.parse_args()
    roots = [HERE.parents[1], *([options.against.resolve()] if options.against else [])]
    print_header(len(roots))
    with tempfile.TemporaryDirectory() as scratch:
        each = [commands(options.sweep, Path(scratch) / str(number)) for number in range(len(roots))]
        for name in each[0]:
            if rounds := options.reports if REPORT in name else options.rounds:
                times = [
                    [seconds(*one) for one in zip(roots, [c[name] for c in each], strict=True)]
                    for _ in range(rounds + 1)
                ]
                print(row(name, times[1:]), flush=True)


def commands(sweep: Path, output: Path) -> dict[str, list[str]]:
    """What is timed, by name: arguments of Python."""
    timed = {
        "`bench.train --help`": ["-m", "bench.train", "--help"],
        "a mistyped key": ["-m", "bench.train", "bta=0.1"],
        "a value that is refused": ["-m", "bench.train", "-m", "beta=0.1,-1"],
        "imports of torch and transformers' models": ["-c", "import torch; from transformers import PreTrainedModel"],
        "imports of a worker": ["-c", "import bench.sweep.workers"],
    }
    if not (sweep / "plan.json").is_file():
        print(f"no finished sweep {sweep}: its commands are left out", file=sys.stderr)
        return timed
    sweep = sweep.resolve()
    again = ["-m", "bench.train", "-m", "experiment=frontier", f"sweep={sweep.name}", f"runs_dir={sweep.parent}"]
    report = ["-m", "analysis.report", str(sweep), "--output", str(output / REPORT), "--notebooks"]
    return timed | {
        "a sweep that is done": again,
        "a report without notebooks": [*report[:-1], "--no-notebooks"],
        "a report": report,
        "a report that is up to date": [*report, "--if-changed"],
    }


def seconds(root: Path, words: list[str]) -> float:
    """Wall time of one process on the checkout at `root`; its exit status may be that of bad input, nothing else."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - start
    if done.returncode not in (0, 2):
        sys.exit(f"error: {' '.join(words)} ended with status {done.returncode}\n{done.stderr}")
    return took


def print_header(checkouts: int) -> None:
    """The head of the table; two checkouts have their ratio."""
    columns = ["command", "seconds (range)", *(["the other", "here / other (range)"] if checkouts == 2 else [])]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def row(name: str, times: list[list[float]]) -> str:
    """A row of the table from the seconds of every round, one number per checkout."""
    cells = [name, spread([each[0] for each in times])]
    if len(times[0]) == 2:
        cells += [f"{median(each[1] for each in times):.2f}", spread([here / other for here, other in times])]
    return f"| {' | '.join(cells)} |"


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    main()
