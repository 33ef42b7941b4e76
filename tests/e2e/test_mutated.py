"""Bodies that are almost right, sent to a running server: no answer is a fault of the server's,
and a stream beside them is not disturbed.

`EVERWARM_MUTATIONS=10000` sends as many; the suite sends fewer.
"""

from __future__ import annotations

import collections
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_bodies import CLAUDE_CODE, CODEX, OPENCLAW, PI
from mutations import COMPLETION, ODD, PROMPTS, REFERRING, places, put
from serving import Server, save_talker, serving, sse

N = int(os.environ.get("EVERWARM_MUTATIONS", "300"))
SHORT = {"everwarm": {"reply": "Yes."}}
"""Where a mutation takes this away, the field beside it keeps the answer short."""

CASES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", OPENCLAW | SHORT | {"max_completion_tokens": 4}),
    ("/v1/chat/completions", PI | SHORT | {"max_completion_tokens": 4}),
    ("/v1/messages", CLAUDE_CODE | SHORT | {"max_tokens": 4}),
    ("/v1/messages/count_tokens", CLAUDE_CODE),
    ("/v1/responses", CODEX | SHORT | {"max_output_tokens": 4}),
    ("/v1/responses", REFERRING | SHORT | {"max_output_tokens": 4}),
    ("/v1/completions", COMPLETION | SHORT),
    ("/v1/completions", PROMPTS | SHORT),
    ("/v1/chat/completions", {"messages": PI["messages"], "n": 3, "max_tokens": 2} | SHORT),
]
STORY = " ".join(str(n) for n in range(50))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    model = save_talker(tmp_path_factory.mktemp("model"), smollm2)
    with serving(model, "--forced-replies", "--context-length", "1024") as running:
        yield running


def told(server: Server) -> str:
    """A stream's text, from beginning to end."""
    body = {
        "messages": [{"role": "user", "content": "Count."}],
        "stream": True,
        "everwarm": {"reply": STORY},
    }
    status, raw, _ = server.call("POST", "/v1/chat/completions", body)
    assert status == 200
    *chunks, end = [data for _, data in sse(raw)]
    assert end == "[DONE]"
    return "".join(c["delta"].get("content") or "" for d in chunks for c in d["choices"])


def mutated(rng: random.Random) -> tuple[str, Any]:
    path, body = rng.choice(CASES)
    asked: Any = {**body, "model": "default"}
    for _ in range(rng.randint(1, 3)):
        if not isinstance(asked, dict) or not asked:
            break
        how = rng.choice(["replace", "replace", "remove", "add"])
        asked = put(asked, rng.choice(list(places(asked))), rng.choice(ODD), how=how)
    return path, asked


def test_no_answer_is_a_fault_and_no_stream_is_disturbed(server: Server) -> None:
    over = threading.Event()
    stories: list[str] = []

    def tell() -> None:
        while not over.is_set():
            stories.append(told(server))

    beside = threading.Thread(target=tell)
    beside.start()
    rng = random.Random(N)
    seen: collections.Counter[int] = collections.Counter()
    try:
        for _ in range(N):
            path, body = mutated(rng)
            status, answer, _ = server.call("POST", path, body)
            seen[status] += 1
            assert status < 500, (path, json.dumps(body), answer)
            assert status == 200 or answer["error"]["message"]
    finally:
        over.set()
        beside.join()
    print(dict(seen), f"{len(stories)} streams beside them")
    assert stories and set(stories) == {STORY}
    assert seen[200] > N // 20 and seen[400] > N // 20
