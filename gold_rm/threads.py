"""Processor cores of this process, and torch's threads on them."""

import contextlib
import os
from collections.abc import Iterator


def available_cores() -> int:
    """Processor cores that this process may use; of the whole machine where the system does not tell (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Within, torch computes on `count` CPU threads; their number moves the rounding of sums."""
    import torch  # a second, which `available_cores` need not wait for

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
