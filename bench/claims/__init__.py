"""Claims on directories: one worker at a time, on a shared file system too, taken over when its owner is dead.

    with hold(directory) as claim:        # waits
        ...
        claim.require_held()              # before what must not be done twice

A claim is a file ``.claim-<generation>`` in the directory, made with its content in one step and touched every
20 seconds. It is taken over by making the next generation, which only one of many takers can do; the winner
removes the older ones. There are no locks of the operating system: on network file systems they are missing,
or local to a machine, and they say nothing about who holds them.
"""

from bench.claims.files import STALE_SECONDS, is_alive, is_claimed, last_beat, read_holder, server_time
from bench.claims.holding import HEARTBEAT_SECONDS, Claim, ClaimLost
from bench.claims.owner import Holder
from bench.claims.taking import hold, try_claim

__all__ = [
    "HEARTBEAT_SECONDS",
    "STALE_SECONDS",
    "Claim",
    "ClaimLost",
    "Holder",
    "hold",
    "is_alive",
    "is_claimed",
    "last_beat",
    "read_holder",
    "server_time",
    "try_claim",
]
