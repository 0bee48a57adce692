"""What a cell says when it has run out of memory."""

from bench.policies.memory import peak_memory_mib


class OutOfMemory(RuntimeError):
    """A cell needs more memory than there is; the message says for what, how much, and which setting takes less."""


def words_of(error: BaseException, device: str) -> str:
    """How much was asked for, in the allocator's words, and the peak of the cell so far."""
    told = " ".join(str(error).split()).rpartition("DefaultCPUAllocator: ")[2]
    told = told.partition(" Process ")[0].partition(" Of the allocated ")[0][:300]
    return f"{told} Peak so far: {peak_memory_mib(device):.0f} MiB"
