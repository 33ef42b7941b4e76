"""Send requests with dictated replies to an everwarm server, and record what each cost.

The server must have been started with `--forced-replies`: then equal messages make equal
conversations on every model. A run that is resumed repeats the requests of the interrupted one, so
that the server is as warm as it was, and records only what follows them.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from everwarm.client import ChatClient, ChatReply
from everwarm.errors import EngineError
from everwarm.lab.conversation import TOOLS, WORDS
from everwarm.lab.inside import PHASES, Inside
from everwarm.lab.result import Result

COUNTS: Final = ("new_tokens", "unseen_tokens", "cached_from", "miss")
SAME: Final = ("kind", "prompt_tokens")


@dataclass(slots=True)
class AgentLine:
    """One agent's conversation. Live."""

    name: str
    messages: list[dict[str, Any]]
    tokens: int = 0
    called: list[dict[str, Any]] = field(default_factory=list)

    def answered(self, reply: ChatReply) -> None:
        """Append the reply, as a client does, and remember the calls that need a result."""
        said: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if reply.calls:
            said["tool_calls"] = list(reply.calls)
        self.messages.append(said)
        self.called = list(reply.calls)
        self.tokens = reply.prompt_tokens + reply.completion_tokens

    def result(self, text: str) -> None:
        """Append a tool's result; as a user's message where the model has no tools."""
        if not self.called:
            self.messages.append({"role": "user", "content": f"Result:\n{text}"})
            return
        for call in self.called:
            result = {"role": "tool", "tool_call_id": call["id"], "content": text}
            self.messages.append(result)


class Dictated:
    """One server that writes what it is told to. Live: one thread. Raises EngineError."""

    def __init__(self, client: ChatClient, result: Result) -> None:
        self._client, self.result = client, result
        self._inside = Inside(client)
        self._before, self._spent = len(result.rows), result.seconds
        self._asked = 0
        self._began = time.monotonic()
        if not self._inside.ours:
            raise EngineError(
                f"{client.url} does not tell what it read (/api/turns); `bench session` measures "
                "everwarm servers, started with --forced-replies."
            )

    def ask(self, kind: str, line: AgentLine, reply: str, *, tools: bool = True) -> dict[str, Any]:
        """Ask for exactly this reply, append it to the conversation, and return its row."""
        params: dict[str, Any] = {"tools": TOOLS} if tools else {}
        params["everwarm"] = {"reply": reply}
        said = self._client.ask(line.messages, model=self.result.model, temperature=0, **params)
        line.answered(said)
        row = self._row(kind, line, said)
        self._asked += 1
        if self._asked <= self._before:
            return self._filed(row)
        self.result.rows.append(row)
        self.result.seconds = self._spent + time.monotonic() - self._began
        return row

    def time_left(self, done: float) -> float:
        """Seconds to the end. Later requests have longer prompts, and take longer."""
        share: float = min(0.99, max(0.001, done)) ** 1.5
        return self.result.seconds * (1 / share - 1)

    def _filed(self, row: dict[str, Any]) -> dict[str, Any]:
        filed = self.result.rows[self._asked - 1]
        if any(filed[k] != row[k] for k in SAME):
            raise EngineError(
                f"Request {self._asked} is not the one that was measured: {row['prompt_tokens']:,} "
                f"tokens, not {filed['prompt_tokens']:,}. Another model, or another version?"
            )
        return filed

    def _row(self, kind: str, line: AgentLine, reply: ChatReply) -> dict[str, Any]:
        record = self._inside.record(reply.prompt_tokens)
        return {
            "kind": kind,
            "line": line.name,
            "messages": len(line.messages) - 1,
            "prompt_tokens": reply.prompt_tokens,
            "cached_tokens": reply.cached_tokens,
            "prefilled_tokens": reply.prefilled_tokens,
            "completion_tokens": reply.completion_tokens,
            "called": len(reply.calls),
            "ttft_s": reply.ttft_s or reply.total_s,
            "phases": {k: record[k] for k in PHASES if k in record},
            **{k: record[k] for k in COUNTS if k in record},
            **self._inside.memory(),
        }


def calling(said: str, random: Random) -> str:
    """A reply that calls a tool, as models of the Hermes kind write it."""
    path = "/".join(random.choices(WORDS, k=3))
    arguments = {"path": path, "offset": random.randint(0, 900)}
    call: dict[str, Any] = {"name": "read_file", "arguments": arguments}
    return f"{said}\n<tool_call>\n{json.dumps(call)}\n</tool_call>"
