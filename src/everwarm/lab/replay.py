"""Send a client's recorded requests again, and count what the server reads for each.

The replies are dictated (`--forced-replies`), so that they are those of the recording; all else is
real. A client echoes the ids of the calls that it was given, so the recording's ids are replaced by
this server's, wherever the wire format has them. Needs `/api/turns`.

A request that is refused is named, and the next one is sent: nothing counted is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from everwarm.client import ChatClient
from everwarm.errors import EngineError, RequestError
from everwarm.events import beyond_new
from everwarm.lab.recorded_session import RecordedExchange, exchanges

ID_FIELDS = frozenset({"id", "tool_call_id", "tool_use_id", "call_id"})
"""Where chat completions, messages and responses keep the id of a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCost:
    """What one recorded request cost."""

    seq: int
    phase: str
    prompt: int
    new: int
    unseen: int
    prefilled: int
    completion: int
    miss: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRequest:
    """A recorded request that was not answered.

    `status` None: there was no answer, or another one than was dictated. `message`: the server's.
    """

    seq: int
    phase: str
    path: str
    status: int | None
    message: str

    def __str__(self) -> str:
        status = "" if self.status is None else f" with {self.status}"
        place = f"request {self.seq} ({self.phase}, {self.path})"
        return f"{place} failed{status}: {self.message}"


@dataclass(frozen=True, slots=True)
class CostSums:
    """Requests together. An empty denominator counts as one token.

    `again`: tokens read beyond what was new, request by request: what one request reads less (it
    shares its head with another conversation) makes up for nothing in another.
    """

    name: str
    requests: int
    prompt: int
    new: int
    unseen: int
    prefilled: int
    again: int

    @property
    def cache_ratio(self) -> float:
        """Tokens read for each that the model had never read."""
        return self.prefilled / max(1, self.unseen)

    @property
    def reprocess_ratio(self) -> float:
        """Tokens read for each that the client added."""
        return self.prefilled / max(1, self.new)

    def as_dict(self) -> dict[str, Any]:
        """Counts and ratios."""
        ratios = {"cache_ratio": self.cache_ratio, "reprocess_ratio": self.reprocess_ratio}
        return asdict(self) | {k: round(v, 4) for k, v in ratios.items()}


def sums(name: str, reads: Sequence[RequestCost]) -> CostSums:
    """Add up."""
    counts = ("prompt", "new", "unseen", "prefilled")
    totals = {c: sum(getattr(r, c) for r in reads) for c in counts}
    again = sum(beyond_new(r.prefilled, r.new) for r in reads)
    return CostSums(name=name, requests=len(reads), again=again, **totals)


def phases(reads: Sequence[RequestCost]) -> list[CostSums]:
    """The sums of each phase, in order of appearance."""
    names = dict.fromkeys(r.phase for r in reads)
    return [sums(n, [r for r in reads if r.phase == n]) for n in names]


def worst(reads: Iterable[RequestCost], n: int = 5) -> list[RequestCost]:
    """The requests that read most beside what was new."""
    over = sorted(reads, key=lambda r: r.new - r.prefilled)
    return [r for r in over[:n] if beyond_new(r.prefilled, r.new)]


def replay(client: ChatClient, path: Path) -> Iterator[RequestCost | FailedRequest]:
    """Send the requests of one recording, in order, and yield what each cost.

    Goes on behind a request that is refused; one that the server fails at is the last.
    """
    issued: dict[str, str] = {}
    model = client.models()[0]
    for exchange in exchanges(path):
        try:
            if (read := _sent(client, exchange, model, issued)) is not None:
                yield read
        except RequestError as refused:
            yield _failed(exchange, refused.status, refused.message)
        except EngineError as failed:
            yield _failed(exchange, None, failed.message)
            return


def _sent(
    client: ChatClient, exchange: RecordedExchange, model: str, issued: dict[str, str]
) -> RequestCost | None:
    """Send one request; what it cost, or None where it asked for no tokens."""
    body = {**_echoed(exchange.body, issued), "model": model}
    if exchange.reply is None:
        client.post(exchange.path, body)
        return None
    body["everwarm"] = {"reply": exchange.reply.written()}
    ids = list(dict.fromkeys(_calls(client.post(exchange.path, body))))
    recorded = [c.id for c in exchange.reply.calls]
    if len(ids) != len(recorded):
        raise EngineError(f"{len(recorded)} calls were dictated, {len(ids)} were answered.")
    issued |= {_key(r): i for r, i in zip(recorded, ids, strict=True)}
    return _read(exchange, client.get("/api/turns?limit=1")["turns"][0])


def _failed(exchange: RecordedExchange, status: int | None, message: str) -> FailedRequest:
    return FailedRequest(
        seq=exchange.seq, phase=exchange.phase, path=exchange.path, status=status, message=message
    )


def _read(exchange: RecordedExchange, record: dict[str, Any]) -> RequestCost:
    counts = ("prompt", "new", "unseen", "prefilled", "completion")
    told = {c: record[f"{c}_tokens"] for c in counts}
    return RequestCost(seq=exchange.seq, phase=exchange.phase, miss=record["miss"], **told)


def _key(call_id: str) -> str:
    """A call's id without what clients remove from it or put before it."""
    plain = "".join(c for c in call_id if c.isalnum())
    return plain.removeprefix("toolu").removeprefix("call")


def _echoed(value: Any, issued: dict[str, str]) -> Any:
    """The body with this server's ids in place of the recorded ones."""

    def put(field: str, found: Any) -> Any:
        known = field in ID_FIELDS and isinstance(found, str)
        return issued.get(_key(found), found) if known else found

    return _mapped(value, put)


def _mapped(value: Any, put: Callable[[str, Any], Any]) -> Any:
    if isinstance(value, dict):
        return {k: put(k, _mapped(v, put)) for k, v in value.items()}
    if isinstance(value, list):
        return [_mapped(v, put) for v in value]
    return value


def _calls(answer: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The ids of the calls in a reply, streamed or whole, in any of the three formats."""
    for value in answer:
        for choice in value.get("choices") or ():
            said = choice.get("delta") or choice.get("message") or {}
            yield from (c["id"] for c in said.get("tool_calls") or () if c.get("id"))
        block = value.get("content_block") or {}
        item = value.get("item") or {}
        for part in (block, item, *(value.get("content") or ()), *(value.get("output") or ())):
            if part.get("type") == "tool_use":
                yield part["id"]
            elif part.get("type") == "function_call":
                yield part["call_id"]


def apart(reads: Sequence[RequestCost], without: Collection[str]) -> list[CostSums]:
    """The sums of all requests; and, where phases are named, of those outside them."""
    made = [sums("all", reads)]
    if without:
        made.append(sums("outside them", [r for r in reads if r.phase not in without]))
    return made


def report(
    name: str,
    reads: Sequence[RequestCost],
    without: Collection[str] = (),
    failed: Sequence[FailedRequest] = (),
) -> dict[str, Any]:
    """All that was counted of one client; `without`: phases that are also left out."""
    return {
        "client": name,
        "without": sorted(without),
        "sums": [s.as_dict() for s in apart(reads, without)],
        "phases": [s.as_dict() for s in phases(reads)],
        "requests": [_plain(r) for r in reads],
        "failed": [asdict(f) for f in failed],
    }


def _plain(read: RequestCost) -> dict[str, Any]:
    """A read without the client's texts."""
    miss = read.miss and {k: v for k, v in read.miss.items() if k not in ("before", "after")}
    return asdict(read) | {"miss": miss}
