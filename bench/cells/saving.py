"""Saving a cell's policies: which of them, and the model card that says where they come from."""

from collections.abc import Callable
from pathlib import Path

import yaml

from bench.cells.folder import CellFolder
from bench.cells.measure import Checkpoint
from bench.records import CheckpointRecord, write_json

ORIGIN_FILE = "gpo_bench.json"  # beside a saved policy: which cell and step it is

SELECTION_PARITY = 0  # evaluation prompts with an even number select; the odd ones are left for an honest report


class SavedPolicies:
    """``save=none|final|best|all``: keeps what the mode asks for in the cell's ``policy/``.

    ``best`` is the checkpoint after step 0 with the highest gold on the selection prompts (every other evaluation
    prompt), the earlier one of equals.
    """

    def __init__(self, folder: CellFolder) -> None:
        self._folder, self._mode = folder, folder.cell.config.save
        self._steps = folder.cell.config.optim.steps

    def offer(self, checkpoint: Checkpoint, write: Callable[[Path], None]) -> None:
        """Save the policy of a checkpoint, not yet among the folder's, if the mode asks for it.

        Args:
            write: writes the policy into a directory.
        """
        record = checkpoint.record
        if record.step == 0 or not self._wants(checkpoint):
            return
        name = f"step-{record.step:06d}" if self._mode == "all" else ""
        self._folder.save_policy(name, lambda directory: self._write(directory, record, write))

    def _wants(self, checkpoint: Checkpoint) -> bool:
        if self._mode == "best":
            earlier = [selection_gold(samples) for samples in self._folder.recorded.samples if samples["step"].iloc[0]]
            return selection_gold(checkpoint.samples) > max(earlier, default=float("-inf"))
        return self._mode == "all" or (self._mode == "final" and checkpoint.record.step == self._steps)

    def _write(self, directory: Path, record: CheckpointRecord, write: Callable[[Path], None]) -> None:
        write(directory)
        cell = self._folder.cell.name
        origin = {
            "sweep": record.sweep, "cell": cell, "step": record.step, "method": record.method,
            "variant": record.variant, "strength": record.strength, "seed": record.seed, "save": self._mode,
            "kl": record.kl, "gold": record.gold, "config": record.config, "gold_model": record.gold_model,
            "git_commit": record.git_commit,
        }  # fmt: skip
        write_json(directory / ORIGIN_FILE, origin)
        (directory / "README.md").write_text(_model_card(origin), encoding="utf-8")


def selection_gold(samples) -> float:
    """Mean gold of one checkpoint's samples on the selection prompts, SD units."""
    return float(samples.loc[samples["prompt_id"] % 2 == SELECTION_PARITY, "gold"].mean())


def _model_card(origin: dict) -> str:
    front = yaml.safe_dump({"library_name": "transformers", "tags": ["gpo-bench", "preference-optimization"]})
    rows = "\n".join(f"| {key} | {value} |" for key, value in origin.items())
    return (
        f"---\n{front}---\n\n# {origin['variant']}, strength {origin['strength']:g}, seed {origin['seed']}\n\n"
        f"Step {origin['step']} of the cell `{origin['cell']}` of the sweep `{origin['sweep']}`, trained by gpo-bench "
        "against a gold reward model. KL to the reference in nats, gold in SD of the reference's scores.\n\n"
        f"| | |\n|---|---|\n{rows}\n"
    )
