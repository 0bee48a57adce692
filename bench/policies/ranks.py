"""Processes that work on one policy together, each a rank of a torch.distributed group; alone, a process is its own.

The first rank decides what is done and tells the others; inside `together`, every rank makes the same calls in the
same order, takes its share of the work in each, and has all results afterwards.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bench.checked import ConfigError

T = TypeVar("T")

# Between two calls a rank waits for as long as the first one writes a checkpoint, a large policy included.
_LONGEST_WAIT = timedelta(minutes=30)


class Ranks:
    """A group of processes, seen from one of them.

    Attributes:
        rank: of this process, from 0.
        world_size: processes in the group.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, local_rank: int = 0) -> None:
        """
        Args:
            local_rank: number of this process among those of its machine.
        """
        self.rank, self.world_size, self._local_rank = rank, world_size, local_rank
        self._together = 0

    @classmethod
    def join(cls) -> "Ranks":
        """The group that torch.distributed.run has started this process in; a group of one without."""
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        if world_size == 1:
            return ALONE
        backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backends, timeout=_LONGEST_WAIT)
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))

    def leave(self) -> None:
        """Leave the group; the process goes on alone."""
        if self.world_size > 1:
            dist.destroy_process_group()

    def device(self, wanted: str) -> str:
        """This rank's own GPU, where `wanted` names none and there are some.

        Raises:
            ConfigError: there are fewer than ranks.
        """
        if self.world_size == 1 or wanted not in ("auto", "cuda") or not torch.cuda.is_available():
            return wanted
        if self._local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"parallel.processes={self.world_size}: each takes a GPU, and this worker sees "
                f"{torch.cuda.device_count()}; device=cpu takes none"
            )
        torch.cuda.set_device(self._local_rank)
        return f"cuda:{self._local_rank}"

    def has_lost_one(self, error: BaseException) -> bool:
        """Whether `error` is that of a call that another rank was to make, too, and did not: it is gone."""
        return self.world_size > 1 and (isinstance(error, dist.DistError) or "/gloo/" in str(error))

    @property
    def leads(self) -> bool:
        """Whether this is the rank that decides."""
        return self.rank == 0

    @property
    def size(self) -> int:
        """Among how many the work of the moment is shared: one outside `together`."""
        return self.world_size if self._together else 1

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within, calls are made by every rank."""
        self._together += 1
        try:
            yield
        finally:
            self._together -= 1

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's share of what can be done in any order, dealt out one by one."""
        return items[self.rank :: self.size] if self.size > 1 else items

    def batch_size(self, largest: int, count: int) -> int:
        """How many of `count` rows to take at once, so that every rank has some; at most `largest`.

        Where it is `largest`, batches are those of one process, and so are results, to the last bit.
        """
        return max(1, min(largest, -(-count // self.size)))

    def part(self, count: int) -> slice:
        """This rank's part of so many rows, in the order of the ranks; parts differ by at most one row."""
        if self.size == 1:
            return slice(0, count)
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        if isinstance(value, Tensor):
            dist.all_gather_object(values, value.cpu())
            return [each.to(value.device) for each in values]
        dist.all_gather_object(values, value)
        return values

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def tell(self, message: Any) -> None:
        """Say something to the others, who `hear` it; only the first rank speaks, and none in a group of one."""
        if self.world_size > 1 and self.leads:
            dist.broadcast_object_list([message], src=0)

    def hear(self) -> Any:
        """What the first rank tells."""
        heard = [None]
        dist.broadcast_object_list(heard, src=0)
        return heard[0]


ALONE = Ranks()
