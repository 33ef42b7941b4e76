"""Proves that replies can be spliced into a template's text, each kind of reply by itself.

It runs when a model is loaded. A kind is proved if, for every reply of that kind in small
conversations and for every later moment of these, the text found behind the reply's sentinel

- is the end of the conversation as the template writes it without a sentinel, and
- holds all that was said since, and nothing of the reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from everwarm.errors import RequestError
from everwarm.messages import Message, Reasoning
from everwarm.prompt.dialects.derive import NO_CALLS
from everwarm.prompt.dialects.dialect import Dialect
from everwarm.prompt.dialects.scan import shared_length
from everwarm.prompt.probe import LOOK, WITH_TOOLS, WITHOUT_TOOLS, calls, result, says
from everwarm.prompt.splice import Frame, Splicer

ReplyKind = Literal["texts", "calls", "parallel_calls", "results", "reasoning"]
"""`texts`: replies of text. `calls`, `parallel_calls`: replies with one call, with several.
`results`: replies of text in a conversation in which tools were called. `reasoning`: replies in one
whose reasoning the client sends back."""
KINDS: Final[tuple[ReplyKind, ...]] = get_args(ReplyKind)
_NAMES: Final[dict[ReplyKind, str]] = {
    "texts": "replies of text",
    "calls": "replies with a tool call",
    "parallel_calls": "replies with several tool calls",
    "results": "replies in a conversation with results of tools",
    "reasoning": "replies whose reasoning is sent back",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """Which replies can be spliced. `faults`: the kinds for which that is not proved, and why."""

    faults: Mapping[ReplyKind, str]

    @property
    def proved(self) -> tuple[ReplyKind, ...]:
        """The kinds of replies that can be spliced."""
        return tuple(k for k in KINDS if k not in self.faults)

    @property
    def reason(self) -> str:
        """Why not all replies can be spliced; empty where all can."""
        return "; ".join(dict.fromkeys(self.faults.values()))

    def covered(self, messages: Sequence[Message]) -> list[bool]:
        """Which of a history's messages are replies that can be spliced."""
        if "reasoning" in self.faults and any(m.reasoning for m in messages):
            return [False] * len(messages)
        called = any(m.role == "tool" or m.tool_calls for m in messages)
        kinds: tuple[set[ReplyKind], ...] = (
            {"texts", "results"} if called else {"texts"},
            {"calls"},
            {"parallel_calls"},
        )
        able = [kind.isdisjoint(self.faults) for kind in kinds]
        return [m.role == "assistant" and able[min(len(m.tool_calls), 2)] for m in messages]


def prove(splicer: Splicer) -> Proof:
    """Try every reply of small conversations. Sets `short`, `tools_once`, `system_once`."""
    faults: dict[ReplyKind, str] = {}
    is_short = True
    for kind in KINDS:
        cases = list(_cases(kind, splicer, faults))
        if not cases:
            faults[kind] = faults["texts"]
        for frame, talk, k in cases:
            reason = _fault(splicer, talk, k, frame)
            if reason:
                faults[kind] = reason
                break
            whole = splicer.behind(talk, k, frame, short=False)
            is_short = is_short and whole == splicer.behind(talk, k, frame, short=True)
    proof = Proof(faults)
    splicer.short = is_short and bool(proof.proved)
    splicer.tools_once, splicer.system_once = _moves(splicer, proof)
    return proof


def _cases(
    kind: ReplyKind, splicer: Splicer, faults: Mapping[ReplyKind, str]
) -> Iterator[tuple[Frame, list[Message], int]]:
    """Histories, each with the reply to try."""
    parallel = splicer.habits.parallel_calls
    texts, work = _texts(), _work(parallel=False)
    frames = (WITHOUT_TOOLS, WITH_TOOLS)
    match kind:
        case "texts":
            tried = [(f, texts, 0) for f in frames]
        case "calls":
            tried = [(WITH_TOOLS, work, 1)]
        case "parallel_calls":
            tried = [(WITH_TOOLS, _work(parallel=True), 2)]
        case "results":
            tried = [(WITH_TOOLS, work, 0)]
            tried += [(WITH_TOOLS, _work(parallel=True), 0)] if parallel else []
        case "reasoning":
            thought = [(f, _thought(texts), 0) for f in frames if "texts" not in faults]
            tried = thought + [(WITH_TOOLS, _thought(work), 1)] * ("calls" not in faults)
    for frame, talk, n_calls in tried:
        for k, m in enumerate(talk):
            if m.role == "assistant" and len(m.tool_calls) == n_calls:
                yield from ((frame, talk[:end], k) for end in _moments(talk, k))


def _moves(splicer: Splicer, proof: Proof) -> tuple[bool, bool]:
    """Whether the template moves its only copy of the tools, and of the system prompt, behind a
    reply. The shortest history shows it: a reply of text with a question behind it."""
    if "texts" in proof.faults:
        return False, False
    talk = _texts()[:3]
    bare = splicer.behind(talk, 1, WITHOUT_TOOLS, short=False)
    told = splicer.behind(talk, 1, WITH_TOOLS, short=False)
    led = [says("system")("s1w"), *talk]
    moved = splicer.behind(led, 2, WITHOUT_TOOLS, short=False)
    return _is_put_in(LOOK.description, told, bare), _is_put_in("s1w", moved, bare)


def _is_put_in(word: str, told: str | None, bare: str | None) -> bool:
    """Whether `told` is `bare` with a piece put in that holds this word."""
    if not told or not bare or len(told) <= len(bare):
        return False
    n = shared_length(told, bare)
    return told.endswith(bare[n:]) and word in told[n : len(told) - len(bare) + n]


def _moments(talk: Sequence[Message], k: int) -> list[int]:
    """Where histories end in which a reply is asked for, behind reply k."""
    return [
        end
        for end in range(k + 2, len(talk) + 1)
        if talk[end - 1].role != "assistant" and (end == len(talk) or talk[end].role == "assistant")
    ]


def _fault(splicer: Splicer, talk: Sequence[Message], k: int, frame: Frame) -> str:
    """Why what follows reply k in this history is not certain; empty where it is."""
    kind = "a reply with tool calls" if talk[k].tool_calls else "a reply"
    try:
        whole = splicer.render(talk, frame)
    except RequestError as e:
        return e.message
    tail = splicer.behind(talk, k, frame, short=False)
    if tail is None:
        return f"the end of {kind} cannot be found in the template's text"
    one_by_one = len(talk[k].tool_calls) > 1 and not splicer.habits.parallel_calls
    if not whole.endswith(tail) and not one_by_one:
        return f"what the template writes behind {kind} depends on the reply"
    left = [m.text for m in talk[: k + 1] if m.text and m.text in tail]
    lost = [m.text for m in talk[k + 1 :] if m.role != "assistant" and m.text not in tail]
    if left or lost:
        return f"messages are not in order behind {kind}"
    return ""


def _texts() -> list[Message]:
    user, said = says("user"), says("assistant")
    return [user("u1w"), said("a1w"), user("u2w"), said("a2w"), user("u3w")]


def _work(*, parallel: bool) -> list[Message]:
    """A conversation in which tools are called, without words beside the calls.

    Some templates would move these; in a spliced reply they stand where the model wrote them.
    """
    user, said = says("user"), says("assistant")
    first = calls("", "c1w", "c2w") if parallel else calls("", "c1w")
    second = [] if parallel else [calls("", "c2w")]
    return [
        user("u1w"), first, result("c1w", "t1w"), *second, result("c2w", "t2w"), said("a1w"),
        user("u2w"), calls("", "c3w"), result("c3w", "t3w"), said("a2w"),
        user("u3w"), said("a3w"), user("u4w"),
    ]  # fmt: skip


def _thought(talk: Sequence[Message]) -> list[Message]:
    """The conversation with reasoning in its replies but the last, in other words for each."""
    last = max(i for i, m in enumerate(talk) if m.role == "assistant")
    return [
        replace(m, parts=(Reasoning(f"r{i}w"), *m.parts))
        if m.role == "assistant" and i != last
        else m
        for i, m in enumerate(talk)
    ]


def limits_of(proof: Proof, dialect: Dialect) -> tuple[str, ...]:
    """What a model cannot do with its template, in sentences for people; empty where all holds."""
    return tuple(s for s in (_rewrites(proof), _no_calls(dialect)) if s)


def _rewrites(proof: Proof) -> str:
    if not proof.faults:
        return ""
    kinds = ", ".join(_NAMES[k] for k in proof.faults)
    reason = " ".join(proof.reason.split()).rstrip(".")
    return (
        f"Past replies may be read again, in the chat template's words instead of the model's: "
        f"{kinds} ({reason})."
    )


def _no_calls(dialect: Dialect) -> str:
    if dialect.calls:
        return ""
    why = f" ({dialect.note.rstrip('.')})" if dialect.note and dialect.note != NO_CALLS else ""
    return (
        f"The chat template has no notation for tool calls{why}: tools in a request are accepted, "
        "and the model answers in text."
    )
