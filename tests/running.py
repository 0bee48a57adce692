"""Running a cell in the test's own process, as a worker would."""

from bench.cells.cell import Cell
from bench.cells.inputs import InputCache
from bench.cells.run import OnRecord, run_cell
from bench.data.prepared import Prepared
from bench.records import CellStatus
from bench.sweep.driver import prepare_cells

CACHE = InputCache()  # kept over tests: most of them are on one world


def prepared_for(cell: Cell) -> Prepared:
    """What the cell stands on, built if it is not there."""
    return prepare_cells([cell], lambda message: None)[cell.name]


def run(cell: Cell, on_record: OnRecord = lambda record: None, **settings) -> CellStatus:
    """Prepare and run one cell; `settings` are those of `run_cell`."""
    return run_cell(cell, prepared_for(cell), CACHE, on_record=on_record, **settings)
