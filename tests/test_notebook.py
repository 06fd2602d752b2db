"""A notebook, run in a real kernel: cells and lines that are metered, that raise, are interrupted, and run again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

BEGIN = """
import aimeter
aimeter.configure(region="FR")
%load_ext aimeter
"""


class Notebook:
    """A kernel, cell by cell."""

    def __init__(self) -> None:
        self.client = nbclient.NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3", timeout=120)
        self.client.create_kernel_manager()
        self.client.start_new_kernel()
        self.client.start_new_kernel_client()

    def run(self, code: str) -> list[dict[str, object]]:
        """Run a cell and return what it shows; an error is among that."""
        cell = nbformat.v4.new_code_cell(code, metadata={"tags": ["raises-exception"]})
        self.client.nb.cells.append(cell)
        self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
        return list(cell.outputs)

    def interrupt_when(self, shown: str, code: str) -> list[dict[str, object]]:
        """Interrupt the kernel in the middle of a cell: as soon as it has shown something."""
        cell = nbformat.v4.new_code_cell(code, metadata={"tags": ["raises-exception"]})
        self.client.nb.cells.append(cell)

        async def go() -> None:
            running = asyncio.ensure_future(
                self.client.async_execute_cell(cell, len(self.client.nb.cells) - 1)
            )
            while shown not in str(cell.outputs):  # noqa: ASYNC110 - the kernel's client tells nobody
                await asyncio.sleep(0.02)
            await self.client.km.interrupt_kernel()
            await running

        asyncio.get_event_loop().run_until_complete(go())
        return list(cell.outputs)


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    made = Notebook()
    assert made.run(BEGIN) == []
    yield made
    made.client._cleanup_kernel()


def told(outputs: list[dict[str, object]]) -> str:
    """Return the HTML that is shown last."""
    return str(outputs[-1]["data"]["text/html"])  # type: ignore[index]


def test_a_cell_is_a_call(notebook: Notebook):
    """Its last line is shown as ever, and under it name, joules and grams; its variables stay."""
    outputs = notebook.run("%%aimeter my cell\nanswer = sum(range(300_000))\nanswer + 1")
    assert outputs[0]["data"]["text/plain"] == str(sum(range(300_000)) + 1)  # type: ignore[index]
    assert "my cell" in told(outputs)
    assert "energy" in told(outputs)
    assert notebook.run("answer")[0]["data"]["text/plain"] == str(sum(range(300_000)))  # type: ignore[index]
    found = notebook.run("[(r.name, r.status) for r in aimeter.records()][-1]")
    assert found[0]["data"]["text/plain"] == "('my cell', 'ok')"  # type: ignore[index]


def test_a_line_is_a_call(notebook: Notebook):
    """Named after the cell; and a cell without a name is, too."""
    assert "cell " in told(notebook.run("%aimeter sum(range(1000))"))
    assert "cell " in told(notebook.run("%%aimeter\nx = 1"))


def test_a_cell_that_raises_does_so_once(notebook: Notebook):
    """Its row says what; the figures are shown all the same, and the notebook stops there as without."""
    outputs = notebook.run("%%aimeter broken\n1 / 0")
    assert [one["output_type"] for one in outputs] == ["display_data", "error"]
    assert outputs[-1]["ename"] == "ZeroDivisionError"
    assert "broken" in str(outputs[0]["data"])
    found = notebook.run("[(r.status, r.error_type) for r in aimeter.records() if r.name == 'broken']")
    assert found[0]["data"]["text/plain"] == "[('error', 'ZeroDivisionError')]"  # type: ignore[index]


def test_an_interrupted_cell_leaves_no_call_open(notebook: Notebook):
    """Nor does one that is run again."""
    outputs = notebook.interrupt_when(
        "begun", "%%aimeter long\nimport time\nprint('begun', flush=True)\nwhile True:\n    time.sleep(0.01)"
    )
    assert outputs[-1]["ename"] == "KeyboardInterrupt"
    assert notebook.run("print(aimeter.current_call())")[0]["text"] == "None\n"
    notebook.run("%%aimeter again\npass")
    notebook.run("%%aimeter again\npass")
    found = notebook.run("[(r.name, r.status, r.parent_id) for r in aimeter.records()][-3:]")
    assert found[0]["data"]["text/plain"] == (  # type: ignore[index]
        "[('long', 'error', None), ('again', 'ok', None), ('again', 'ok', None)]"
    )


def test_calls_records_and_summaries_are_tables(notebook: Notebook):
    """An open call, too, with what it has used so far."""
    assert "<table" in told(notebook.run("with aimeter.track('open') as call:\n    display(call)"))
    assert "<table" in told(notebook.run("aimeter.records()[-1]"))
    assert "<table" in told(notebook.run("aimeter.summary()"))


def test_power_is_drawn_under_a_cell(notebook: Notebook):
    """For a cell that is longer than the sensors' period."""
    outputs = notebook.run(
        "%%aimeter slow\nimport time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: sum(range(1000))"
    )
    assert '<svg role="img"' in told(outputs)
    assert "Power over 1.5" in told(outputs)
