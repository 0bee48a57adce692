"""A cell of ours beside TRL's DPOTrainer: the same π_ref, pairs, steps, learning rate and evaluations.

    python benchmarks/beside_trl.py [--rounds 3] [KEY=VALUE ...]

Both sides run in turns, each in a process of its own: from its start to the end of its first cell ("process"), then a
second cell with everything loaded ("warm"). TRL gets the reference log-probs of the preference data, no dropout,
one thread, no logging and no checkpoints on disk; its policy is evaluated at the same steps by the functions that
evaluate ours. Ours also writes its folder. Prints medians and the ratio of ours to TRL's within a round; `--cpu` counts
processor time in place of the clock's: on a busy machine the steadier of the two.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve()
BETA = {0: 0.1, 1: 0.2}


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the cells")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="processor time in place of the clock's")
    parser.add_argument("--serve", choices=("ours", "trl"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.overrides)
    rounds = [
        {side: time_side(side, options.overrides, cpu=options.cpu) for side in ("ours", "trl")}
        for _ in range(options.rounds)
    ]
    print("| | ours (s) | TRL (s) | ours / TRL |\n|---|---|---|---|")
    for part in ("process", "warm"):
        ours, theirs = ([each[side][part] for each in rounds] for side in ("ours", "trl"))
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        spread = f"{median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
        print(f"| {part} | {median(ours):.1f} | {median(theirs):.1f} | {spread} |")


def time_side(side: str, overrides: list[str], *, cpu: bool) -> dict[str, float]:
    """Seconds of a fresh process up to its first cell's end, and of a second cell in it."""
    start = time.perf_counter()
    command = [sys.executable, str(HERE), "--serve", side, *overrides]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    marks = []
    for line in process.stdout:
        if line.startswith("cell done"):
            marks.append(float(line.split()[2]) if cpu else time.perf_counter() - start)
    if process.wait() or len(marks) != len(BETA):
        sys.exit(f"error: the process of {side} ended with status {process.returncode}")
    return {"process": marks[0], "warm": marks[1] - marks[0]}


def serve(side: str, overrides: list[str]) -> None:
    """Run the cells of one side, and say when each is done."""
    from bench.cells.inputs import InputCache
    from bench.config import cell_config
    from bench.sweep.compose import compose_one
    from bench.sweep.preparing import prepare

    run = _run_ours if side == "ours" else _run_trl
    cache, prepared = InputCache(), None  # every β stands on the same
    with tempfile.TemporaryDirectory() as runs:
        for number, beta in BETA.items():
            wanted = [f"beta={beta}", "seed=100", f"runs_dir={runs}/{number}", "tracking.wandb.mode=disabled"]
            job = compose_one([*wanted, *overrides])
            assert job is not None
            config = cell_config(job.settings)
            prepared = prepared or prepare(config)
            with contextlib.redirect_stdout(sys.stderr):
                run(config, prepared, cache, Path(runs))
            print("cell done", time.process_time(), flush=True)


def _run_ours(config: Any, prepared: Any, cache: Any, scratch: Path) -> None:
    from bench.cells.cell import Cell
    from bench.cells.run import run_cell

    status = run_cell(Cell.of(config), prepared, cache)
    assert status.state == "done", status.error


def _run_trl(config: Any, prepared: Any, cache: Any, scratch: Path) -> None:
    warnings.simplefilter("ignore")
    import datasets
    import pandas as pd
    import torch
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from bench.cells.cell import Cell
    from bench.cells.evaluation import checkpoint_steps
    from bench.cells.measure import Measurement
    from bench.data.parts import rows_of
    from bench.data.preferences import PAIRS_FILE

    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    shared = cache.shared(prepared, config)
    policy = shared.reference.trainable()
    measurement = Measurement(Cell.of(config), prepared, cache)
    due = checkpoint_steps(config.optim.steps, config.evaluation.checkpoints)

    class Evaluate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in due:
                measurement.at(state.global_step, policy, (), wall_s=0.0)

    rows = pd.read_parquet(prepared.preferences.path / PAIRS_FILE, filters=[("split", "==", "train")])
    own = rows.iloc[list(rows_of(config.seed, len(rows), config.pairs.per_cell))]
    columns = ["prompt", "chosen", "rejected", "ref_chosen_logps", "ref_rejected_logps"]
    optim = config.optim
    settings = DPOConfig(
        output_dir=str(scratch / "trl"), beta=config.beta, loss_type=["sigmoid"], learning_rate=optim.lr,
        max_steps=optim.steps, per_device_train_batch_size=optim.batch_pairs, warmup_steps=optim.warmup_steps,
        lr_scheduler_type="constant_with_warmup", max_grad_norm=optim.clip_norm, weight_decay=optim.weight_decay,
        adam_beta1=optim.adam_beta1, adam_beta2=optim.adam_beta2, seed=config.seed, report_to="none", use_cpu=True,
        disable_tqdm=True, bf16=False, gradient_checkpointing=False, logging_strategy="no", save_strategy="no",
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        policy.model, ref_model=shared.reference.model, args=settings, processing_class=policy.tokenizer,
        train_dataset=datasets.Dataset.from_pandas(own[columns], preserve_index=False), callbacks=[Evaluate()],
    )  # fmt: skip
    trainer.precompute_ref_logps = True  # they are in the data; its own pass over the pairs would cost it seconds
    trainer.train()


if __name__ == "__main__":
    main()
