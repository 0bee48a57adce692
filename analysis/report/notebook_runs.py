"""The notebooks of `analysis/notebooks`, executed on a sweep and saved as HTML."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

SWEEP_VARIABLE = "GPO_SWEEP"  # the notebooks read the sweep's directory from this environment variable
_PACKAGE = Path(__file__).resolve().parent.parent
NOTEBOOKS = tuple(sorted((_PACKAGE / "notebooks").glob("*.ipynb")))
_AT_ONCE = 2


def execute_notebooks(sweep: Path, directory: Path, notebooks: Iterable[Path] = NOTEBOOKS) -> list[Path]:
    """Run notebooks on `sweep` in fresh kernels, two at a time, into ``directory/<name>.html``.

    The notebooks themselves are not changed.

    Returns:
        The files written.
    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; carries the cell and the traceback.
    """
    return asyncio.run(_execute_all(sweep, directory, list(notebooks)))


async def _execute_all(sweep: Path, directory: Path, notebooks: list[Path]) -> list[Path]:
    turn = asyncio.Semaphore(_AT_ONCE)

    async def execute(notebook: Path) -> Path:
        async with turn:
            return await _execute(notebook, sweep, directory / f"{notebook.stem}.html")

    # Every notebook ends before an error is raised, so that no kernel is left behind.
    results = await asyncio.gather(*map(execute, notebooks), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, Path)]


async def _execute(notebook: Path, sweep: Path, output: Path) -> Path:
    document = nbformat.read(notebook, as_version=4)
    # The kernel starts in the folder that holds the package, so that it imports this very version.
    client = NotebookClient(
        document,
        timeout=600,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(_PACKAGE.parent)}},
    )
    await client.async_execute(env=os.environ | {SWEEP_VARIABLE: str(sweep.resolve())})
    exporter = HTMLExporter(embed_images=True)
    # Without these addresses the page asks no server for anything.
    exporter.mathjax_url = exporter.require_js_url = ""
    html, _ = exporter.from_notebook_node(document, resources={"metadata": {"name": notebook.stem}})
    output.write_text(html, encoding="utf-8")
    return output
