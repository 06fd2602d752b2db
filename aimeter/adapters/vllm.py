"""vLLM's offline engine: `LLM.generate` and its neighbours, and the plug-in that instruments its processes."""

from __future__ import annotations

from typing import Any

from .base import Adapter, Args, Hook, Kwargs, Original
from .labels import name_of, version_of
from .scope import begin


def _run(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    scope = begin(self, f"LLM.{original.__name__}")
    if scope is None:
        return original(self, *args, **kwargs)
    with scope.guard("labels"):
        engine = getattr(self, "llm_engine", None)
        model = getattr(
            getattr(engine, "model_config", None) or getattr(self, "model_config", None), "model", None
        )
        scope.note(model=name_of(model), framework=version_of("vllm"))
    with scope:
        outputs = original(self, *args, **kwargs)
        with scope.guard("tokens"):
            _count(scope.call, outputs)
        return outputs


def _count(call: Any, outputs: Any) -> None:  # noqa: ANN401 - a call, a list of vLLM's results
    """Count what each request read and made; embeddings and scores make no tokens."""
    call.count(items=len(outputs), tokens_in=sum(len(one.prompt_token_ids or ()) for one in outputs))
    for one in outputs:
        for made in getattr(one, "outputs", None) or ():
            tokens = getattr(made, "token_ids", None)
            if tokens is not None:
                call.count(tokens_out=len(tokens))


def register() -> None:
    """Instrument a process of vLLM's, if ``AIMETER_INSTRUMENT`` asks for it; vLLM calls it in each, maybe twice.

    The entry point ``aimeter`` of the group ``vllm.general_plugins``.
    """
    from aimeter.adapters.instrument import instrument_if_wanted  # noqa: PLC0415 - loaded by vLLM, wanted or not

    instrument_if_wanted()


_METHODS = ("generate", "chat", "encode", "embed", "classify", "score")

ADAPTER = Adapter(
    "vLLM's LLM",
    tuple(Hook("vllm.entrypoints.llm", "LLM", method, _run) for method in _METHODS),
)
