"""What holds for each chat template in a directory, as a table: `templates.py DIR`.

Each template (`*.jinja`) gets the default model's tokenizer, with the markers that it names added
as control tokens. Tokens read again are those of the oracle with rows and an opaque state
(`hybrid`), which is asked the same prompt twice: a conversation whose last message is long.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from everwarm.cache.cache import Cache
from everwarm.config import Settings
from everwarm.engine.convert import convert
from everwarm.errors import RequestError
from everwarm.messages import Message, Role, Text, ToolCall
from everwarm.models import ensure_default
from everwarm.prompt.proof import KINDS
from everwarm.prompt.render import Renderer
from everwarm.request import Request, Tool
from everwarm.testing import ORACLES, OracleRun, OracleState
from everwarm.text.notation import Notation
from everwarm.text.text_codec import TextCodec
from everwarm.tokens import Prompt

MARKER = re.compile(
    r"<\|[^<>|\s]+\|?>|<[^<>|\s]+\|>|<｜[^<>｜]+｜>|\[/?[A-Z_]+\]|\]~!?b?\w*\[|\]<\]\w+\[>\["
    r"|</?(?:think|tool_call|tool_response|arg_key|arg_value|assistant|user|system|\w+_turn|s)>"
)
LONG = " ".join(f"word{n}" for n in range(900))
LOOK = Tool("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})
CALL = ToolCall("callabc12", "look", '{"at": "here"}')


def says(role: Role, text: str) -> Message:
    return Message(role, (Text(text),), CALL.id if role == "tool" else None)


TALKS = {
    "text": ((says("user", "hi"), says("assistant", "hello"), says("user", LONG)), ()),
    "result": ((says("user", "hi"), Message("assistant", (CALL,)), says("tool", LONG)), (LOOK,)),
}


def codec_of(template: str, tokenizer_dir: Path) -> TextCodec:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    tokenizer.add_tokens(sorted(set(MARKER.findall(template))), True)
    tokenizer.chat_template = template
    return TextCodec(tokenizer, Notation.of(tokenizer))


def read(cache: Cache, prompt: Prompt) -> int:
    run = OracleRun(cache, prompt.tokens, prompt.marks, chunk=256)
    while not run.over:
        run.step()
    return run.prefilled


def row(name: str, codec: TextCodec) -> list[str]:
    renderer, cells = Renderer(codec), [name]
    for messages, tools in TALKS.values():
        cache = Cache(lambda: OracleState(ORACLES["hybrid"]), budget=1 << 30)
        try:
            prompt = renderer.prompt(Request(None, messages, tools))
        except RequestError:
            cells += ["refused", "", ""]
            continue
        n = len(prompt.tokens)
        read(cache, prompt)
        marks = ", ".join(str(n - m.at) for m in prompt.marks if m.kind == "prompt")
        cells += [f"{n:,}", marks or "none", f"{read(cache, prompt):,}"]
    faults: Any = renderer.proof.faults
    return [*cells, ", ".join(k for k in KINDS if k not in faults) or "nothing"]


def main() -> None:
    home = ensure_default(Settings().home, convert=convert)
    titles = ["template"]
    for talk in TALKS:
        titles += [f"{talk}: tokens", "marks before the end", "read again"]
    print("| " + " | ".join([*titles, "proved"]) + " |")
    print("|---" * (len(titles) + 1) + "|")
    for path in sorted(Path(sys.argv[1]).glob("*.jinja")):
        codec = codec_of(path.read_text(encoding="utf-8"), home)
        print("| " + " | ".join(row(path.stem, codec)) + " |", flush=True)


if __name__ == "__main__":
    main()
