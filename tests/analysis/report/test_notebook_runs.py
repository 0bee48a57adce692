"""The committed notebooks are thin and stripped, and run on any sweep."""

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from synthetic_runs import Truth, write_sweep

from analysis.report import build
from analysis.report.__main__ import main
from analysis.report.notebook_runs import NOTEBOOKS, execute_notebooks

# Kernels talk over sockets that the garbage collector closes when the test is long over.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory):
    truth = Truth(losses=("logistic", "squared"), betas=(0.03, 0.1, 0.3, 1.0), seeds=(0, 1), prompts=12)
    return write_sweep(tmp_path_factory.mktemp("runs") / "small", truth)


def test_the_notebooks_of_the_task_are_there():
    assert {"frontier", "optimal_beta"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebooks_are_thin_and_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert max(len(cell.source.splitlines()) for cell in code) < 25
    words = [word for cell in code for word in cell.source.split()]
    assert not {"def", "class", "while", "lambda"} & set(words)
    assert sum(cell.cell_type == "markdown" for cell in notebook.cells) >= 4


def test_both_run_and_show_the_given_sweep(sweep_dir, tmp_path):
    wanted = [path for path in NOTEBOOKS if path.stem in ("frontier", "optimal_beta")]
    frontier, optimal_beta = execute_notebooks(sweep_dir, tmp_path, wanted)
    page = frontier.read_text()
    assert page.count("data:image/png;base64") >= 4
    assert "Tukey interval" in page
    assert "squared" in page
    assert "savage" not in page
    page = optimal_beta.read_text()
    assert "grid_gold_sd" in page
    assert "Traceback" not in page
    for path in wanted:
        assert not [cell for cell in nbformat.read(path, as_version=4).cells if cell.get("outputs")]


@pytest.fixture
def broken_notebook(tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("raise RuntimeError('no such column')")])
    nbformat.write(notebook, folder / "broken.ipynb")
    return folder / "broken.ipynb"


def test_a_cell_that_fails_fails_loudly(sweep_dir, tmp_path, broken_notebook):
    with pytest.raises(CellExecutionError, match="no such column"):
        execute_notebooks(sweep_dir, tmp_path, [broken_notebook])
    assert not (tmp_path / "broken.html").exists()


def test_the_report_fails_with_it(sweep_dir, tmp_path, broken_notebook, monkeypatch, capsys, few_figures):
    monkeypatch.setattr(build, "execute_notebooks", lambda sweep, out: execute_notebooks(sweep, out, [broken_notebook]))
    assert main([str(sweep_dir), "--output", str(tmp_path / "out")]) == 1
    assert "no such column" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
