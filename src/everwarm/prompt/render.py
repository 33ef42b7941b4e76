"""Requests to exact tokens. What the model read or wrote before comes back word for word.

Templates drop and re-spell old replies. Where a reply is remembered, the tokens up to its end are
taken as they were, and only what follows is rendered:

    [ ------- record of a history ------- | what follows, rendered | reply | what follows | … ]
    known by the chain of message ids     ^ `splice.Splicer.behind`  ^ found by content

In any doubt the whole template is rendered. Not here: the cache, the model, any wire format.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from everwarm.codec import Codec
from everwarm.errors import RequestError
from everwarm.events import Miss
from everwarm.messages import (
    Message,
    MessageId,
    Text,
    calls_key,
    child_id,
    content_id,
    reasoning_id,
)
from everwarm.prompt.build import Builder, Standing
from everwarm.prompt.built_prompt import BuiltPrompt, BuiltPrompts
from everwarm.prompt.chain import Chains, History
from everwarm.prompt.dialects import families
from everwarm.prompt.effort import Efforts
from everwarm.prompt.encoder import TextEncoder
from everwarm.prompt.length import Length
from everwarm.prompt.probe import find_turns, habits_of, reads_reasoning
from everwarm.prompt.proof import prove
from everwarm.prompt.quote import quotes_of
from everwarm.prompt.reminders import Reminders
from everwarm.prompt.samples import Replies
from everwarm.prompt.seen import SeenContents
from everwarm.prompt.splice import Frame, Splicer
from everwarm.prompt.template_input import shows_name, tool_dicts
from everwarm.prompt.thinking import markers_of
from everwarm.prompt.token_records import Bounded, TokenPath, TokenRecord, TokenRecords
from everwarm.prompt.why import Before, compare
from everwarm.replies import Kept, Reply, ReplyStore, reply_id
from everwarm.request import HistoryMode, Request, Tool
from everwarm.tokens import Prompt, Tokens, tokens_of

_CONVERSATIONS = 256


class Renderer:
    """Renders conversations and remembers their exact tokens. Used from one thread."""

    def __init__(
        self,
        codec: Codec,
        *,
        clock: Callable[[], datetime] = datetime.now,
        history: HistoryMode = "verbatim",
        sticky_reminders: bool = False,
        store: ReplyStore | None = None,
        control_tokens_in_text: bool = False,
        context_length: int | None = None,
    ) -> None:
        self._codec, self._clock, self._mode, self._store = codec, clock, history, store
        self._sticky = sticky_reminders
        self.length = Length(codec, context_length) if context_length else None
        self.dialect = families.of(codec)
        splicer = Splicer(codec, None if control_tokens_in_text else quotes_of(codec))
        own_id = next((c.own_id for c in self.dialect.calls if c.own_id), "")
        splicer.habits = replace(habits_of(splicer), own_id=own_id)
        find_turns(splicer)
        think = self.dialect.reasoning
        if think and not control_tokens_in_text and reads_reasoning(splicer, think):
            splicer.quotes = quotes_of(codec, think)
        self.proof = prove(splicer)
        self.markers = markers_of(codec, self.dialect, splicer)
        self._efforts = Efforts(splicer)
        self._splicer = splicer
        self._replies = Replies(_CONVERSATIONS)
        self._records = TokenRecords()
        self._pieces = TextEncoder(codec, splicer.quotes)
        self._builder = Builder(splicer, self._pieces, self._records, self._replies, self.proof)
        self._reminders = Reminders(store)
        self._chains = Chains(self._head, self._replies, self._reminders, splicer.habits)
        self._prompts: Bounded[object, tuple[TokenRecord, Prompt]] = Bounded(64)
        self._seen = SeenContents(_CONVERSATIONS)
        self._asked = BuiltPrompts()
        self._answered: deque[Before] = deque(maxlen=64)
        self._times: Bounded[MessageId, datetime] = Bounded(_CONVERSATIONS)
        self._tools: Bounded[MessageId, tuple[Tool, ...]] = Bounded(_CONVERSATIONS)
        self._unknown: Bounded[MessageId, bool] = Bounded(4 * _CONVERSATIONS)

    @property
    def splicer(self) -> Splicer:
        """The template as it is used. It does not change: any thread may render with it."""
        return self._splicer

    @property
    def verbatim(self) -> bool:
        """Whether replies come back word for word, unless a request asks for the template."""
        return self._mode == "verbatim" and bool(self.proof.proved)

    def fitted(self, request: Request) -> Request:
        """The request in words that the template takes. From any thread."""
        return replace(request, template_args=self._efforts.fitted(request.template_args))

    def ignored(self, request: Request) -> tuple[str, ...]:
        """Paths of what the model has no place for: names that its template does not write, and
        tools, where it has no notation for calls. From any thread."""
        habits = self._splicer.habits
        lost = any(m.name and not shows_name(m, habits) for m in request.messages)
        idle = bool(request.tools or request.deferred) and not self.dialect.calls
        return (*(("messages[].name",) if lost else ()), *(("tools",) if idle else ()))

    def prompt(self, request: Request) -> Prompt:
        """The tokens to read for this request.

        Raises RequestError where the template refuses, or where it is far too long.
        """
        if self.length is not None:
            self.length.check_request(request)
        history, tools = self._history(request)
        now = self._time(history)
        frame = Frame(tool_dicts(tools) or None, request.template_args, now)
        mode = request.history or self._mode
        last = history.messages[-1].text
        moving = last if "<total_tokens>" in last else ""
        key = (history.head, mode, now, json.dumps(dict(frame.args), sort_keys=True), moving)
        done = self._prompts.use(key)
        if done:
            self._note_reminders(request, history)
            record, prompt = done
            return replace(
                prompt, tokens=record.tokens, new_tokens=0, reminded=len(history.reminded),
                messages=history.messages,
            )  # fmt: skip
        seen = self._seen.in_history(history, lambda end: reply_key(end) in self._records)
        built = self._builder.build(history, frame, seen, verbatim=mode != "template")
        if self.length is not None:
            self.length.check_made(built.record.end)  # nothing is remembered of what is refused
        self._seen.note(history.key, history.contents)
        self._note_reminders(request, history)
        prompt = Prompt(
            built.record.tokens,
            tuple(m for m in built.record.marks if 0 < m.at < built.record.end),
            built.new_tokens,
            history.head,
            self._opens_reasoning(built.record),
            kept_tools=tools != request.tools,
            thread=history.thread,
            reminded=len(history.reminded),
            messages=history.messages,
        )
        self._prompts.put(key, (built.record, replace(prompt, tokens=tokens_of(), messages=())))
        self._records.put(history.head, built.record)
        asked = self._asked.put(BuiltPrompt(history, frame, built, mode))
        for r in built.rebuilt:  # replies behind an edited message: others will build on them
            self._keep(asked, r)
        return prompt

    def remember(self, prompt: Prompt, reply_ids: Sequence[int], reply: Message) -> None:
        """Keep what the model wrote, so that it comes back word for word."""
        record = self._records.get(prompt.head)
        if record is None or record.tokens != prompt.tokens:
            record = TokenRecord(
                TokenPath(prompt.tokens[:], list(prompt.marks)), len(prompt.tokens)
            )
        grown = record.extend(reply_ids)
        content = content_id(reply)
        own, place = reply_id(prompt.head, reply), child_id(prompt.head, content)
        self._records.put(reply_key(own), grown)
        asked = self._asked.get(prompt.head)
        if asked is None:
            return
        history, frame, built = asked.history, asked.frame, asked.built
        before = next((c for c in reversed(history.contents) if c), b"")
        said = Reply(
            tokens_of(reply_ids), content, before, len(history.messages),
            reply.text.strip(), calls_key(reply), dict(frame.args), reasoning_id(reply),
        )  # fmt: skip
        self._replies.add(history.namespace, history.thread, said)
        self._replies.place(history.thread, place, own, said)
        self._seen.note(history.key, (*history.contents, content))
        self._answered.append(Before(history, reply, frame.tools or [], grown))
        self._keep(asked, Standing(own, place, built.base, built.base_end, grown, said))

    def forget(self, threads: Collection[MessageId]) -> None:
        """Remember nothing of these conversations any more, but what others of them still hold."""
        self._answered = deque(
            (b for b in self._answered if b.history.thread not in threads), self._answered.maxlen
        )
        for asked in self._asked:
            if asked.history.thread in threads:
                self._asked.drop(asked.history.head)
                self._seen.forget(asked.history.key)
                for end in asked.history.ids:
                    self._records.drop(end)
                    self._records.drop(reply_key(end))
        for thread in threads:
            for gone in self._replies.forget(thread):
                self._records.drop(reply_key(gone))
            self._times.pop(thread, None)
            self._tools.pop(thread, None)
            self._unknown.pop(thread, None)
        self._reminders.forget(threads)
        self._prompts.clear()

    def explain(self, prompt: Prompt) -> Miss | None:
        """Where and why this prompt is not what was read before. Decodes it: not for a hit."""
        asked = self._asked.get(prompt.head)
        if asked is None:
            return None
        return compare(
            self._codec,
            self._pieces,
            asked.history,
            asked.frame.tools or [],
            prompt.tokens,
            self._answered,
            self._rewrites(asked),
        )

    def unknown(self, prompt: Prompt) -> str:
        """Why no reply in this history is known; empty where one is, or none is there."""
        asked = self._asked.get(prompt.head)
        if asked is None or all(m.role != "assistant" for m in asked.history.messages):
            return ""
        if asked.built.base or self._extends(asked.history):
            return ""
        others = self._store.others(asked.history.thread) if self._store else 0
        if others:
            return "another model, or this one with another template, held this conversation"
        all_new = asked.built.new_tokens == len(prompt.tokens)
        return "the server does not know this conversation" if all_new else ""

    def moved(self, prompt: Prompt) -> Miss | None:
        """Why a conversation that goes on is another one now, all of it new: what its replies once
        stood behind, tools or system prompt, is not what it was."""
        asked = self._asked.get(prompt.head)
        if asked is None or not asked.built.rebuilt:
            return None
        found = self.explain(prompt)
        return found if found and found.part in ("head", "system", "tools") else None

    def _rewrites(self, asked: BuiltPrompt) -> str:
        """Why past replies may stand in a prompt in other words than the model's."""
        if asked.mode == "template":
            return "history is set to template, which writes past replies in its own words"
        messages = asked.history.messages
        covered = self.proof.covered(messages)
        if any(m.role == "assistant" and not c for m, c in zip(messages, covered, strict=True)):
            return f"replies cannot be put back into this template: {self.proof.reason}"
        return ""

    def _history(self, request: Request) -> tuple[History, tuple[Tool, ...]]:
        """The request's history and its tools; without any, those of what it extends."""
        history = self._chain(request)
        if not history.messages:
            raise RequestError("There is nothing to answer in these messages.", param="messages")
        if self._recall(request, history):
            history = self._chain(request)
        if request.tools:
            self._tools.put(history.thread, request.tools)
            return history, request.tools
        tools = self._tools.use(history.thread)
        if tools and not self._extends(history):
            other = self._chain(replace(request, tools=tools))
            if self._extends(other):
                return other, tools
        return history, ()

    def _chain(self, request: Request) -> History:
        return self._chains.history(request, sticky=self._is_sticky(request))

    def _note_reminders(self, request: Request, history: History) -> None:
        if self._is_sticky(request):
            self._reminders.note(history.namespace, history.thread, history.messages, history.ids)

    def _is_sticky(self, request: Request) -> bool:
        own = request.sticky_reminders
        return self._sticky if own is None else own

    def _extends(self, history: History) -> bool:
        """Whether a reply in this history is remembered."""
        return any(reply_key(i) in self._records for i in reversed(history.ids))

    def _head(self, args: Mapping[str, Any]) -> str:
        """A small conversation up to a reply, as the template writes it with these arguments."""
        said = (Message("assistant", (Text("a"),)), Message("user", (Text("u"),)))
        try:
            return self._splicer.render(
                (said[1], *said), Frame(None, args, datetime(2001, 2, 3)), scaffold=False
            )
        except RequestError:
            return json.dumps(dict(args), sort_keys=True, default=str)

    def _time(self, history: History) -> datetime:
        """The time that the conversation began: its date stays, or midnight would change all."""
        known, now = self._times.use(history.thread), self._clock()
        fresh = all(m.role != "assistant" for m in history.messages)
        if known is None or (fresh and known.date() != now.date()):
            known = now
            self._times.put(history.thread, known)
        return known

    def may_think(self, prompt: Prompt) -> bool:
        """Whether a reply may open reasoning itself: the prompt neither opened nor closed any."""
        think = self.dialect.reasoning
        if think is None or prompt.opens_reasoning:
            return False
        return not self._ends(prompt.tokens[-16:], think[1])

    def _opens_reasoning(self, record: TokenRecord) -> bool:
        think = self.dialect.reasoning
        tail = record.path.tokens[max(0, record.end - 16) : record.end]
        return think is not None and self._ends(tail, think[0])

    def _ends(self, tokens: Tokens[int], marker: str) -> bool:
        """Whether a prompt ends with this marker."""
        return self._codec.decode(tokens).rstrip().endswith(marker.rstrip())

    # --- what outlives this process ---

    def _recall(self, request: Request, history: History) -> bool:
        """Load what is kept of the conversation. Whether there was anything."""
        threads = set[MessageId]()
        if self._is_sticky(request):
            threads = self._reminders.recall(history.namespace, history.messages)
        found = [self._recall_thread(history, t) for t in {history.thread, *threads}]
        return bool(threads) or any(found)

    def _recall_thread(self, history: History, thread: MessageId) -> bool:
        if self._store is None or thread in self._replies or thread in self._unknown:
            return False
        called = [calls_key(m) for m in history.messages if m.tool_calls]
        elsewhere = self._store.called(history.namespace, called)
        for k in elsewhere:  # a compacted conversation begins with another message
            self._replies.add_called(history.namespace, k.thread, k.reply)
        kept = self._store.load(thread)
        if not kept:
            self._unknown.put(thread, True)
        for k in kept:
            self._replies.add(history.namespace, thread, k.reply)
            base = self._records.get(reply_key(k.base)) if k.base else None
            if base is None and k.base:
                continue
            record = (base or TokenRecord(TokenPath(), 0)).extend(k.tokens, k.marks)
            self._records.put(reply_key(k.id), record)
            self._replies.place(thread, k.place, k.id, k.reply)
            self._times.put(thread, datetime.fromtimestamp(k.at))
            if k.tools:
                self._tools.put(thread, tuple(Tool(*t) for t in json.loads(k.tools)))
        return bool(kept or elsewhere)

    def _keep(self, asked: BuiltPrompt, said: Standing) -> None:
        if self._store is None or asked.mode == "template" or not self.verbatim:
            return
        history, frame = asked.history, asked.frame
        self._unknown.pop(history.thread, None)
        self._reminders.keep(history.thread)
        tools = self._tools.get(history.thread, ()) if frame.tools else ()
        self._store.keep(
            Kept(
                namespace=history.namespace,
                thread=history.thread,
                id=said.id,
                place=said.place,
                base=said.base,
                tokens=said.record.path.tokens[said.base_end : said.record.end],
                marks=tuple(m for m in said.record.marks if m.at >= said.base_end),
                reply=said.reply,
                at=frame.now.timestamp(),
                tools=json.dumps([[t.name, t.description, t.parameters] for t in tools])
                if tools
                else "",
            )
        )


def reply_key(reply_id: MessageId) -> MessageId:
    """Replies and prompts end differently at the same history: a prompt has its scaffold."""
    return MessageId("reply:" + reply_id)
