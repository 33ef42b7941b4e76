"""What a long history costs before the model sees it: messages to tokens, by step.

    python benchmarks/render.py TOKENIZER_DIR [--messages 266] [--rounds 15] [--json FILE]

No model is loaded. Every request is parsed from bytes anew, as a server gets it. Milliseconds,
medians; `first` is a single run, since nothing of it is known only once.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shapes import TOOLS, conversation, question
from transformers import AutoTokenizer

from everwarm.messages import Message, Text
from everwarm.prompt.render import Renderer
from everwarm.prompt.splice import Frame
from everwarm.request import Request
from everwarm.text.notation import Notation
from everwarm.text.text_codec import TextCodec
from everwarm.tokens import Prompt
from everwarm.wire import openai_chat

TEMPLATE = Path(__file__).parent / "agent_template.jinja"


def codec_of(directory: Path) -> TextCodec:
    """The directory's tokenizer with the agent template."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.chat_template = TEMPLATE.read_text()
    return TextCodec(tokenizer, Notation.of(tokenizer))


class Talk:
    """One growing conversation with one renderer."""

    def __init__(self, codec: TextCodec, n_messages: int, **settings: Any) -> None:
        self.codec, self.messages = codec, conversation(n_messages)
        self.renderer = Renderer(codec, **settings)
        self.steps: dict[str, list[float]] = {}

    def request(self) -> Request:
        """The request as it comes off the wire."""
        body = json.dumps({"messages": self.messages, "tools": TOOLS}).encode()
        return self._timed("parse", lambda: openai_chat.parse(body).request)

    def ask(self, name: str) -> Prompt:
        """Render the conversation as it stands."""
        request = self.request()
        return self._timed(name, lambda: self.renderer.prompt(request))

    def answer(self, prompt: Prompt, n: int) -> None:
        """Let the model say something, and the user ask on."""
        said = f"Step {n} is done: the tests pass."
        ids = self.codec.encode(f"<think>\nLet me see about {n}.\n</think>\n\n{said}")
        reply = Message("assistant", (Text(said),))
        self._timed("remember", lambda: self.renderer.remember(prompt, ids, reply))
        self.messages += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": question(n)},
        ]

    def parts(self) -> None:
        """The steps of a hit, one by one."""
        request = self.request()
        chains, splicer = self.renderer._chains, self.renderer._splicer
        history = self._timed("hit: ids of all messages", lambda: chains.history(request))
        asked = self.renderer._asked[history.ids[-3]]
        frame: Frame = asked.frame
        k = len(history.messages) - 2
        for short in (True, False):
            name = f"hit: template, {'shortened' if short else 'whole'} history"
            tail = self._timed(
                name, lambda s=short: splicer.behind(history.messages, k, frame, short=s)
            )
        assert tail is not None
        pieces = self.renderer._builder._pieces
        self._timed("hit: tokenize what follows", lambda: pieces.encode(tail))

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        done = work()
        self.steps.setdefault(name, []).append(1000 * (time.perf_counter() - began))
        return done


def run(directory: Path, n_messages: int, rounds: int) -> dict[str, Any]:
    """All figures."""
    codec = codec_of(directory)
    talk = Talk(codec, n_messages)
    prompt = talk.ask("first")
    n_tokens = len(prompt.tokens)
    for n in range(rounds):
        talk.ask("same request again")
        talk.answer(prompt, n)
        talk.parts()
        prompt = talk.ask("hit")
        assert prompt.new_tokens < 100, prompt.new_tokens
    for n in range(3):
        talk.messages[-12 - 2 * n]["content"] += f" Edited {n}."
        talk.ask("edit about ten messages back")
    plain = Talk(codec, n_messages, history="template")
    prompt = plain.ask("first")
    for n in range(rounds):
        plain.answer(prompt, n)
        prompt = plain.ask("hit with --history template")
    steps = talk.steps | {k: v for k, v in plain.steps.items() if "template" in k}
    whole = codec.decode(talk.ask("last").tokens)
    began = time.perf_counter()
    codec.encode(whole)
    return {
        "messages": n_messages,
        "tokens": n_tokens,
        "body_bytes": len(json.dumps({"messages": talk.messages, "tools": TOOLS})),
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "ms": {
            name: {
                "median": round(statistics.median(v), 2),
                "worst": round(max(v), 2),
                "runs": len(v),
            }
            for name, v in steps.items()
            if name != "last"
        },
        "tokenize_whole_text_ms": round(1000 * (time.perf_counter() - began), 1),
    }


def main() -> None:
    """Print a table; write JSON where asked."""
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("tokenizer", type=Path)
    args.add_argument("--messages", type=int, default=266)
    args.add_argument("--rounds", type=int, default=15)
    args.add_argument("--json", type=Path)
    given = args.parse_args()
    made = run(given.tokenizer, given.messages, given.rounds)
    for name, row in made["ms"].items():
        print(f"{name:42} {row['median']:9.2f} ms   (worst {row['worst']:.2f}, n={row['runs']})")
    print(f"{'tokenize the whole text':42} {made['tokenize_whole_text_ms']:9.2f} ms")
    if given.json:
        given.json.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
