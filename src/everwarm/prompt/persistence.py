"""What is remembered of conversations beyond this process: replies, tools, times, reminders."""

from __future__ import annotations

import json
from datetime import datetime

from everwarm.messages import MessageId, calls_key
from everwarm.prompt.build import PlacedReply
from everwarm.prompt.chain import History
from everwarm.prompt.conversation import Conversations
from everwarm.prompt.reminders import Reminders
from everwarm.prompt.splice import Frame
from everwarm.prompt.token_records import TokenPath, TokenRecord, TokenRecords, reply_key
from everwarm.replies import Kept, ReplyStore
from everwarm.request import Tool


class Persistence:
    """Loads conversations from a store and keeps them there. Live: owned by the render thread."""

    def __init__(
        self,
        store: ReplyStore | None,
        conversations: Conversations,
        records: TokenRecords,
        reminders: Reminders,
    ) -> None:
        self._store, self._conversations = store, conversations
        self._records, self._reminders = records, reminders

    def load(self, history: History, *, sticky: bool) -> bool:
        """Load what the store has of a conversation, once. Whether there was anything."""
        threads = set[MessageId]()
        if sticky:
            threads = self._reminders.recall(history.namespace, history.messages)
        found = [self._load(history, t) for t in {history.thread, *threads}]
        return bool(threads) or any(found)

    def _load(self, history: History, thread: MessageId) -> bool:
        conversation = self._conversations.of(thread)
        if self._store is None or conversation.is_loaded:
            return False
        conversation.is_loaded = True
        called = [calls_key(m) for m in history.messages if m.tool_calls]
        elsewhere = self._store.called(history.namespace, called)
        for k in elsewhere:  # a compacted conversation begins with another message
            self._conversations.add_called(history.namespace, k.thread, k.reply)
        kept = self._store.load(thread)
        for k in kept:
            self._conversations.add(history.namespace, thread, k.reply)
            base = self._records.get(reply_key(k.base)) if k.base else None
            if base is None and k.base:
                continue
            record = (base or TokenRecord(TokenPath(), 0)).extend(k.tokens, k.marks)
            self._records.put(reply_key(k.id), record)
            conversation.place(k.place, k.id, k.reply)
            conversation.began = datetime.fromtimestamp(k.at)
            if k.tools:
                conversation.tools = tuple(Tool(*t) for t in json.loads(k.tools))
        return bool(kept or elsewhere)

    def keep(self, history: History, frame: Frame, placed: PlacedReply) -> None:
        """Keep a reply, and what is new of its conversation's reminders."""
        if self._store is None:
            return
        self._reminders.keep(history.thread)
        tools = self._conversations.of(history.thread).tools if frame.tools else ()
        spelled = json.dumps([[t.name, t.description, t.parameters] for t in tools])
        self._store.keep(
            Kept(
                namespace=history.namespace,
                thread=history.thread,
                id=placed.id,
                place=placed.place,
                base=placed.base,
                tokens=placed.record.path.tokens[placed.base_end : placed.record.end],
                marks=tuple(m for m in placed.record.marks if m.at >= placed.base_end),
                reply=placed.reply,
                at=frame.now.timestamp(),
                tools=spelled if tools else "",
            )
        )

    def is_of_others(self, thread: MessageId) -> bool:
        """Whether other models gave replies in this conversation."""
        return self._store is not None and bool(self._store.others(thread))
