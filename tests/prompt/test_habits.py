"""Whatever habit a client has, and whatever the template: what is proved is never read twice.

`EVERWARM_TEMPLATES=DIR` adds the published templates in a directory (`*.jinja`).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from talk import CLIENT_NAMES, CLIENTS, Talk, look, result, said, user

from everwarm.messages import Message
from everwarm.prompt.render import Renderer
from everwarm.text.text_codec import TextCodec


def converse(talk: Talk, name: str, client: Callable[[Message], Message]) -> None:
    """Three questions; calls and reasoning as far as the template is proved to carry them."""
    proved = talk.renderer.proof.proved
    n_calls = 2 if "parallel_calls" in proved else 1
    calls_too = {"calls", "results"} <= {*proved}
    thought = "hm" if "reasoning" in proved else ""
    for question in ("first", "second", "third"):
        talk.messages.append(user(f"the {question} question of {name}"))
        for n in (n_calls, 1, 0) if calls_too else (0,):
            prompt = talk.ask(client)
            calls = [look(f"{question[:2]}{n}{i}abcde", at=f'é "{i}"', b=n) for i in range(n)]
            answer = "" if calls else f"  the {question} answer\n"
            # Not how the tokenizer would cut it: a model may.
            ids = [i for c in f"{thought} {answer} {n}" for i in talk.codec.encode(c)]
            talk.answer(prompt, ids, said(answer, *calls, thought=thought))
            talk.messages += [result(c, f"seen {c.id}") for c in calls]
    talk.messages.append(user("goodbye"))
    talk.ask(client)


def test_what_is_proved_is_read_once_in_every_habit(any_codec: TextCodec) -> None:
    renderer = Renderer(any_codec)
    if "texts" not in renderer.proof.proved:
        pytest.skip(renderer.proof.reason)
    for name, client in zip(CLIENT_NAMES, CLIENTS, strict=True):
        talk = Talk(renderer, any_codec)
        converse(talk, name, client)
        assert talk.reprocessed == 1.0, name
