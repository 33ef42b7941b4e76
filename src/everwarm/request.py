"""Everything that a client asks for, in no client's dialect.

Values here are checked in shape and range by `wire/`; what depends on the model (context length,
vocabulary) is checked where the model is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from everwarm.messages import Message

ToolChoice = Literal["auto", "none", "required"]
HistoryMode = Literal["verbatim", "template"]
"""How past replies are written into a prompt: as the model wrote them, or as its template does."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters` is a JSON schema, as the client sent it.

    `strict`: the arguments must match it.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """The answer must be JSON of this schema. `param`: the path of the field that demands it."""

    schema: Mapping[str, Any]
    param: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. `None` means: the server's default.

    temperature 0 is greedy. `presence_penalty` and `frequency_penalty` look at the reply so far,
    `repetition_penalty` at the last `repetition_context` tokens of the whole sequence.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_context: int = 20
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One turn to be answered.

    `model` is the name that the client used. `max_tokens` None: to the end of the context.
    `logprobs` None: not wanted; k: the chosen token's and the k likeliest ones'. `template_args`
    go to the chat template (`enable_thinking`, …). `namespace` separates callers with different
    keys: nothing is shared across. `deferred`: tools that may be called but do not stand at the
    head of the prompt, since a message shows them. `named_tool`: with `required`, the
    tool that must be called. `parallel_calls`: a reply may hold several calls. `shape`: what the
    answer must match; calls are still possible where they are allowed. `thinking_budget`: tokens of
    reasoning, after which it is closed; None: as the server is set. `raw`: text or ids to continue
    as they stand, without messages or template. `samples`: how many replies are wanted to the
    prompt, each a turn of its own (`nth_sample`). `history` None: as the server is set.
    `sticky_reminders`: what was read stays, where an old message lost a reminder since; None: as
    the server is set. `forced_reply`: raw text in the model's dialect that it has to write, for
    benchmarks and tests.
    `continued`: the reply's beginning, which was cut; it is written on from its own tokens.
    `ignored`: paths of the client's fields that change nothing in the answer.
    """

    model: str | None
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = ""
    deferred: tuple[Tool, ...] = ()
    named_tool: str | None = None
    parallel_calls: bool = True
    shape: AnswerSchema | None = None
    thinking_budget: int | None = None
    raw: str | tuple[int, ...] | None = None
    history: HistoryMode | None = None
    sticky_reminders: bool | None = None
    forced_reply: str | None = None
    samples: int = 1
    continued: Message | None = None
    ignored: tuple[str, ...] = field(default=(), compare=False)


def nth_sample(request: Request, n: int) -> Request:
    """The request for one of the samples. With a seed, the first is the same as a single reply."""
    seed = request.sampling.seed
    if not n or seed is None:
        return request
    digest = hashlib.blake2b(f"{seed}/{n}".encode(), digest_size=8).digest()
    sampling = replace(request.sampling, seed=int.from_bytes(digest))
    return replace(request, sampling=sampling)
