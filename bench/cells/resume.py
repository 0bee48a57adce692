"""A resume point: one safetensors file with a trainer's state, replaced atomically."""

from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.records import RESUME_DIR, RUN_AGAIN, DamagedRecord, write_atomically

_STATE_FILE = "state.safetensors"


class ResumePoint(NamedTuple):
    """Where a cell goes on.

    Attributes:
        step: optimizer steps done.
        elapsed_s: seconds spent on the cell up to there.
        tensors: the trainer's `state_dict`.
    """

    step: int
    elapsed_s: float
    tensors: dict[str, Tensor]


def write_resume_point(cell_dir: Path, point: ResumePoint, origin: str) -> None:
    """Write a resume point in place of an earlier one.

    Args:
        origin: fingerprint of the cell's configuration and data, without which the point is not taken up.
    """
    path = cell_dir / RESUME_DIR / _STATE_FILE
    path.parent.mkdir(exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in point.tensors.items()}
    about = {"origin": origin, "step": str(point.step), "elapsed_s": repr(point.elapsed_s)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=about), to_disk=True)


def read_resume_point(cell_dir: Path, origin: str) -> ResumePoint | None:
    """The cell's resume point; None if there is none, or it is of another origin.

    Raises:
        DamagedRecord: the file is not what was written.
    """
    path = cell_dir / RESUME_DIR / _STATE_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            about = stored.metadata()
            if about.get("origin") != origin:
                return None
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  it is no mapping
            return ResumePoint(int(about["step"]), float(about["elapsed_s"]), tensors)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedRecord(f"{path}: not a resume point ({error}); {RUN_AGAIN}") from error
