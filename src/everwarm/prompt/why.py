"""Why a prompt is not what was read before: the first difference, and its likely cause in words.

Only token ids decide reuse; this looks at them, then at messages, to say it to a person. It runs
only where a turn read more than was new, and costs a decoding of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from everwarm.codec import Codec
from everwarm.events import Miss
from everwarm.messages import Message, content_id
from everwarm.prompt.chain import History
from everwarm.prompt.encoder import EncodedText, TextEncoder
from everwarm.prompt.marks import spans_of
from everwarm.prompt.template_input import Dicts
from everwarm.prompt.token_records import TokenRecord
from everwarm.tokens import Tokens, common_length, tokens_of

_LEAD, _SHOWN = 12, 64  # tokens shown in front of a difference, and from there on
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d|\d{1,2}:\d\d|\d{1,2}/\d{1,2}/\d{2,4}"
    r"|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*\b|\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    r"[a-z]* \d"
)


@dataclass(frozen=True, slots=True)
class Before:
    """A turn that was answered: its history with the reply, its tools, and all of its tokens."""

    history: History
    reply: Message
    tools: Dicts
    record: TokenRecord


def compare(
    codec: Codec,
    pieces: TextEncoder,
    history: History,
    tools: Dicts,
    tokens: Tokens[int],
    before: Iterable[Before],
    rewrites: str,
) -> Miss:
    """Say where these tokens leave those of earlier turns, and why.

    `rewrites`: why past replies may stand in the prompt in other words than the model's.
    """
    ours = [b for b in before if b.history.namespace == history.namespace]
    same = [b for b in ours if b.history.thread == history.thread] or ours
    latest_first = reversed(same)
    best = max(latest_first, key=lambda b: common_length(b.record.tokens, tokens), default=None)
    if best is None:
        return Miss(at=0, part="whole prompt", cause="nothing was read since the server started")
    old = best.record.tokens
    at = common_length(old, tokens)
    if at in (len(old), len(tokens)):
        return Miss(at=at, part="nowhere", cause="")
    is_same = best.history.thread == history.thread  # another one's words are not shown
    start, part = max(0, at - _LEAD), _part(codec, pieces, history, tokens, at)
    if part in ("head", "system") and tools != best.tools:
        part = "tools"
    return Miss(
        at=at,
        part=part,
        cause=_cause(best, history, tools, part, rewrites),
        before=codec.decode(old[start : at + _SHOWN]) if is_same else "",
        after=codec.decode(tokens[start : at + _SHOWN]),
    )


def _part(codec: Codec, pieces: TextEncoder, history: History, tokens: Tokens[int], at: int) -> str:
    """What stands at this token: the head, or a message by its number from 1."""
    text, here = codec.decode(tokens), len(codec.decode(tokens[:at]))
    specials = pieces.specials_in(text)
    starts = [(0, 0), *((start, start) for start, _ in specials)]
    spans = spans_of(history.messages, 0, EncodedText(text, tokens_of(), starts, specials), 0)
    inside = [s for s in spans if s.start <= here]
    if not inside:
        return "head"
    index = inside[-1].index
    role = history.messages[index].role
    return "system" if role == "system" and index == 0 else f"message {index + 1} ({role})"


def _cause(before: Before, history: History, tools: Dicts, part: str, rewrites: str) -> str:
    if tools != before.tools:
        return _tools_cause(before.tools, tools)
    was = [*before.history.messages, before.reply]
    contents = [*before.history.contents, content_id(before.reply)]
    pairs = zip(contents, history.contents, strict=False)
    i = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if i is None:
        return rewrites or "the template writes this place in another way than before"
    return _message_cause(was, list(history.messages), i)


def _tools_cause(was: Dicts, now: Dicts) -> str:
    old = {t["function"]["name"]: t["function"] for t in was}
    new = {t["function"]["name"]: t["function"] for t in now}
    gone, added = [n for n in old if n not in new], [n for n in new if n not in old]
    said = [f"tool {n} was removed" for n in gone] + [f"tool {n} was added" for n in added]
    for n in old:
        if n in new and old[n] != new[n]:
            what = "description" if old[n]["description"] != new[n]["description"] else "schema"
            said.append(f"the {what} of tool {n} changed")
    return ", ".join(said) or "the order of the tools changed"


def _message_cause(was: list[Message], now: list[Message], i: int) -> str:
    old, new = was[i], now[i]
    name = "the system prompt" if new.role == "system" and i == 0 else f"message {i + 1}"
    rest = [content_id(m) for m in now[i + 1 : i + 2]], [content_id(m) for m in was[i + 1 : i + 2]]
    if rest[0] and rest[0][0] == content_id(old):
        return f"message {i + 1} was put in"
    if rest[1] and rest[1][0] == content_id(new):
        return f"a message was taken out before message {i + 1}"
    if content_id(old) == content_id(new):
        return f"the reasoning of {name} was edited"
    if old.role != new.role:
        return f"message {i + 1} is another one: it was from {old.role}, now from {new.role}"
    a, b = _changed(old.text, new.text)
    if _DATE.search(a) and _DATE.search(b):
        return f"a date or time changed in {name}"
    if not b.strip() and a.strip():
        return f"something was taken out of {name}"
    if not a.strip() and b.strip():
        return f"something was added to {name}"
    return f"{name} was edited" if old.text != new.text else f"the calls of {name} changed"


def _changed(old: str, new: str) -> tuple[str, str]:
    """What differs between two texts, with whole words around it."""
    n = min(len(old), len(new))
    a = next((i for i in range(n) if old[i] != new[i]), n)
    z = next((i for i in range(n - a) if old[-1 - i] != new[-1 - i]), n - a)
    word = re.compile(r"[\w:/-]*$")
    lead = word.search(old[:a])
    a -= len(lead[0]) if lead and a < n else 0
    tail = re.match(r"[\w:/-]*", old[len(old) - z :])
    z -= len(tail[0]) if tail and z < n else 0
    return old[a : len(old) - z], new[a : len(new) - z]
