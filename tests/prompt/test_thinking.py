"""A word for how hard to think that the template does not take becomes the nearest that it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from codec_fixtures import PLAIN

from everwarm.codec import Codec
from everwarm.messages import Message, Text
from everwarm.prompt.render import Renderer
from everwarm.request import Request

MakeCodec = Callable[..., Codec]
_RAISES = (
    "{% if reasoning_effort is defined and reasoning_effort not in TAKEN %}"
    "{{ raise_exception('no such effort') }}{% endif %}"
    "[{{ reasoning_effort | default('plain') }}]"
) + PLAIN
ASKED = (Message("user", (Text("hi"),)),)


def shown(codec: MakeCodec, template: str, effort: str | None) -> str:
    made = codec(template)
    renderer = Renderer(made)
    args = {} if effort is None else {"reasoning_effort": effort}
    request = renderer.fitted(Request(None, ASKED, template_args={**args, "thinking": True}))
    assert request.template_args["thinking"] is True
    return made.decode(renderer.prompt(request).tokens).partition("]")[0] + "]"


@pytest.mark.parametrize(
    ("effort", "taken"),
    [("low", "low"), ("minimal", "low"), ("medium", "high"), ("high", "high"), ("max", "high")],
)
def test_the_nearest_word_is_taken(codec: MakeCodec, effort: str, taken: str) -> None:
    template = _RAISES.replace("TAKEN", "['low', 'high']")
    assert shown(codec, template, effort) == f"[{taken}]"
    assert shown(codec, template, None) == "[plain]"


def test_a_template_that_takes_none_gets_none(codec: MakeCodec) -> None:
    assert shown(codec, _RAISES.replace("TAKEN", "['auto']"), "high") == "[plain]"


@pytest.mark.parametrize("effort", ["minimal", "xhigh", "max", "a word of its own"])
def test_a_template_that_takes_all_gets_what_was_sent(codec: MakeCodec, effort: str) -> None:
    assert shown(codec, "[{{ reasoning_effort }}]" + PLAIN, effort) == f"[{effort}]"
