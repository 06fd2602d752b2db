"""The demo's metered calls, and what it prints about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from aimeter._support.clocks import time
from aimeter.carbon.intensity import ASSUMED
from aimeter.report.trust import trust_sentence

from .models import (
    ENCODER,
    PAINTER,
    contact_sheet,
    draw,
    embed,
    load_encoder,
    load_painter,
    nearest_pair,
    one_thread,
    quieten,
    read_sentences,
)

if TYPE_CHECKING:
    from diffusers import DiTPipeline
    from PIL.Image import Image
    from rich.console import Console
    from sentence_transformers import SentenceTransformer

    from aimeter.meter import Meter

IMAGES_A_CALL = 4
STEPS = 25
SENTENCES_A_CALL = 4


def show(meter: Meter, log: Path, console: Console) -> None:
    """Run both models, each call a row of `meter`'s log, and print what came out and what it took."""
    quieten()
    start_s = time.perf_counter()

    @meter.track("load-models")
    def load() -> tuple[DiTPipeline, SentenceTransformer]:
        return load_painter(), load_encoder()

    painter, encoder = load()
    sentences = read_sentences()
    with one_thread():
        with meter.track("warm-up"):  # first calls allocate memory and choose kernels, which others do not
            draw(painter, "zero", images=IMAGES_A_CALL, steps=2, seed=0)
            embed(encoder, sentences[:SENTENCES_A_CALL])
        meter.attach(painter, "draw-digits", model=PAINTER, parts=False)
        meter.attach(encoder, "embed-sentences", model=ENCODER)
        columns = draw_digits(painter)
        vectors = embed_sentences(encoder, sentences)
    took_s = time.perf_counter() - start_s

    picture = log.with_name("digits.png")
    contact_sheet(columns).save(picture)
    first, second, cosine = nearest_pair(vectors)
    records = meter.records()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    say(
        f"Drew {sum(map(len, columns))} digits and embedded {len(sentences)} sentences "
        f"in {len(records)} metered calls and {took_s:.0f} s."
    )
    say(f"Nearest in meaning (cosine {cosine:.2f}): {sentences[first]} / {sentences[second]}\n")
    summary = meter.summary()
    console.print(summary)
    say(f"\n{trust_sentence(summary.total)}\n")
    if meter.carbon.intensity.method.endswith(ASSUMED):
        say(
            "The grams are those of the world's average electricity: --region FR (or US-VA …) makes them yours.\n"
        )
    for what, path in (("Log", log), ("Picture", picture)):
        console.print(f"{what}: {path.resolve()}", markup=False, highlight=False, soft_wrap=True)


def draw_digits(painter: DiTPipeline) -> list[list[Image]]:
    """Draw every digit a few times; a call for each digit."""
    labels = sorted(painter.labels.items(), key=lambda label: label[1])
    return [draw(painter, name, images=IMAGES_A_CALL, steps=STEPS, seed=digit) for name, digit in labels]


def embed_sentences(encoder: SentenceTransformer, sentences: list[str]) -> torch.Tensor:
    """Embed the sentences, a few at a call."""
    starts = range(0, len(sentences), SENTENCES_A_CALL)
    return torch.cat([embed(encoder, sentences[start : start + SENTENCES_A_CALL]) for start in starts])
