"""diffusers pipelines, attached: pictures, steps, sizes, and their encoder, denoiser and decoder."""

from __future__ import annotations

import contextlib
import importlib

import pytest

import aimeter
from tests.fakes import WATT

pytestmark = pytest.mark.models

FAMILIES = {"stable_diffusion": 64, "stable_diffusion_xl": 64, "stable_diffusion_3": 64, "flux": 16}


@pytest.fixture(scope="module")
def tiny():
    for package in ("torch", "transformers", "diffusers"):
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    return importlib.import_module("tests.tiny_models")


@pytest.fixture(scope="module")
def pipes(tiny):
    made = {}

    def pipe(family):
        if family not in made:
            tiny.seeded()
            made[family] = getattr(tiny, family)()
            made[family].set_progress_bar_config(disable=True)
        return made[family]

    return pipe


@contextlib.contextmanager
def taking_time(clock, pipe):
    """Text encoders take 1 s a pass, the denoiser 10 s, the autoencoder's decoder 100 s."""
    seconds = {"text_encoder": 1, "text_encoder_2": 1, "text_encoder_3": 1, "unet": 10, "transformer": 10}
    parts = [(getattr(pipe, name), s) for name, s in seconds.items() if getattr(pipe, name, None) is not None]
    if getattr(pipe, "vae", None) is not None:
        parts.append((pipe.vae.decoder, 100))
    spent = {s: 0 for _, s in parts}

    def hook(seconds):
        def pause(*_):
            spent[seconds] += seconds
            clock.sleep(seconds)

        return pause

    handles = [part.register_forward_pre_hook(hook(s)) for part, s in parts]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def pixels(result):
    return [picture.tobytes() for picture in result.images]


def draw(tiny, pipe, family, **options):
    side = FAMILIES[family]
    generator = tiny.seeded(3)
    given = {"num_inference_steps": 3, "num_images_per_prompt": 2, "height": side, "width": side, **options}
    return pipe("a kettle", generator=generator, **given)


def by_name(meter):
    rows = {}
    for row in meter.records():
        rows.setdefault(row.name.rpartition(".")[2], []).append(row)
    return rows


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_steps_size_and_parts(tiny, pipes, meter, clock, family):
    """The same pictures bit for bit; counts and labels; the parts' joules are exactly theirs and add up."""
    pipe, side = pipes(family), FAMILIES[family]
    plain = pixels(draw(tiny, pipe, family))
    meter.attach(pipe)
    try:
        with taking_time(clock, pipe) as spent:
            metered = pixels(draw(tiny, pipe, family))
    finally:
        aimeter.detach(pipe)
    assert metered == plain == pixels(draw(tiny, pipe, family))
    rows = by_name(meter)
    (row,) = rows[type(pipe).__name__]
    assert (row.status, row.images, row.steps) == ("ok", 2, 3)
    assert row.meta["size"] == f"{side}x{side}"
    assert row.meta["parameters"] > 10_000
    assert (row.meta["dtype"], row.meta["device"], row.meta["batch_size"]) == ("float32", "cpu", 2)
    assert row.meta["framework"].startswith("diffusers ")
    (encode,), (denoise,), (decode,) = rows["encode"], rows["denoise"], rows["decode"]
    assert {part.parent_id for part in (encode, denoise, decode)} == {row.call_id}
    assert spent[1] >= 1
    assert encode.energy_j == pytest.approx(WATT * spent[1])
    assert denoise.energy_j == pytest.approx(WATT * 30)
    assert decode.energy_j == pytest.approx(WATT * 100)
    assert encode.energy_j + denoise.energy_j + decode.energy_j == pytest.approx(row.energy_j)
    assert denoise.steps == 3


def test_a_row_a_step_on_request(tiny, pipes, meter, clock):
    """steps=True: a child row for each step of the denoiser, which together are the denoiser's."""
    pipe = pipes("stable_diffusion")
    meter.attach(pipe, steps=True)
    try:
        with taking_time(clock, pipe):
            draw(tiny, pipe, "stable_diffusion")
    finally:
        aimeter.detach(pipe)
    rows = by_name(meter)
    assert [step.energy_j for step in rows["step"]] == pytest.approx([WATT * 10] * 3)
    assert {step.parent_id for step in rows["step"]} == {rows["denoise"][0].call_id}


@pytest.mark.parametrize(
    ("kind", "evaluations"),
    [("HeunDiscreteScheduler", [2, 2, 1]), ("PNDMScheduler", [2, 1, 1])],
    ids=["heun", "pndm"],
)
def test_steps_of_several_evaluations(tiny, pipes, meter, clock, kind, evaluations):
    """Where a step takes several passes of the denoiser, its row has them all: the steps are the denoiser's."""
    diffusers = importlib.import_module("diffusers")
    options = {"steps_offset": 1, **({"skip_prk_steps": True} if kind == "PNDMScheduler" else {})}
    pipe = pipes("stable_diffusion")
    pipe = type(pipe)(
        **{**pipe.components, "scheduler": getattr(diffusers, kind)(**options)}, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    meter.attach(pipe, steps=True)
    try:
        with taking_time(clock, pipe):
            draw(tiny, pipe, "stable_diffusion")
    finally:
        aimeter.detach(pipe)
    rows = by_name(meter)
    assert [step.energy_j for step in rows["step"]] == pytest.approx([WATT * 10 * n for n in evaluations])
    assert rows["denoise"][0].energy_j == pytest.approx(sum(step.energy_j for step in rows["step"]))
    assert (rows["StableDiffusionPipeline"][0].steps, rows["denoise"][0].steps) == (3, 3)


def test_a_run_that_is_interrupted(tiny, pipes, meter, clock):
    """The steps are those really made, not those that were asked for."""

    def interrupt(pipe, step, timestep, tensors):
        pipe._interrupt = step == 1
        return tensors

    pipe = pipes("stable_diffusion")
    meter.attach(pipe, steps=True)
    try:
        with taking_time(clock, pipe):
            draw(tiny, pipe, "stable_diffusion", num_inference_steps=4, callback_on_step_end=interrupt)
    finally:
        aimeter.detach(pipe)
    rows = by_name(meter)
    assert (rows["StableDiffusionPipeline"][0].steps, rows["denoise"][0].steps) == (2, 2)
    assert [step.energy_j for step in rows["step"]] == pytest.approx([WATT * 10] * 2)


def test_latents_tuples_and_the_users_callback(tiny, pipes, meter):
    """Other forms of result are counted too, and the user's own callback is called as ever."""
    pipe, seen = pipes("stable_diffusion"), []

    def on_step_end(pipe, step, timestep, tensors):
        seen.append(step)
        return tensors

    meter.attach(pipe)
    try:
        latent = draw(tiny, pipe, "stable_diffusion", output_type="latent", callback_on_step_end=on_step_end)
        (arrays, _) = draw(tiny, pipe, "stable_diffusion", output_type="np", return_dict=False)
    finally:
        aimeter.detach(pipe)
    assert seen == [0, 1, 2]
    assert latent.images.shape[0] == len(arrays) == 2
    rows = by_name(meter)["StableDiffusionPipeline"]
    assert [(row.images, row.meta["size"]) for row in rows] == [(2, "64x64"), (2, "64x64")]


def test_a_callback_that_raises(tiny, pipes, meter, clock):
    """The exception is the caller's; the row is an error with the energy spent until then."""

    def stop(*_):
        message = "enough"
        raise KeyError(message)

    pipe = pipes("flux")
    meter.attach(pipe)
    try:
        with taking_time(clock, pipe), pytest.raises(KeyError, match="enough"):
            draw(tiny, pipe, "flux", callback_on_step_end=stop)
    finally:
        aimeter.detach(pipe)
    rows = by_name(meter)
    (row,) = rows["FluxPipeline"]
    assert (row.status, row.error_type) == ("error", "KeyError")
    assert rows["denoise"][0].energy_j == pytest.approx(WATT * 10)


def test_pipelines_without_encoder_or_decoder(tiny, meter):
    """DDPM has a denoising loop only."""
    tiny.seeded()
    pipe = tiny.ddpm()
    pipe.set_progress_bar_config(disable=True)
    meter.attach(pipe, steps=True)
    pipe(batch_size=3, num_inference_steps=4)
    aimeter.detach(pipe)
    rows = by_name(meter)
    assert [step.steps for step in rows["step"]] == [1] * 4
    assert (rows["DDPMPipeline"][0].images, rows["DDPMPipeline"][0].steps) == (3, 4)
    assert "decode" not in rows


def test_a_pipeline_class_defined_later(tiny, pipes, meter):
    """A class that did not exist when its base was instrumented is metered, also without a progress bar."""
    diffusers = importlib.import_module("diffusers")
    aimeter.instrument(meter=meter)
    try:

        class Mine(diffusers.DDPMPipeline):
            """My own."""

            def __call__(self, n):
                """Draw noise."""
                return diffusers.ImagePipelineOutput(images=[None] * n)

        pipe = Mine(unet=pipes("ddpm").unet, scheduler=pipes("ddpm").scheduler)
        assert pipe(4).images == [None] * 4
        wrapped = Mine.__call__
        assert wrapped.__doc__ == "Draw noise."
    finally:
        aimeter.uninstrument()
    assert Mine.__call__ is wrapped.__wrapped__
    assert {row.name: row.images for row in meter.records()} == {"Mine": 4, "Mine.whole": None}


def test_the_digits_model(tiny, meter):
    """A trained pipeline with a VAE and a plain loop: pictures, steps, parts and its name."""
    models = importlib.import_module("aimeter.demo.models")
    models.quieten()
    painter = meter.attach(models.load_painter(), model=models.PAINTER)
    assert len(models.draw(painter, "three", images=2, steps=4, seed=1)) == 2
    aimeter.detach(painter)
    rows = by_name(meter)
    (row,) = rows["DiTPipeline"]
    assert (row.images, row.steps, row.model, row.meta["size"]) == (2, 4, "aimeter-digits", "32x32")
    assert sorted(rows) == ["DiTPipeline", "decode", "denoise", "encode"]


def test_a_modular_pipeline(tiny, meter, clock):
    """Modular pipelines have a base of their own; their pictures and steps are counted."""
    modular = pytest.importorskip("diffusers.modular_pipelines")

    class Draw(modular.ModularPipelineBlocks):
        model_name = "drawing"

        @property
        def description(self):
            return "Draws nothing."

        @property
        def inputs(self):
            return [modular.InputParam("number")]

        @property
        def intermediate_outputs(self):
            return [modular.OutputParam("images")]

        def __call__(self, components, state):
            block = self.get_block_state(state)
            clock.sleep(5)
            block.images = ["picture"] * block.number
            self.set_block_state(state, block)
            return components, state

    pipe = modular.ModularPipeline(Draw())
    meter.attach(pipe)
    assert pipe(number=3, output="images") == ["picture"] * 3
    pipe(number=2)
    aimeter.detach(pipe)
    first, second = meter.records()
    assert (first.images, second.images) == (3, 2)
    assert first.energy_j == pytest.approx(WATT * 5)


@pytest.mark.parametrize("asked", ["videos", None])
def test_a_modular_pipeline_that_makes_videos(tiny, meter, asked):
    """They are videos in its state, and when it is asked for them alone."""
    modular = pytest.importorskip("diffusers.modular_pipelines")
    torch = importlib.import_module("torch")

    class Film(modular.ModularPipelineBlocks):
        model_name = "film"

        @property
        def description(self):
            return "Films nothing."

        @property
        def intermediate_outputs(self):
            return [modular.OutputParam("videos")]

        def __call__(self, components, state):
            block = self.get_block_state(state)
            block.videos = torch.zeros(2, 5, 3, 6, 8)
            self.set_block_state(state, block)
            return components, state

    pipe = meter.attach(modular.ModularPipeline(Film()))
    pipe(output=asked)
    aimeter.detach(pipe)
    (row,) = meter.records()
    assert (row.items, row.images, row.meta["frames"], row.meta["size"]) == (2, None, 10, "8x6")


@pytest.mark.parametrize(
    ("result", "images", "items", "meta"),
    [
        ({"frames": "two videos of three"}, None, 2, {"frames": 6, "size": "8x6", "batch_size": 2}),
        ({"frames": "an array"}, None, 2, {"frames": 6, "size": "8x6"}),
        ({"frames": "a video"}, None, 1, {"frames": 3, "size": "8x6", "batch_size": 1}),
        ({"audios": "an array"}, None, 2, {"batch_size": 2, "size": None}),
        ({"images": "a tensor"}, 2, None, {"size": "8x6"}),
        ({"other": 3}, None, None, {}),
    ],
    ids=str,
)
def test_other_results(tiny, pipes, meter, result, images, items, meta):
    """Videos and audios are items, with their frames; what is unknown is not made up."""
    diffusers, numpy = map(importlib.import_module, ("diffusers", "numpy"))
    torch, image = map(importlib.import_module, ("torch", "PIL.Image"))
    made = {
        "a video": [image.new("RGB", (8, 6))] * 3,
        "two videos of three": [[image.new("RGB", (8, 6))] * 3] * 2,
        "an array": numpy.zeros((2, 3, 6, 8, 3)) if "frames" in result else numpy.zeros((2, 100)),
        "a tensor": torch.zeros(2, 3, 6, 8),
    }
    (field, which), output = next(iter(result.items())), type("Output", (), {})()
    setattr(output, field, made.get(which, which))

    class Mine(diffusers.DiffusionPipeline):
        def __call__(self):
            return output

    pipe = meter.attach(Mine())
    assert pipe() is output
    aimeter.detach(pipe)
    (row,) = meter.records()
    assert (row.images, row.items) == (images, items)
    assert {key: row.meta.get(key) for key in meta} == meta


@pytest.mark.parametrize("form", ["an output", "a tuple", "of a base class", "latents"])
@pytest.mark.parametrize("what", ["image", "video", "audio"])
def test_what_was_made_is_the_same_in_every_form(tiny, pipes, meter, what, form):
    """With ``return_dict=False`` and as arrays, tensors or lists: videos are videos, audio is audio."""
    diffusers, torch = map(importlib.import_module, ("diffusers", "torch"))
    output = importlib.import_module("diffusers.pipelines.cogvideo.pipeline_output")
    frames = output.CogVideoXPipelineOutput
    made = {
        "image": torch.zeros(2, 3, 6, 8),
        "video": torch.zeros(2, 5, 3, 6, 8),
        "audio": torch.zeros(2, 1, 24_000),
    }[what]

    class Image(diffusers.DiffusionPipeline):
        @torch.no_grad()
        def __call__(self, *, return_dict=True, output_type="pt"):
            return diffusers.ImagePipelineOutput(images=made) if return_dict else (made,)

    class Video(diffusers.DiffusionPipeline):
        @torch.no_grad()
        def __call__(self, *, return_dict=True, output_type="pt"):
            return frames(frames=made) if return_dict else (made, None)

    class Audio(diffusers.DiffusionPipeline):
        sampling_rate = 16_000

        @torch.no_grad()
        def __call__(self, *, return_dict=True, output_type="pt"):
            return diffusers.AudioPipelineOutput(audios=made) if return_dict else (made,)

    kind = {"image": Image, "video": Video, "audio": Audio}[what]
    if form == "of a base class":
        base = kind

        class Derived(base):
            def __call__(self, **options):
                return super().__call__(**options)

        kind = Derived
    pipe = meter.attach(kind())
    pipe(return_dict=form == "an output", output_type="latent" if form == "latents" else "pt")
    aimeter.detach(pipe)
    row = next(row for row in meter.records() if row.parent_id is None)
    latent = form == "latents"
    assert (row.images, row.items, row.audio_s, row.meta.get("frames"), row.meta.get("size")) == {
        "image": (2, None, None, None, None if latent else "8x6"),
        "video": (None, 2, None, None if latent else 10, None if latent else "8x6"),
        "audio": (None, 2, None if latent else 3.0, None, None),
    }[what]
