"""Errors of a device or a machine that has run out of memory, in the words of those who raise them."""

# torch raises RuntimeError for it, the loader of its libraries ImportError.
_NO_MEMORY = ("can't allocate memory", "out of memory", "cannot allocate memory", "failed to map segment")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory could not be had."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)
