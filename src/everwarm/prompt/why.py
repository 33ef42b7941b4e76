"""Why a turn read more than was new in it: every reason of a miss, in words for people.

Either the cache has less than was read before, or the prompt is not what was read before. Only
token ids decide reuse; this looks at them, then at messages, to name the first difference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from everwarm.codec import Codec
from everwarm.events import SCAFFOLD, Miss, TurnRecord, beyond_new
from everwarm.messages import Message, content_id
from everwarm.prompt.built_prompt import BuiltPrompt
from everwarm.prompt.chain import History
from everwarm.prompt.encoder import EncodedText, TextEncoder
from everwarm.prompt.marks import NEAR_END, spans_of
from everwarm.prompt.proof import Proof
from everwarm.prompt.template_input import Dicts
from everwarm.prompt.token_records import TokenRecord
from everwarm.tokens import Prompt, common_length, tokens_of

_LEAD, _SHOWN = 12, 64  # tokens shown in front of a difference, and from there on
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d|\d{1,2}:\d\d|\d{1,2}/\d{1,2}/\d{2,4}"
    r"|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*\b|\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    r"[a-z]* \d"
)


@dataclass(frozen=True, slots=True)
class AnsweredTurn:
    """A turn that was answered: its history with the reply, its tools, and all of its tokens."""

    history: History
    reply: Message
    tools: Dicts
    record: TokenRecord


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a renderer remembers of a prompt and of the turns before it.

    `is_unknown`: its history has replies, and none of them is known. `is_of_others`: other models
    gave them.
    """

    codec: Codec
    encoder: TextEncoder
    proof: Proof
    built: BuiltPrompt
    answered: tuple[AnsweredTurn, ...]
    is_unknown: bool = False
    is_of_others: bool = False


def may_miss(record: TurnRecord) -> bool:
    """Whether there may be something to explain: more is read than is new, or all of it is new."""
    return _is_lost(record) or record.new_tokens == record.prompt_tokens


def why(
    record: TurnRecord, prompt: Prompt, evidence: Evidence | None, *, has_cache: bool
) -> Miss | None:
    """Say why a turn read more than was new in it, or why all of a known conversation is new.

    Decodes the prompt: not for a hit. `evidence`: None where nothing is remembered of the prompt.
    """
    if not _is_lost(record):
        return _all_new(prompt, evidence) if evidence else None
    by_cache = max(0, record.prefilled_tokens - record.unseen_tokens)
    by_text = max(0, record.unseen_tokens - record.new_tokens)
    if not by_text and (found := _near_checkpoint(record, prompt)) is not None:
        return replace(found, by_cache=by_cache)
    found = difference(prompt, evidence) if evidence else None
    if found is None or not found.cause:
        found = _not_in_cache(record, found.at if found else None, has_cache=has_cache)
    return replace(found, by_text=by_text, by_cache=by_cache)


def _is_lost(record: TurnRecord) -> bool:
    return record.prefilled_tokens > max(record.new_tokens, 1)


def _all_new(prompt: Prompt, evidence: Evidence) -> Miss | None:
    """Why a conversation that goes on is a new one to this server."""
    if cause := unknown(prompt, evidence):
        return Miss(at=0, part="whole prompt", cause=cause)
    if not evidence.built.built.rebuilt:
        return None
    # What its replies once stood behind, tools or system prompt, is not what it was.
    found = difference(prompt, evidence)
    return found if found.part in ("head", "system", "tools") else None


def unknown(prompt: Prompt, evidence: Evidence) -> str:
    """Why no reply in the history is known; empty where one is, or none is there."""
    if evidence.is_of_others:
        return "another model, or this one with another template, held this conversation"
    if evidence.is_unknown and evidence.built.built.new_tokens == len(prompt.tokens):
        return "the server does not know this conversation"
    return ""


# --- the cache has less than was read before ---


def _near_checkpoint(record: TurnRecord, prompt: Prompt) -> Miss | None:
    """All messages were warm, and only what stands behind the nearest checkpoint was read again.

    Layers that cannot be cut go back to a checkpoint: it stands a few tokens before a prompt's end,
    or before what opens the reply. This is so in most turns, so nothing is decoded to say it.
    """
    last = max((m.at for m in prompt.marks if m.kind != "prompt"), default=0)
    end = min((m.at for m in prompt.marks if m.kind == "prompt" and m.at >= last), default=None)
    again = beyond_new(record.prefilled_tokens, record.new_tokens)
    if again > NEAR_END and (end is None or record.cached_tokens < end):
        return None
    cause = (
        f"{again} tokens behind the nearest checkpoint: the end of a prompt that was read before"
    )
    return Miss(at=record.cached_tokens, part=SCAFFOLD, cause=cause)


def _not_in_cache(record: TurnRecord, known: int | None, *, has_cache: bool) -> Miss:
    """The text is what it was, up to `known` tokens of what was read before."""
    at, part = record.cached_tokens, "cache"
    if known is not None and known <= record.cached_tokens:
        part = "branch"
        cause = "what was said before stands behind other messages now, where it was never read"
    elif not has_cache:
        cause = "the cache is off (--no-cache)"
    elif record.cached_tokens:
        cause = "nothing nearer can be restored: it was let go, or lies between two checkpoints"
    else:
        cause = "it was let go for other conversations, or the server was started since"
    return Miss(at=at, part=part, cause=cause)


# --- the prompt is not what was read before ---


def difference(prompt: Prompt, evidence: Evidence) -> Miss:
    """Say where the prompt's tokens leave those of earlier turns, and why."""
    built, codec, tokens = evidence.built, evidence.codec, prompt.tokens
    history, tools = built.history, built.frame.tools or []
    ours = [a for a in evidence.answered if a.history.namespace == history.namespace]
    same = [a for a in ours if a.history.thread == history.thread] or ours
    latest_first = reversed(same)
    best = max(latest_first, key=lambda a: common_length(a.record.tokens, tokens), default=None)
    if best is None:
        return Miss(at=0, part="whole prompt", cause="nothing was read since the server started")
    old = best.record.tokens
    at = common_length(old, tokens)
    if at in (len(old), len(tokens)):
        return Miss(at=at, part="nowhere", cause="")
    is_same = best.history.thread == history.thread  # another one's words are not shown
    start, part = max(0, at - _LEAD), _part(prompt, evidence, at)
    if part in ("head", "system") and tools != best.tools:
        part = "tools"
    return Miss(
        at=at,
        part=part,
        cause=_cause(best, evidence),
        before=codec.decode(old[start : at + _SHOWN]) if is_same else "",
        after=codec.decode(tokens[start : at + _SHOWN]),
    )


def _part(prompt: Prompt, evidence: Evidence, at: int) -> str:
    """What stands at this token: the head, or a message by its number from 1."""
    codec, messages = evidence.codec, evidence.built.history.messages
    text, here = codec.decode(prompt.tokens), len(codec.decode(prompt.tokens[:at]))
    specials = evidence.encoder.specials_in(text)
    starts = [(0, 0), *((start, start) for start, _ in specials)]
    spans = spans_of(messages, 0, EncodedText(text, tokens_of(), starts, specials), 0)
    inside = [s for s in spans if s.start <= here]
    if not inside:
        return "head"
    index = inside[-1].index
    role = messages[index].role
    return "system" if role == "system" and index == 0 else f"message {index + 1} ({role})"


def _cause(before: AnsweredTurn, evidence: Evidence) -> str:
    history, tools = evidence.built.history, evidence.built.frame.tools or []
    if tools != before.tools:
        return _tools_cause(before.tools, tools)
    was = [*before.history.messages, before.reply]
    contents = [*before.history.contents, content_id(before.reply)]
    pairs = zip(contents, history.contents, strict=False)
    i = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if i is None:
        return _template_cause(evidence)
    return _message_cause(was, list(history.messages), i)


def _template_cause(evidence: Evidence) -> str:
    """Why the same messages stand in the prompt in other words."""
    if evidence.built.mode == "template":
        return "history is set to template, which writes past replies in its own words"
    messages, proof = evidence.built.history.messages, evidence.proof
    covered = proof.covered(messages)
    if any(m.role == "assistant" and not c for m, c in zip(messages, covered, strict=True)):
        return f"replies cannot be put back into this template: {proof.reason}"
    return "the template writes this place in another way than before"


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
