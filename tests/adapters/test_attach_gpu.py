"""Attached pipelines on an emulated GPU whose energy is known exactly: the truth lies within the error."""

from __future__ import annotations

import importlib

import pytest

import aimeter
from tests.test_end_to_end import metered, settle_in

pytestmark = pytest.mark.models

PREFILL_W, DECODE_W = 600.0, 250.0


@pytest.fixture(scope="module")
def tiny():
    for package in ("torch", "transformers", "diffusers"):
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    return importlib.import_module("tests.tiny_models")


def test_prefill_and_decode_on_a_gpu(nvml, tiny):
    """Long prompts draw much power for a short time, new tokens less for longer; each part is right within its error."""
    clock, gpu, meter = metered(nvml)
    settle_in(clock, meter)
    pipe = meter.attach(tiny.text_pipeline())

    def load(module, args, kwargs):
        tokens = kwargs["input_ids"].shape[1]
        gpu.set_power(PREFILL_W if tokens > 1 else DECODE_W)
        clock.sleep(0.02 * tokens if tokens > 1 else 0.03)

    handle = pipe.model.register_forward_pre_hook(load, with_kwargs=True)
    edges = []
    for _ in range(12):
        prompt = "two trains leave the station at noon and the kettle boils in three minutes"
        edges.append(clock())
        pipe(prompt, max_new_tokens=20, min_new_tokens=20, do_sample=False)
        edges.append(clock())
        gpu.set_power(70.0)
        clock.sleep(0.3)
    handle.remove()
    aimeter.detach(pipe)
    meter.close()
    rows = {}
    for row in meter.records():
        rows.setdefault(row.name.rpartition(".")[2], []).append(row)
    prompt_s = 0.02 * rows["prefill"][0].tokens_in
    inside = 0
    for whole, prefill, decode, start, end in zip(
        rows["text-generation"], rows["prefill"], rows["decode"], edges[::2], edges[1::2], strict=True
    ):
        truths = (
            gpu.true_energy_j(start, end),
            gpu.true_energy_j(start, start + prompt_s),
            gpu.true_energy_j(start + prompt_s, end),
        )
        assert truths[1] == pytest.approx(PREFILL_W * prompt_s, rel=0.01)
        for row, truth in zip((whole, prefill, decode), truths, strict=True):
            inside += abs(row.energy_j - truth) <= row.error_j
        assert prefill.energy_j + decode.energy_j == pytest.approx(whole.energy_j, rel=1e-6)
        assert prefill.gpu_method == "counter"
    assert inside >= 0.95 * 36


def test_encoder_denoiser_and_decoder_on_a_gpu(nvml, tiny):
    """The parts of an image pipeline, and its steps, add up to the call, and the whole is right within its error."""
    clock, gpu, meter = metered(nvml)
    settle_in(clock, meter)
    tiny.seeded()
    pipe = meter.attach(tiny.stable_diffusion(), steps=True)
    pipe.set_progress_bar_config(disable=True)
    powers = ((pipe.text_encoder, 150.0, 0.1), (pipe.unet, 500.0, 0.15), (pipe.vae.decoder, 350.0, 0.4))

    def load(watts, seconds):
        def act(*_):
            gpu.set_power(watts)
            clock.sleep(seconds)

        return act

    handles = [part.register_forward_pre_hook(load(watts, seconds)) for part, watts, seconds in powers]
    start = clock()
    pipe("snow", num_inference_steps=6, height=32, width=32)
    end = clock()
    gpu.set_power(70.0)
    clock.sleep(0.5)
    for handle in handles:
        handle.remove()
    aimeter.detach(pipe)
    meter.close()
    rows = {}
    for row in meter.records():
        rows.setdefault(row.name.rpartition(".")[2], []).append(row)
    (whole,) = rows["StableDiffusionPipeline"]
    parts = [rows[name][0] for name in ("encode", "denoise", "decode")]
    assert abs(whole.energy_j - gpu.true_energy_j(start, end)) <= whole.error_j
    assert sum(part.energy_j for part in parts) == pytest.approx(whole.energy_j, rel=1e-6)
    assert len(rows["step"]) == 6
    assert sum(step.energy_j for step in rows["step"]) == pytest.approx(parts[1].energy_j, rel=1e-6)
    assert parts[1].energy_j == pytest.approx(500.0 * 6 * 0.15, rel=0.15)
