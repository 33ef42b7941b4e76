"""A coding agent's conversation, made up from a seed: the text that benchmarks send.

Prose and code of common words, so that any tokenizer makes about as many tokens of it as of real
work. Equal seeds make equal conversations.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any, Final

WORDS: Final[list[str]] = re.findall(
    r"\w+",
    "the a of to in and is for on with as by at from that this it "
    "be are was were not if then else function return class import value error "
    "test file path index cache token model server request response session message "
    "content update delete create build run config option default "
    "string list number boolean object array buffer stream thread lock queue worker event handler",
)


def _tool(name: str, about: str, params: dict[str, str]) -> dict[str, Any]:
    properties = {p: {"type": t, "description": f"The {p}. {about}"} for p, t in params.items()}
    schema = {"type": "object", "properties": properties, "required": list(params)[:1]}
    function = {"name": name, "description": about, "parameters": schema}
    return {"type": "function", "function": function}


TOOLS: Final = [
    _tool("read_file", "Reads numbered lines.", {"path": "string", "offset": "integer"}),
    _tool("write_file", "Replaces a file.", {"path": "string", "content": "string"}),
    _tool("bash", "Runs a command.", {"command": "string", "timeout": "integer"}),
    _tool("grep", "Searches contents.", {"pattern": "string", "path": "string"}),
]


def prose(r: random.Random, n: int) -> str:
    """Some n words."""
    words = [r.choice(WORDS) + ("." if r.random() < 0.08 else "") for _ in range(n)]
    return " ".join(words).capitalize()


def code(r: random.Random, n: int) -> str:
    """Some n lines that look like code."""
    return "\n".join(_line(r) for _ in range(n))


def tool_call(r: random.Random, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A call as it stands in an assistant message."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call{r.getrandbits(40):010x}", "type": "function", "function": function}


def _line(r: random.Random) -> str:
    pad, (a, b, c) = "    " * r.randint(0, 4), r.choices(WORDS, k=3)
    return r.choice(
        [
            f"{pad}def {a}_{b}(self, {c}: int = {r.randint(0, 999)}) -> str:",
            f'{pad}{a} = {b}.{c}({r.randint(0, 99999)}, "{prose(r, 3)}")',
            f"{pad}if {a} != {b}[{r.randint(0, 64)}]:  # {prose(r, 5)}",
            f'{pad}return {{"{a}": {b}, "{c}": 0x{r.getrandbits(32):08x}}}',
            "",
        ]
    )
