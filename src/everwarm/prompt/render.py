"""Requests to exact tokens. What the model read or wrote before comes back word for word.

Templates drop and re-spell old replies. Where a reply is remembered, the tokens up to its end are
taken as they were, and only what follows is rendered: the reply is replaced by a sentinel, and
the text behind the end of its turn is encoded. In any doubt the whole template is rendered.

Not here: the cache, the model, any wire format.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from everwarm.codec import Codec
from everwarm.errors import RequestError
from everwarm.messages import (
    Message,
    MessageId,
    call_key,
    canonical,
    child_id,
    json_value,
    root_id,
)
from everwarm.prompt.parse import tool_dicts
from everwarm.prompt.verbatim import Bounded, Path, Record
from everwarm.request import Request
from everwarm.tokens import Mark, Prompt, Tokens, tokens_of

SENTINEL = "XQZJVKEVERWARMSENTINELKVJZQX"
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|return|>", "<|call|>",
              "</s>", "<|endoftext|>")  # fmt: skip
_RECORDS, _PIECES, _CONVERSATIONS, _USERS = 4096, 16384, 256, 8

Dicts = list[dict[str, Any]]


def message_dicts(messages: Sequence[Message]) -> Dicts:
    """Messages as chat templates know them."""
    names: dict[str, str] = {}
    out: Dicts = []
    for m in messages:
        entry: dict[str, Any] = {"role": m.role, "content": m.text}
        if m.reasoning:
            entry["reasoning_content"] = m.reasoning
        if m.tool_calls:
            names.update((call_key(c.id), c.name) for c in m.tool_calls)
            entry["tool_calls"] = [
                _call_dict(c.id, c.name, json_value(c.arguments)) for c in m.tool_calls
            ]
        if m.role == "tool":
            entry["tool_call_id"] = m.tool_call_id or ""
            entry["name"] = names.get(call_key(m.tool_call_id or ""), "")
        out.append(entry)
    return out


def _call_dict(call_id: str, name: str, arguments: object) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


class Renderer:
    """Renders conversations and remembers their exact tokens. Used from one thread."""

    def __init__(self, codec: Codec, *, clock: Callable[[], datetime] = datetime.now) -> None:
        self._codec, self._clock = codec, clock
        specials = sorted((s for s in codec.special_texts if s), key=len, reverse=True)
        self._cut = re.compile("|".join(map(re.escape, specials))) if specials else None
        ends = {codec.decode([i]) for i in codec.eos_ids}
        self._ends = sorted(ends | {t for t in _TURN_ENDS if t in codec.special_texts})
        self._pieces: Bounded[str, list[int]] = Bounded(_PIECES)
        self._records: Bounded[MessageId, Record] = Bounded(_RECORDS)
        self._prompts: Bounded[MessageId, Prompt] = Bounded(64)
        self._calls: Bounded[tuple[MessageId, str], MessageId] = Bounded(_RECORDS)
        self._known: Bounded[MessageId, Counter[bytes]] = Bounded(_CONVERSATIONS)
        self._asked: Bounded[MessageId, tuple[MessageId, tuple[Message, ...]]] = Bounded(64)
        self._canonical: Bounded[Message, bytes] = Bounded(_RECORDS)
        self.verbatim = self._probe()

    def prompt(self, request: Request) -> Prompt:
        """The tokens to read for this request. Raises RequestError where the template refuses."""
        ids = self._chain(request)
        key = self._conversation(ids[0], request.messages)
        self._asked.put(ids[-1], (key, request.messages))
        done = self._prompts.use(ids[-1])
        if done:
            return Prompt(done.tokens, done.marks, 0, done.head, done.opens_reasoning)
        tools = tool_dicts(request.tools) or None
        dicts = message_dicts(request.messages)
        made = self._spliced(request, ids, dicts, tools) or self._whole(request, dicts, tools)
        record, start, spans = made
        seen = self._seen(key, ids, request.messages)
        old = sum(b - max(a, start) for i, a, b in spans if seen[i] and b > start)
        if not start and spans and any(seen):
            old += spans[0][1]  # what the template writes before the first message
        self._note(key, request.messages)
        tail = self._codec.decode(record.path.tokens[-16:]).rstrip()
        think = self._codec.think_markers
        prompt = Prompt(
            record.tokens,
            tuple(m for m in record.marks if 0 < m.at < record.end),
            max(0, record.end - start - old),
            ids[-1],
            bool(think and tail.endswith(think[0].rstrip())),
        )
        self._prompts.put(ids[-1], prompt)
        self._records.put(ids[-1], record)
        return prompt

    def remember(self, prompt: Prompt, reply_ids: Sequence[int], reply: Message) -> None:
        """Keep what the model wrote, so that it comes back word for word."""
        record = self._records.use(prompt.head)
        if record is None or record.tokens != prompt.tokens:
            record = Record(Path(prompt.tokens[:], list(prompt.marks)), len(prompt.tokens))
        grown = record.extend(reply_ids)
        reply_id = child_id(prompt.head, canonical(reply))
        self._records.put(_reply_key(reply_id), grown)
        if reply.tool_calls:
            self._calls.put((prompt.head, _calls_key(reply)), reply_id)
        asked = self._asked.use(prompt.head)
        if asked:
            self._note(asked[0], (*asked[1], reply))

    def _chain(self, request: Request) -> list[MessageId]:
        """The id of the conversation's root, then of each history that ends with a message."""
        head = [tool_dicts(request.tools), dict(request.template_args)]
        form = json.dumps(head, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        ids = [root_id([form, request.namespace.encode()])]
        for m in request.messages:
            known = self._calls.use((ids[-1], _calls_key(m))) if m.tool_calls else None
            ids.append(known or child_id(ids[-1], self._spelled(m)))
        return ids

    def _spelled(self, message: Message) -> bytes:
        found = self._canonical.get(message)
        if found is None:
            found = canonical(message)
            self._canonical.put(message, found)
        return found

    def _conversation(self, root: MessageId, messages: Sequence[Message]) -> MessageId:
        """What stays the same through a conversation: its root and its first user message."""
        first = next((m for m in messages if m.role == "user"), messages[0])
        return child_id(root, self._spelled(first))

    def _seen(
        self, key: MessageId, ids: Sequence[MessageId], messages: Sequence[Message]
    ) -> list[bool]:
        """Whether each message was in the conversation before. Said again is new again."""
        known, counts = self._known.use(key) or Counter(), Counter[bytes]()
        seen = []
        for m, history in zip(messages, ids[1:], strict=True):
            content = self._spelled(m)
            counts[content] += 1
            ours = _reply_key(history) in self._records
            seen.append(ours or counts[content] <= known[content])
        return seen

    def _note(self, key: MessageId, messages: Sequence[Message]) -> None:
        """Keep what the conversation holds: for each content the most times it stood there."""
        known = self._known.use(key) or Counter()
        self._known.put(key, known | Counter(map(self._spelled, messages)))

    def _whole(
        self, request: Request, dicts: Dicts, tools: Dicts | None
    ) -> tuple[Record, int, list[tuple[int, int, int]]]:
        text = self._render(dicts, tools, request.template_args, scaffold=True)
        tokens, starts = self._encode(text)
        spans = self._spans(dicts, text, 0, starts, 0)
        marks = self._marks(request, dicts, tools, text, spans, starts, 0)
        return Record(Path(tokens, marks), len(tokens)), 0, spans

    def _spliced(
        self, request: Request, ids: Sequence[MessageId], dicts: Dicts, tools: Dicts | None
    ) -> tuple[Record, int, list[tuple[int, int, int]]] | None:
        if not self.verbatim:
            return None
        for k in range(len(dicts) - 1, -1, -1):
            base = self._records.use(_reply_key(ids[k + 1]))
            if dicts[k]["role"] != "assistant" or base is None:
                continue
            tail = self._behind(dicts, k, tools, request.template_args)
            if tail is None:
                continue
            tokens, starts = self._encode(tail)
            spans = self._spans(dicts, tail, k + 1, starts, base.end)
            marks = self._marks(request, dicts, tools, tail, spans, starts, base.end)
            return base.extend(tokens, marks), base.end, spans
        return None

    def _behind(
        self, dicts: Dicts, k: int, tools: Dicts | None, args: Mapping[str, Any]
    ) -> str | None:
        """The text from the end of reply k's turn on, or None where it is not certain."""
        try:
            text = self._render(
                [*dicts[:k], _marked(dicts[k]), *dicts[k + 1 :]], tools, args, scaffold=True
            )
        except RequestError:
            return None
        if text.count(SENTINEL) != 1:
            return None
        at = text.index(SENTINEL) + len(SENTINEL)
        ends = [i for e in self._ends if e and (i := text.find(e, at)) >= 0]
        return text[min(ends) :] if ends else None

    def _render(
        self, dicts: Dicts, tools: Dicts | None, args: Mapping[str, Any], *, scaffold: bool
    ) -> str:
        return self._codec.render(dicts, tools, scaffold=scaffold, args=args)

    def _encode(self, text: str) -> tuple[Tokens[int], list[tuple[int, int]]]:
        """Tokens of a text, and (character, token) of each piece's start."""
        cuts = [0]
        if self._cut and self._codec.splits_at_specials:
            cuts += [m.start() for m in self._cut.finditer(text) if m.start()]
        tokens, starts = tokens_of(), []
        for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True):
            piece = text[a:b]
            ids = self._pieces.use(piece)
            if ids is None:
                ids = self._codec.encode(piece)
                self._pieces.put(piece, ids)
            starts.append((a, len(tokens)))
            tokens.extend(ids)
        return tokens, starts

    def _spans(
        self, dicts: Dicts, text: str, first: int, starts: list[tuple[int, int]], base: int
    ) -> list[tuple[int, int, int]]:
        """(message, start, end) in tokens, for the messages that were found in the text."""
        found: list[tuple[int, int]] = []
        at, piece = 0, 0
        for i in range(first, len(dicts)):
            content = str(dicts[i]["content"]).strip()
            here = self._find(content, text, at)
            if here < 0:
                continue
            snapped = None
            while piece < len(starts) and starts[piece][0] <= here:
                if starts[piece][0] >= at:
                    snapped = starts[piece][1]
                piece += 1
            at = here + len(content)
            if snapped is not None:
                found.append((i, base + snapped))
        last = base + starts[-1][1] if starts else base
        stops = [a for _, a in found[1:]] + [max(last, found[-1][1])] if found else []
        return [(i, a, b) for (i, a), b in zip(found, stops, strict=True)]

    def _find(self, content: str, text: str, at: int) -> int:
        """Where a message's content stands, which is never inside a control token's text."""
        here = text.find(content, at) if content else -1
        if here < 0 or self._cut is None:
            return here
        for special in self._cut.finditer(text, at):
            if special.start() >= here or here < 0:
                break
            if here < special.end():
                here = text.find(content, special.end())
        return here

    def _marks(
        self,
        request: Request,
        dicts: Dicts,
        tools: Dicts | None,
        text: str,
        spans: list[tuple[int, int, int]],
        starts: list[tuple[int, int]],
        base: int,
    ) -> list[Mark]:
        roles = [d["role"] for d in dicts]
        first = next((i for i, r in enumerate(roles) if r != "system"), -1)
        users = [i for i, r in enumerate(roles) if r == "user"][-_USERS:]
        marks: dict[int, Mark] = {}
        for i, a, _ in spans:
            if i in users:
                marks[a] = Mark(a, "user")
            if i == len(dicts) - 1:
                marks[a] = Mark(a, "last")
            if i == first:
                marks[a] = Mark(a, "system")
        end = self._before_scaffold(request, dicts, tools, text, starts)
        if end is not None:
            marks.setdefault(base + end, Mark(base + end, "prompt"))
        return sorted((m for m in marks.values() if m.at > 0), key=lambda m: m.at)

    def _before_scaffold(
        self,
        request: Request,
        dicts: Dicts,
        tools: Dicts | None,
        text: str,
        starts: list[tuple[int, int]],
    ) -> int | None:
        """The token before the generation scaffold: a piece's start, or None."""
        short = dicts[:1] if dicts[0]["role"] != "system" else dicts[:2]
        try:
            args = request.template_args
            full = self._render(short, None, args, scaffold=True)
            bare = self._render(short, None, args, scaffold=False)
        except RequestError:
            return None
        scaffold = full[len(bare) :]
        if not full.startswith(bare) or not scaffold or not text.endswith(scaffold):
            return None
        at = len(text) - len(scaffold)
        return next((t for c, t in reversed(starts) if c == at), None)

    def _probe(self) -> bool:
        """Whether a spliced probe conversation has the same tokens as a rendered one."""
        if not self._codec.splits_at_specials:
            return False
        dicts: Dicts = [
            {"role": "user", "content": "ping"},
            {"role": "assistant", "content": "pong"},
            {"role": "user", "content": "again"},
        ]
        try:
            head = self._render(dicts[:1], None, {}, scaffold=True)
            whole = self._render(dicts, None, {}, scaffold=True)
        except RequestError:
            return False
        tail = self._behind(dicts, 1, None, {})
        at = whole.find("pong") + 4
        if tail is None or at < 4 or not head:
            return False
        joined = [*self._encode(whole[:at])[0], *self._encode(tail)[0]]
        return joined == list(self._encode(whole)[0])


def _reply_key(reply_id: MessageId) -> MessageId:
    """Replies and prompts end differently at the same history: a prompt has its scaffold."""
    return MessageId("reply:" + reply_id)


def _calls_key(message: Message) -> str:
    """The ids of all calls of a message, as clients bring them back."""
    return "/".join(call_key(c.id) for c in message.tool_calls)


def _marked(reply: Mapping[str, Any]) -> dict[str, Any]:
    """A reply with nothing in it but the sentinel, behind which its turn ends.

    Calls stay, since templates may look up what a tool message answers.
    """
    calls = reply.get("tool_calls")
    if not calls:
        return {"role": "assistant", "content": SENTINEL}
    last = calls[-1]
    call = _call_dict(last["id"], last["function"]["name"], {"value": SENTINEL})
    return {"role": "assistant", "content": "", "tool_calls": [*calls[:-1], call]}
