"""Memory of the device that a policy is on: the most that was in use since a moment, and giving back what is not."""

import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see proc(5)
_MIB = 2**20


def free() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_peak(device: str) -> None:
    """Begin to watch. On the CPU of systems other than Linux the peak stays that of the whole process."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)


def peak_memory_mib(device: str) -> float:
    """The peak since `forget_peak`, in MiB: of PyTorch's memory on a CUDA device, or else of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / _MIB
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB
