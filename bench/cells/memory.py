"""What a cell says when it has run out of memory, and what can be done about it."""

import gc

import torch

from gold_rm.memory import is_out_of_memory

__all__ = ["OutOfMemory", "free", "is_out_of_memory", "words_of"]


class OutOfMemory(RuntimeError):
    """A cell needs more memory than there is; the message says for what, how much, and which setting takes less."""


def words_of(error: BaseException) -> str:
    """How much was asked for, in the allocator's words, and what this process has taken at its peak."""
    told = " ".join(str(error).split()).rpartition("DefaultCPUAllocator: ")[2]
    told = told.partition(" Process ")[0].partition(" Of the allocated ")[0][:300]
    if not torch.cuda.is_available():
        return told
    return f"{told} Peak: {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"


def free() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
