"""Train the demo's image model: a latent diffusion transformer that draws a digit by its name.

    python -m aimeter.demo.train_digits --seconds 1000 --out FOLDER

A small copy of the design of today's image generators: an autoencoder (Rombach et al., 2022,
arXiv:2112.10752) turns a 32 x 32 picture into 8 x 8 x 2 latents, and a diffusion transformer conditioned on
the class (Peebles and Xie, 2023, arXiv:2212.09748) learns to remove noise from them. The pictures are
scikit-learn's bundled digits. The result is a plain diffusers pipeline, which
``DiffusionPipeline.from_pretrained(FOLDER)`` loads.

Needs the extras ``demo`` and ``train``.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from diffusers.training_utils import EMAModel
from torch.nn import functional as F  # noqa: N812 - the name that torch's own documentation gives it

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 32
LATENT_SIDE, LATENT_CHANNELS = 8, 2
BATCH = 64
AUTOENCODER_SHARE = 0.25
"""Part of the time that trains the autoencoder; the transformer has the rest."""
KL_WEIGHT = 1e-4
"""Keeps the latents compact, yet is too weak to blur the pictures, as in Rombach et al., section 3.1."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained pipeline and how its training went."""

    pipeline: DiTPipeline
    autoencoder_steps: int
    autoencoder_loss: float
    transformer_steps: int
    transformer_loss: float


def pictures(digits: torch.Tensor) -> torch.Tensor:
    """Turn 8 x 8 digits with values 0 to 16 into 32 x 32 pictures with strokes of full contrast, -1 to 1.

    The digits touch the edge of their 8 x 8 field, so one pixel of margin is added before enlarging them.
    """
    margin = F.pad(digits[:, None].float() / 16, (1, 1, 1, 1))
    large = F.interpolate(margin, size=SIDE, mode="bicubic", antialias=False)
    return torch.tanh(5 * (large - 0.45))


def shaken(images: torch.Tensor) -> torch.Tensor:
    """Turn, stretch, slant and shift each picture a little: shapes are to be learnt, not 1797 pictures."""
    count = len(images)
    angle = (torch.rand(count) - 0.5) * math.radians(16)
    stretch = 1 + (torch.rand(2, count) - 0.5) * 0.16
    slant = (torch.rand(count) - 0.5) * 0.2
    shift = (torch.rand(2, count) - 0.5) * 0.16
    top = torch.stack([angle.cos() * stretch[0], slant - angle.sin(), shift[0]], dim=1)
    bottom = torch.stack([angle.sin(), angle.cos() * stretch[1], shift[1]], dim=1)
    grid = F.affine_grid(torch.stack([top, bottom], dim=1), list(images.shape), align_corners=False)
    # Outside the picture grid_sample puts 0, so the paper, which is -1, is made 0 meanwhile.
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def new_autoencoder() -> AutoencoderKL:
    """Build the autoencoder: two halvings of the side, 0.2 M parameters."""
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 24, 32),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIDE,
    )


def new_transformer() -> DiTTransformer2DModel:
    """Build the denoiser, 1.2 M parameters.

    Each block starts as the identity, which speeds training up ("adaLN-Zero" of Peebles and Xie).
    """
    transformer = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=24,
        num_layers=6,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        norm_num_groups=1,
        sample_size=LATENT_SIDE,
        patch_size=2,
        num_embeds_ada_norm=len(NAMES),
    )
    for block in transformer.transformer_blocks:
        torch.nn.init.zeros_(block.norm1.linear.weight)
        torch.nn.init.zeros_(block.norm1.linear.bias)
    torch.nn.init.zeros_(transformer.proj_out_2.weight)
    torch.nn.init.zeros_(transformer.proj_out_2.bias)
    return transformer


def new_scheduler() -> DDIMScheduler:
    """Build the noise schedule: cosine, with pure noise at its end (Lin et al., 2023, arXiv:2305.08891)."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def progress(seconds: float) -> Iterator[float]:
    """Yield the part of the time that has passed, at least once and until it is over."""
    start = time.perf_counter()
    passed = 0.0
    while passed < 1:
        yield passed
        passed = (time.perf_counter() - start) / seconds if seconds > 0 else 1.0


def fit(
    model: torch.nn.Module, loss_of_batch: Callable[[], torch.Tensor], *, seconds: float, rate: float
) -> tuple[int, float]:
    """Train `model` for `seconds` and leave it with the moving average of its weights.

    Returns:
        The number of steps, and the moving average of the loss at the end.
    """
    name = type(model).__name__
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    average = EMAModel(model.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)
    steps, smooth_loss = 0, math.nan
    for passed in progress(seconds):
        warm_up = min(1.0, (steps + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = rate * warm_up * max(0.02, math.cos(math.pi / 2 * passed) ** 2)
        loss = loss_of_batch()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.step(model.parameters())
        steps += 1
        smooth_loss = loss.item() if math.isnan(smooth_loss) else 0.99 * smooth_loss + 0.01 * loss.item()
        if steps % 200 == 0:
            _log.info("%s: step %d, %.0f %% of the time, loss %.4f", name, steps, 100 * passed, smooth_loss)
    average.copy_to(model.parameters())
    return steps, smooth_loss


def train(seconds: float, *, seed: int = 0) -> Trained:
    """Train the whole pipeline for about `seconds`; 0 trains one step of each model."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - needed for training only

    torch.manual_seed(seed)
    data: Any = load_digits()
    images = pictures(torch.tensor(data.images))
    labels = torch.tensor(data.target)

    autoencoder = new_autoencoder()

    def autoencoder_loss() -> torch.Tensor:
        batch = shaken(images[torch.randint(len(images), (BATCH // 2,))])
        posterior = autoencoder.encode(batch).latent_dist
        decoded = autoencoder.decode(posterior.sample()).sample
        return F.mse_loss(decoded, batch) + KL_WEIGHT * posterior.kl().mean()

    autoencoder_fit = fit(autoencoder, autoencoder_loss, seconds=AUTOENCODER_SHARE * seconds, rate=2e-3)
    autoencoder.eval()
    # Encoding costs as much as a step of the transformer: keep the latents, and renew a few at every step.
    with torch.no_grad():
        latents = autoencoder.encode(shaken(images)).latent_dist.mean
    scaling = 1 / latents.std().item()
    autoencoder.register_to_config(scaling_factor=scaling)

    transformer, scheduler = new_transformer(), new_scheduler()
    noise_steps = scheduler.config["num_train_timesteps"]

    def transformer_loss() -> torch.Tensor:
        renewed = torch.randint(len(images), (BATCH // 8,))
        with torch.no_grad():
            latents[renewed] = autoencoder.encode(shaken(images[renewed])).latent_dist.mean
        chosen = torch.randint(len(images), (BATCH,))
        clean = latents[chosen] * scaling
        noise = torch.randn_like(clean)
        at = torch.randint(noise_steps, (BATCH,))
        noisy: Any = scheduler.add_noise(clean, noise, at)
        target = scheduler.get_velocity(clean, noise, at)
        return F.mse_loss(transformer(noisy, timestep=at, class_labels=labels[chosen]).sample, target)

    transformer_fit = fit(transformer, transformer_loss, seconds=(1 - AUTOENCODER_SHARE) * seconds, rate=1e-3)
    pipeline = DiTPipeline(transformer=transformer.eval(), vae=autoencoder, scheduler=scheduler)
    pipeline.register_to_config(id2label={str(digit): name for digit, name in enumerate(NAMES)})
    return Trained(pipeline, *autoencoder_fit, *transformer_fit)


def main() -> None:
    """Train from the command line and save the pipeline in half precision."""
    parser = argparse.ArgumentParser(
        prog="python -m aimeter.demo.train_digits",
        description="Train the demo's image model on scikit-learn's digits.",
    )
    parser.add_argument("--seconds", type=float, default=1000, help="training time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline")
    options = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    trained = train(options.seconds, seed=options.seed)
    trained.pipeline.to(torch.float16).save_pretrained(options.out)
    _log.info("autoencoder: %d steps, loss %.4f", trained.autoencoder_steps, trained.autoencoder_loss)
    _log.info("transformer: %d steps, loss %.4f", trained.transformer_steps, trained.transformer_loss)
    _log.info("wrote %s", options.out)


if __name__ == "__main__":
    main()
