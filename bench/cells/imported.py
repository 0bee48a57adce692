"""A policy that another tool has trained, measured as a cell: on the same prompts, by the same models."""

from pathlib import Path

from bench.cells.folder import CellFolder
from bench.cells.inputs import InputCache
from bench.cells.measure import Measurement
from bench.data.prepared import Prepared
from bench.policies.load import load_policy, resolve_device


def measure_imported(folder: CellFolder, prepared: Prepared, cache: InputCache) -> None:
    """Record π_ref as step 0 and the imported policy as the cell's last step.

    Raises:
        ConfigError: the policy cannot be loaded, or has other tokens than π_ref, so that no KL between them exists.
    """
    config = folder.cell.config
    assert config.external is not None
    folder.begin()
    reference = cache.shared(prepared, config).reference
    loaded = load_policy(
        Path(config.external.policy), device=resolve_device(config.device), logits_mib=config.logits_mib
    )
    policy = loaded.against(reference)
    measurement = Measurement(folder.cell, prepared, cache)
    for step, measured in ((0, reference), (config.optim.steps, policy)):
        checkpoint = measurement.at(step, measured, (), wall_s=folder.elapsed_s)
        folder.add_checkpoint(checkpoint.record, checkpoint.samples, checkpoint.warnings)
    folder.finish()
