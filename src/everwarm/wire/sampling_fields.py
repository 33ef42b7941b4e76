"""Sampling fields: those of OpenAI's chat completions and completions, and of other local servers.

What the sampler here can do under another name is done; what it cannot is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from everwarm.errors import RequestError
from everwarm.request import Sampling
from everwarm.wire import body as wb
from everwarm.wire.fields import Noted, Refused, WireObject

_SAMPLER: Final = "Leave it out: temperature, top_p, top_k and min_p are what the sampler here has."
_USE_SCHEMA: Final = "Send response_format with a JSON schema."
_Off = Annotated[Any, Refused(_SAMPLER)]
_One = Annotated[Any, Refused(_SAMPLER, passes=(1,))]
_RefusedGrammar = Annotated[Any, Refused(_USE_SCHEMA)]
_Limit = Annotated[Any, Refused("Send max_tokens.", passes=(-1, -2))]


class SamplingFields(WireObject):
    """Fields of a body that say how tokens are drawn."""

    stop: wb.Texts = []
    seed: wb.Seed | None = None
    temperature: wb.Temperature = 1.0  # OpenAI's default
    top_p: wb.TopP = 1.0
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    repetition_context_size: Annotated[int, Field(ge=1, le=2**20)] | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**20)] | None = None
    presence_penalty: wb.Penalty = 0.0
    frequency_penalty: wb.Penalty = 0.0
    logit_bias: wb.Bias = {}
    num_ctx: Annotated[Any, Noted("the server is set so (context_length), not a request")] = None
    num_predict: _Limit = None
    n_predict: _Limit = None
    min_tokens: Annotated[Any, Refused("A reply ends where the model ends it.")] = None
    ignore_eos: Annotated[Any, Refused("A reply ends where the model ends it.")] = None
    use_beam_search: _Off = None
    mirostat: _Off = None
    mirostat_mode: _Off = None
    top_a: _Off = None
    dry_multiplier: _Off = None
    xtc_probability: _Off = None
    dynatemp_range: _Off = None
    smoothing_factor: _Off = None
    typical_p: _One = None
    typical: _One = None
    tfs: _One = None
    tfs_z: _One = None
    epsilon_cutoff: _Off = None
    eta_cutoff: _Off = None
    grammar: _RefusedGrammar = None
    json_schema: _RefusedGrammar = None
    guided_json: _RefusedGrammar = None
    guided_regex: _RefusedGrammar = None
    guided_choice: _RefusedGrammar = None
    guided_grammar: _RefusedGrammar = None
    structured_outputs: _RefusedGrammar = None
    format: _RefusedGrammar = None


def sampling_of(b: SamplingFields) -> Sampling:
    """How tokens are drawn. Raises RequestError where two fields for one thing differ."""
    window = _one(b, "repetition_context_size", "repeat_last_n")
    penalty = _one(b, "repetition_penalty", "repeat_penalty")
    more: Mapping[str, Any] = {"repetition_context": window} if window else {}
    if window == -1:  # how llama.cpp and Ollama spell the whole context
        more = {"repetition_context": 2**20}
    return wb.sampling(
        b.temperature,
        b.top_p,
        top_k=max(b.top_k, 0),  # -1 is how vLLM spells it
        min_p=b.min_p,
        repetition_penalty=1.0 if penalty is None or window == 0 else penalty,
        presence_penalty=b.presence_penalty,
        frequency_penalty=b.frequency_penalty,
        logit_bias=b.logit_bias,
        seed=None if b.seed is None else b.seed % 2**64,
        **more,
    )


def _one(b: SamplingFields, name: str, other: str) -> Any:
    first, second = getattr(b, name), getattr(b, other)
    if first is not None and second is not None and first != second:
        raise RequestError(f"{name} and {other} differ: send one.", param=name)
    return first if second is None else second
