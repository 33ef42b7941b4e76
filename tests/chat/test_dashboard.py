"""What a person watches is what happened: the tree, the sums, the metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import zoo
from held import Client, holding, settle

SYSTEM = "You answer in few words. " * 30


def tree(client: Client) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = client.get("/api/cache/tree")["nodes"]
    return nodes


def test_the_tree_shows_who_shares_what(tmp_path: Path, smollm2: Path) -> None:
    model, home = zoo.save("qwen3_5", tmp_path / "model", smollm2), tmp_path / "home"
    with holding(model, home) as client:
        one, two = client.new(system=SYSTEM), client.new(system=SYSTEM)
        client.say(one, "Which way is north?")
        settle(client)
        client.say(two, "Where is the sea? " * 20)
        settle(client)
        answer = client.get("/api/cache/tree")
        nodes, totals = answer["nodes"], answer["totals"]
        by_id = {n["id"]: n for n in nodes}
        shared = [n for n in nodes if set(n["sessions"]) == {one, two}]
        own = [n for n in nodes if n["sessions"] == [two]]
        assert shared and own and all(n["tier"] == "both" for n in shared)
        assert all(n["parent"] is None or by_id[n["parent"]]["to"] == n["from"] for n in nodes)
        assert sum(n["tokens"] for n in nodes) == totals["tree_tokens"]
        assert abs(sum(n["bytes"] for n in nodes) - totals["cache_bytes"]) <= len(nodes)
        assert any(n["checkpoints"] for n in nodes)
        leaf = max(own, key=lambda n: n["to"])
        pinned = client.post("/api/cache/pin", {"node": leaf["id"], "pinned": True})
        assert pinned == {"node": leaf["id"], "pinned": True}
        assert [n["id"] for n in tree(client) if n["pinned"]] == [leaf["id"]]
    with holding(model, home) as client:
        assert all(n["tier"] == "disk" for n in tree(client))
        (leaf,) = [n for n in tree(client) if n["pinned"]]
        assert leaf["sessions"] == [two]
        client.post("/api/cache/pin", {"node": leaf["id"], "pinned": False})
        assert not any(n["pinned"] for n in tree(client))
        assert client.post("/api/cache/drop", {"node": leaf["id"]})["bytes"] > 0
        assert leaf["id"] not in [n["id"] for n in tree(client)]
        assert client.ask("POST", "/api/cache/drop", {"node": leaf["id"]})[0] == 404
        assert client.ask("POST", "/api/cache/pin", {"node": 10**9})[0] == 404
        assert client.ask("POST", "/api/cache/pin", {"node": "x"})[0] == 400
        turn = client.say(one, "And south?")["message"]["turn"]
        assert turn["prefilled_tokens"] <= turn["new_tokens"]


def test_sums_are_those_of_the_turns(tmp_path: Path, smollm2: Path) -> None:
    model = zoo.save("llama", tmp_path / "model", smollm2)
    with holding(model, tmp_path / "home", "--no-disk") as client:
        session = client.new(system=SYSTEM)
        for text in ("One", "Two", "Three"):
            client.say(session, text)
        changed = {"system": "Another.", "temperature": 0.0, "max_tokens": 6}  # all are replaced
        client.ask("PATCH", f"/api/sessions/{session}", {"settings": changed})
        client.say(session, "Four")
        turns = client.get("/api/turns")["turns"]
        board = client.get("/api/dashboard")
        ps = client.get("/api/ps")
        metrics = client.get("/metrics").decode()
    total = board["totals"]
    assert total["turns"] == len(turns) == 4
    assert total["tokens_saved"] == sum(t["cached_tokens"] for t in turns)
    read, new = (sum(t[k] for t in turns) for k in ("prefilled_tokens", "new_tokens"))
    assert total["reprocess_ratio"] == read / new
    assert total["again"] == sum(t["again"] for t in turns)
    assert ps["totals"] == total
    assert sum(b["count"] for b in board["ttft"]["buckets"]) == 4
    assert board["misses"][0]["turn"] == turns[0]["id"]
    assert board["misses"][0]["miss"] == turns[0]["miss"]
    assert board["logs"] and all("Four" not in line["text"] for line in board["logs"])
    assert board["memory"]["cache_budget_bytes"] > 0 and board["running"] == []
    values = dict(re.findall(r"^(everwarm_\S+) (\S+)$", metrics, re.M))
    assert float(values["everwarm_prefilled_tokens_total"]) == read
    assert float(values["everwarm_again_tokens_total"]) == total["again"]
    assert float(values["everwarm_ttft_seconds_count"]) == 4
    ended = [float(v) for k, v in values.items() if k.startswith("everwarm_turns_total{")]
    assert sum(ended) == 4
    assert float(values['everwarm_engine{what="cache_bytes"}']) > 0
