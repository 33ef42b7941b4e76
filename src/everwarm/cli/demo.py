"""One conversation held twice, with the cache and without, and what each turn cost.

The second server is sent exactly the messages of the first run, the first run's replies included,
so that both read the same prompts and only the cache differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from everwarm.cli.child import running_server
from everwarm.cli.models import model_path
from everwarm.client import ChatClient, ChatReply
from everwarm.config import Settings

MAX_TOKENS = 16
SYSTEM = """\
You are the assistant of a small mountain lodge. The lodge has eleven rooms, a wood-fired \
kitchen and a library with a view of the lake. Breakfast is served from seven to ten, dinner \
at half past six. The last bus to the valley leaves at nine in the evening, and the first one \
comes up at six. Guests ask you about walks, the weather, meals and the history of the house. \
Answer in one short and friendly sentence. If you do not know something, say so, and send the \
guest to the front desk, where somebody is awake at all hours. Never promise a room, a price \
or a table: only the front desk does that. The house was built in 1911 by two sisters who had \
walked here from the coast."""
QUESTIONS = (
    "Good evening. We have just come in from the long ridge walk, the four of us, quite wet and "
    "very hungry, and we would like to know whether there is anything warm to eat at this hour. "
    "One of us does not eat meat, and another cannot have nuts. What would you suggest that we "
    "do first?",
    "Thank you. Tomorrow we hope to walk around the lake, but my father is seventy-eight and "
    "his knee is not what it was. Is there a part of the path that is flat, with a bench here "
    "and there, where he could turn back whenever he likes without climbing over stones or wet "
    "roots?",
    "He also loves old books. You mentioned a library with a view. Are guests allowed to take a "
    "book to their room for the night, and is there perhaps something about the two sisters who "
    "built this house? He would be glad to read about the winter in which they first came here.",
    "About the weather: the clouds over the pass looked heavy when we came down, and the wind "
    "had turned to the north. We have good jackets but only light shoes. Should we plan "
    "something indoors for the morning, and what do people usually do here when it rains until "
    "noon?",
    "My sister would like to come up and join us for a day. She works in the valley until half "
    "past five and does not drive. Which bus could she take, and would she still be in time for "
    "dinner if the road is slow? She could also come early on the next morning if that were "
    "wiser.",
    "The children next door were asking about the boats at the jetty. They can both swim, and "
    "they are nine and twelve years old. Do they need a grown-up with them in the boat, and is "
    "there a place where the water is shallow enough to stand, away from the stream that feeds "
    "the lake?",
    "We noticed that the stove in the kitchen is fired with wood. My wife bakes bread at home "
    "and she would love to see how it is done with such an oven. Is the cook the sort of person "
    "who would let somebody watch quietly from the corner at five in the morning, before "
    "breakfast?",
    "One of us left a grey scarf on a bench near the upper hut, at the place where the path "
    "turns towards the pass. It was a present, so we would like to have it back. Does somebody "
    "walk there every day who could look for it, or should we go up again ourselves after "
    "breakfast tomorrow?",
    "For the last evening we would like to celebrate a birthday, nothing large, perhaps a cake "
    "and some candles in the library after dinner, if that does not disturb the other guests. "
    "Whom do we ask about it, and how many days before should we say so, in order that it is no "
    "trouble?",
    "You have been very patient with us. Before we go to bed, please tell us once more in a few "
    "words what we should remember for tomorrow: when breakfast begins, when the last bus "
    "leaves, and where we can find somebody in the night if my father does not feel well. Good "
    "night!",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTurn:
    """One turn of both runs."""

    turn: int
    prompt_tokens: int
    cached_tokens: int
    prefilled_tokens: int
    ttft_warm_s: float
    ttft_cold_s: float
    same_reply: bool

    @property
    def ratio(self) -> float:
        """How many times faster the first token came."""
        return self.ttft_cold_s / self.ttft_warm_s


def run(settings: Settings, *, as_json: bool) -> None:
    """Hold the conversation twice and print the table, or JSON."""
    say = Console(stderr=True)
    flags = [model_path(settings)]
    with running_server([*flags, "--cache"]) as url, _client(url, settings) as client:
        warm = list(_told(hold(client), "warm", say))
    with running_server([*flags, "--no-cache"]) as url, _client(url, settings) as client:
        cold = list(_told(hold(client, [r.text for r in warm]), "cold", say))
    turns = [compare(i, w, c) for i, (w, c) in enumerate(zip(warm, cold, strict=True), 1)]
    if as_json:
        print(json.dumps([asdict(t) | {"ratio": t.ratio} for t in turns], indent=2))
    else:
        Console().print(table(turns))
        print(verdict(turns))
        print(f"The last answer began: {warm[-1].text.strip()}")


def hold(client: ChatClient, replies: Iterable[str] | None = None) -> Iterator[ChatReply]:
    """Hold the conversation, putting `replies` in place of the server's own where given."""
    model = client.models()[0]
    given = iter(replies) if replies is not None else None
    messages = [{"role": "system", "content": SYSTEM}]
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        reply = client.ask(messages, model=model, max_tokens=MAX_TOKENS, temperature=0)
        yield reply
        said = reply.text if given is None else next(given)
        messages.append({"role": "assistant", "content": said})


def compare(turn: int, warm: ChatReply, cold: ChatReply) -> DemoTurn:
    """Put one turn of the two runs side by side."""
    return DemoTurn(
        turn=turn,
        prompt_tokens=warm.prompt_tokens,
        cached_tokens=warm.cached_tokens,
        prefilled_tokens=warm.prefilled_tokens,
        ttft_warm_s=warm.ttft_s or warm.total_s,
        ttft_cold_s=cold.ttft_s or cold.total_s,
        same_reply=warm.text == cold.text,
    )


def table(turns: Iterable[DemoTurn]) -> Table:
    """One row a turn."""
    made = Table(title="The same conversation, warm and cold")
    for name in ("turn", "prompt", "cached", "prefilled", "TTFT warm", "TTFT cold", "ratio"):
        made.add_column(name, justify="right")
    for t in turns:
        made.add_row(
            *(f"{n:,}" for n in (t.turn, t.prompt_tokens, t.cached_tokens, t.prefilled_tokens)),
            *(f"{s:.2f} s" for s in (t.ttft_warm_s, t.ttft_cold_s)),
            f"{t.ratio:.1f}x",
        )
    return made


def verdict(turns: list[DemoTurn]) -> str:
    """Say whether warm and cold gave the same answers."""
    differing = [str(t.turn) for t in turns if not t.same_reply]
    if not differing:
        return f"All {len(turns)} greedy replies are the same, warm and cold."
    return f"Greedy replies differ between warm and cold in turns {', '.join(differing)}."


def _client(url: str, settings: Settings) -> ChatClient:
    return ChatClient(url, api_key=settings.api_key)


def _told(replies: Iterator[ChatReply], which: str, say: Console) -> Iterator[ChatReply]:
    with say.status(f"{which}: starting") as status:
        for n, reply in enumerate(replies, 1):
            status.update(f"{which}: turn {n} of {len(QUESTIONS)}")
            yield reply
