"""The campaigns of `make faults` and `make mutants`, as tests."""

from pathlib import Path

import pytest
from faults.__main__ import CAMPAIGN
from faults.ground import make_ground
from mutants.table import MUTANTS

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_is_lost_by_any_fault(tmp_path):
    for directory in (tmp_path, *list(tmp_path.parents)[:3]):
        directory.chmod(0o755)  # one of the faults is to be another user
    ground = make_ground(tmp_path)
    tallies = [attempt(ground) for attempt in CAMPAIGN]
    assert [sentence for tally in tallies for sentence in tally.lost] == []
    assert all(tally.tried or tally.skipped for tally in tallies)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_each_mutants_line_is_in_the_code(mutant):
    """`make mutants` puts it there; here, that it still can, and that its tests exist."""
    assert mutant.old in (ROOT / mutant.file).read_text(encoding="utf-8")
    assert mutant.old != mutant.new
    for name in mutant.tests.split():
        assert (ROOT / name).exists(), name
