"""Which GPUs the workers of one machine see."""

import os
from collections.abc import Sequence

from bench.checked import ConfigError
from bench.sections import ParallelConfig


def visible_gpus(device: str) -> list[str]:
    """Ids, as CUDA_VISIBLE_DEVICES takes them, of the GPUs that workers are spread over.

    Args:
        device: of the configuration; one that names a GPU is for all workers, and a CPU needs none.
    """
    import torch  # which a driver with cells to run has loaded

    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(index) for index in range(torch.cuda.device_count())] if given is None else given.split(",")


def share_out(gpus: Sequence[str], parallel: ParallelConfig) -> list[str]:
    """What each of as many workers as there is room for shall see: a value of CUDA_VISIBLE_DEVICES.

    Raises:
        ConfigError: a cell is to run on more GPUs than there are.

    >>> share_out(["0", "1"], ParallelConfig(workers_per_gpu=2))
    ['0', '1', '0', '1']
    >>> share_out(["0", "1", "2", "3", "4"], ParallelConfig(processes=2))
    ['0,1', '2,3']
    """
    if parallel.processes == 1:
        return [*gpus] * parallel.workers_per_gpu
    if gpus and len(gpus) < parallel.processes:
        raise ConfigError(f"parallel.processes={parallel.processes}: this machine has {len(gpus)} GPUs, one for each")
    starts = range(0, len(gpus) - parallel.processes + 1, parallel.processes)
    return [",".join(gpus[start : start + parallel.processes]) for start in starts]
