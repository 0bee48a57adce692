"""A policy that another tool has trained, measured as a cell: on the same prompts, by the same models."""

from collections.abc import Callable
from pathlib import Path

from bench.cells.folder import CellFolder, Stopped
from bench.cells.inputs import InputCache
from bench.cells.measure import Measurement
from bench.checked import ConfigError
from bench.config import CellConfig
from bench.data.prepared import Prepared
from bench.policies.directories import fingerprint_of_policy
from bench.policies.load import load_policy, resolve_device
from bench.policies.memory import peak_memory_mib
from bench.policies.policy import Policy
from bench.records import CheckpointRecord


def load_imported(config: CellConfig, reference: Policy) -> Policy:
    """The policy that a cell imports, with the world's π_ref as its reference.

    Raises:
        ConfigError: it is not what was planned, cannot be loaded, or has other tokens than π_ref.
    """
    external = config.external
    assert external is not None
    directory = Path(external.policy)
    if (found := fingerprint_of_policy(directory)) != external.fingerprint:
        raise ConfigError(f"policy {directory} is {found}, the sweep was planned with {external.fingerprint}")
    policy = load_policy(
        directory, device=resolve_device(config.device), logits_mib=config.logits_mib, settings=config.policy,
        keep_adapters=True,
    )  # fmt: skip
    return policy.against(reference)


def measure_imported(
    folder: CellFolder, prepared: Prepared, cache: InputCache, stop: Callable[[], bool],
    on_record: Callable[[CheckpointRecord], None],
) -> None:  # fmt: skip
    """Record π_ref as step 0 and the imported policy as the cell's last step.

    Raises:
        ConfigError: see `load_imported`.
        Stopped: `stop` said so; what has been measured is measured again by the next attempt.
    """
    config = folder.cell.config
    reference = cache.shared(prepared, config).reference
    policy = load_imported(config, reference)
    measurement = Measurement(folder.cell, prepared, cache)
    for step, measured in ((0, reference), (config.optim.steps, policy)):
        if stop():
            raise Stopped
        checkpoint = measurement.at(step, measured, (), wall_s=folder.elapsed_s)
        folder.add_checkpoint(checkpoint)
        on_record(checkpoint.record)
    folder.finish(peak_memory_mib=peak_memory_mib(resolve_device(config.device)))
