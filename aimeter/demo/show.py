"""The demo's metered calls, and what it prints about them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .models import (
    ENCODER,
    PAINTER,
    contact_sheet,
    count_tokens,
    draw,
    embed,
    load_encoder,
    load_painter,
    nearest_pair,
    one_thread,
    quieten,
    read_sentences,
)
from .trust import trust_sentence

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
        columns = draw_digits(meter, painter)
        vectors = embed_sentences(meter, encoder, sentences)
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
    console.print(meter.summary())
    say(f"\n{trust_sentence(records)}\n")
    if meter.settings.region is None and meter.settings.intensity_g_per_kwh is None:
        say(
            "The grams are those of the world's average electricity: --region FR (or US-VA …) makes them yours.\n"
        )
    for what, path in (("Log", log), ("Picture", picture)):
        console.print(f"{what}: {path.resolve()}", markup=False, highlight=False, soft_wrap=True)


def draw_digits(meter: Meter, painter: DiTPipeline) -> list[list[Image]]:
    """Draw every digit a few times; a call for each digit."""
    columns = []
    for name, digit in sorted(painter.labels.items(), key=lambda label: label[1]):
        with meter.track("draw-digits", images=IMAGES_A_CALL) as call:
            columns.append(draw(painter, name, images=IMAGES_A_CALL, steps=STEPS, seed=digit))
            call.count(steps=len(painter.scheduler.timesteps))
            call.note(model=PAINTER)
    return columns


def embed_sentences(meter: Meter, encoder: SentenceTransformer, sentences: list[str]) -> torch.Tensor:
    """Embed the sentences, a few at a call."""
    vectors = []
    for start in range(0, len(sentences), SENTENCES_A_CALL):
        batch = sentences[start : start + SENTENCES_A_CALL]
        with meter.track("embed-sentences", items=len(batch), model=ENCODER) as call:
            vectors.append(embed(encoder, batch))
            call.count(tokens_in=count_tokens(encoder, batch))
    return torch.cat(vectors)
