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
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime

from everwarm.codec import Codec
from everwarm.errors import RequestError
from everwarm.messages import Message, MessageId, calls_key, child_id, content_id, reasoning_id
from everwarm.prompt.bounded import Bounded
from everwarm.prompt.build import Builder, PlacedReply, PromptTokens
from everwarm.prompt.built_prompt import BuiltPrompt, BuiltPrompts
from everwarm.prompt.chain import Chains, History
from everwarm.prompt.conversation import Conversations
from everwarm.prompt.dialects import families
from everwarm.prompt.encoder import TextEncoder
from everwarm.prompt.length import Length
from everwarm.prompt.persistence import Persistence
from everwarm.prompt.probe import probed
from everwarm.prompt.proof import prove
from everwarm.prompt.reminders import Reminders
from everwarm.prompt.splice import Frame
from everwarm.prompt.template_input import shows_name, tool_dicts
from everwarm.prompt.thinking import Thinking
from everwarm.prompt.token_records import TokenPath, TokenRecord, TokenRecords, reply_key
from everwarm.prompt.why import AnsweredTurn, Evidence
from everwarm.replies import Reply, ReplyStore, reply_id
from everwarm.request import HistoryMode, Request, Tool
from everwarm.tokens import Prompt, Tokens, tokens_of


class Renderer:
    """Renders conversations and remembers their exact tokens. Used from one thread.

    `splicer`, `proof`, `markers`, `length`, `fitted` and `ignored` do not change: any thread may
    use them.
    """

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
        self._codec, self._clock = codec, clock
        self._mode, self._sticky = history, sticky_reminders
        self.length: Length | None = None
        if context_length:
            self.bound(context_length)
        self.dialect = families.of(codec)
        splicer = probed(codec, self.dialect, control_tokens_in_text=control_tokens_in_text)
        self.splicer, self.proof = splicer, prove(splicer)
        self._thinking = Thinking(codec, self.dialect, splicer)
        self.markers = self._thinking.markers
        self._encoder = TextEncoder(codec, splicer.quotes)
        self._conversations, self._records = Conversations(), TokenRecords()
        self._reminders = Reminders(store)
        self._persistence = Persistence(store, self._conversations, self._records, self._reminders)
        self._chains = Chains(splicer, self._conversations, self._reminders)
        self._builder = Builder(
            splicer, self._encoder, self._records, self._conversations, self.proof
        )
        self._built = BuiltPrompts()
        self._repeats: Bounded[object, tuple[TokenRecord, Prompt]] = Bounded(64)
        self._answered: deque[AnsweredTurn] = deque(maxlen=64)

    def bound(self, context_length: int) -> None:
        """Refuse conversations that are longer. Any thread may call it."""
        if self.length is None or self.length.context != context_length:
            self.length = Length(self._codec, context_length)

    @property
    def verbatim(self) -> bool:
        """Whether replies come back word for word, unless a request asks for the template."""
        return self._mode == "verbatim" and bool(self.proof.proved)

    def fitted(self, request: Request) -> Request:
        """The request in words that the template takes."""
        return replace(request, template_args=self._thinking.fitted(request.template_args))

    def ignored(self, request: Request) -> tuple[str, ...]:
        """Paths of what the model has no place for: names that its template does not write, and
        tools, where it has no notation for calls."""
        habits = self.splicer.habits
        lost = any(m.name and not shows_name(m, habits) for m in request.messages)
        idle = bool(request.tools or request.deferred) and not self.dialect.calls
        return (*(("messages[].name",) if lost else ()), *(("tools",) if idle else ()))

    def may_think(self, prompt: Prompt) -> bool:
        """Whether a reply may open reasoning: the prompt neither opened nor closed any."""
        return self._thinking.may_open(prompt.tokens)

    def prompt(self, request: Request) -> Prompt:
        """The tokens to read for this request.

        Raises RequestError where the template refuses, or where it is far too long.
        """
        if self.length is not None:
            self.length.check_request(request)
        history, tools = self._history(request)
        conversation = self._conversations.of(history.thread)
        now = conversation.time(self._clock(), is_new=not history.has_replies)
        frame = Frame(tool_dicts(tools) or None, request.template_args, now)
        mode = request.history or self._mode
        key = _repeat_key(history, frame, mode)
        repeat = self._repeats.use(key)
        built = None if repeat else self._build(history, frame, mode)
        if self._is_sticky(request):
            self._reminders.note(history.namespace, history.thread, history.messages, history.ids)
        if built is None:
            assert repeat is not None
            return _repeated(history, *repeat)
        prompt = self._prompt_of(history, built, kept_tools=tools != request.tools)
        self._repeats.put(key, (built.record, replace(prompt, tokens=tokens_of(), messages=())))
        self._records.put(history.head, built.record)
        asked = self._built.put(BuiltPrompt(history, frame, built, mode))
        for placed in built.rebuilt:  # replies behind an edited message: others will build on them
            self._keep(asked, placed)
        return prompt

    def begun(self, prompt: Prompt, reply: Message) -> Tokens[int]:
        """The tokens of a reply to this prompt that was cut, as the model wrote them.

        Raises RequestError where they are not remembered.
        """
        record = self._records.get(reply_key(reply_id(prompt.head, reply)))
        n = len(prompt.tokens)
        if record is None or record.end <= n or record.path.tokens[:n] != prompt.tokens:
            raise RequestError(
                "The tokens of this reply are not remembered any more. Make it anew instead.",
                param="message",
                code="reply_not_remembered",
            )
        return record.path.tokens[n : record.end]

    def remember(self, prompt: Prompt, reply_ids: Sequence[int], reply: Message) -> None:
        """Remember what the model wrote, so that it comes back word for word."""
        record = self._records.get(prompt.head)
        if record is None or record.tokens != prompt.tokens:
            record = TokenRecord(
                TokenPath(prompt.tokens[:], list(prompt.marks)), len(prompt.tokens)
            )
        grown = record.extend(reply_ids)
        content = content_id(reply)
        own, place = reply_id(prompt.head, reply), child_id(prompt.head, content)
        self._records.put(reply_key(own), grown)
        asked = self._built.get(prompt.head)
        if asked is None:
            return
        history, frame, built = asked.history, asked.frame, asked.built
        said = Reply(
            tokens_of(reply_ids),
            content,
            before=next((c for c in reversed(history.contents) if c), b""),
            index=len(history.messages),
            text=reply.text.strip(),
            calls=calls_key(reply),
            args=dict(frame.args),
            reasoning=reasoning_id(reply),
        )
        self._conversations.add(history.namespace, history.thread, said)
        self._conversations.of(history.thread).place(place, own, said)
        self._conversations.hold(history.thread, history.key, (*history.contents, content))
        self._answered.append(AnsweredTurn(history, reply, frame.tools or [], grown))
        self._keep(asked, PlacedReply(own, place, built.base, built.base_end, grown, said))

    def forget(self, threads: Collection[MessageId]) -> None:
        """Forget these conversations, but what others of them still hold."""
        self._answered = deque(
            (b for b in self._answered if b.history.thread not in threads), self._answered.maxlen
        )
        for asked in self._built:
            if asked.history.thread in threads:
                self._built.drop(asked.history.head)
                for end in asked.history.ids:
                    self._records.drop(end)
                    self._records.drop(reply_key(end))
        for thread in threads:
            for gone in self._conversations.forget(thread):
                self._records.drop(reply_key(gone))
        self._reminders.forget(threads)
        self._repeats.clear()

    def evidence(self, prompt: Prompt) -> Evidence | None:
        """What is remembered of this prompt, to say why it was a miss. May read files."""
        asked = self._built.get(prompt.head)
        if asked is None:
            return None
        history = asked.history
        is_known = bool(asked.built.base) or self._has_reply(history)
        is_unknown = history.has_replies and not is_known
        return Evidence(
            self._codec,
            self._encoder,
            self.proof,
            asked,
            tuple(self._answered),
            is_unknown=is_unknown,
            is_of_others=is_unknown and self._persistence.is_of_others(history.thread),
        )

    # --- steps of `prompt` ---

    def _history(self, request: Request) -> tuple[History, tuple[Tool, ...]]:
        """The request's history and its tools; without any, those of what it extends."""
        history = self._chain(request)
        if not history.messages:
            raise RequestError("There is nothing to answer in these messages.", param="messages")
        if self._persistence.load(history, sticky=self._is_sticky(request)):
            history = self._chain(request)
        conversation = self._conversations.of(history.thread)
        if request.tools:
            conversation.tools = request.tools
            return history, request.tools
        tools = conversation.tools
        if tools and not self._has_reply(history):
            other = self._chain(replace(request, tools=tools))
            if self._has_reply(other):
                return other, tools
        return history, ()

    def _chain(self, request: Request) -> History:
        return self._chains.history(request, sticky=self._is_sticky(request))

    def _is_sticky(self, request: Request) -> bool:
        own = request.sticky_reminders
        return self._sticky if own is None else own

    def _has_reply(self, history: History) -> bool:
        """Whether a reply in this history is remembered."""
        return any(reply_key(i) in self._records for i in reversed(history.ids))

    def _build(self, history: History, frame: Frame, mode: HistoryMode) -> PromptTokens:
        """A prompt's tokens. Nothing is remembered of one that is refused."""
        held = self._conversations.held(
            history.key, history.contents, history.ids[1:], lambda i: reply_key(i) in self._records
        )
        built = self._builder.build(history, frame, held, verbatim=mode != "template")
        if self.length is not None:
            self.length.check_made(built.record.end)
        self._conversations.hold(history.thread, history.key, history.contents)
        return built

    def _prompt_of(self, history: History, built: PromptTokens, *, kept_tools: bool) -> Prompt:
        record = built.record
        tokens = record.tokens
        return Prompt(
            tokens,
            tuple(m for m in record.marks if 0 < m.at < record.end),
            built.new_tokens,
            history.head,
            self._thinking.is_open(tokens),
            kept_tools=kept_tools,
            thread=history.thread,
            reminded=len(history.reminded),
            messages=history.messages,
        )

    def _keep(self, asked: BuiltPrompt, placed: PlacedReply) -> None:
        if asked.mode != "template" and self.verbatim:
            self._persistence.keep(asked.history, asked.frame, placed)


def _repeat_key(history: History, frame: Frame, mode: HistoryMode) -> object:
    """What two requests have in common that are given the same prompt."""
    last = history.messages[-1].text
    marker = last if "<total_tokens>" in last else ""
    return history.head, mode, frame.now, json.dumps(dict(frame.args), sort_keys=True), marker


def _repeated(history: History, record: TokenRecord, prompt: Prompt) -> Prompt:
    """A prompt that was built before, for the messages of now."""
    return replace(
        prompt,
        tokens=record.tokens,
        new_tokens=0,
        reminded=len(history.reminded),
        messages=history.messages,
    )
