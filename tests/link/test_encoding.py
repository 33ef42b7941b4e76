"""Packets as bytes: everything comes back as it was, and nothing else is taken in."""

from __future__ import annotations

import math
import random
from pathlib import Path as FilePath

import pytest

from everwarm.config import Settings
from everwarm.errors import (
    ConfigError,
    EngineDied,
    EngineError,
    EverwarmError,
    Overloaded,
    RequestError,
    TooLong,
)
from everwarm.job import (
    Ended,
    EngineHealth,
    Failed,
    Grammar,
    Job,
    Leased,
    Markers,
    ModelInfo,
    Path,
    Prefilled,
    Token,
    TreeNode,
)
from everwarm.link.encoding import BadPacket, decode, encode
from everwarm.link.packets import (
    CallRefused,
    CancelJob,
    CheckGrammar,
    CountStats,
    DeleteNode,
    DeletePaths,
    Given,
    Heartbeat,
    Hello,
    LoadModel,
    LoadProgress,
    Opened,
    Packet,
    PinNode,
    ReadTree,
    Stats,
    StopEngine,
    TreeNodes,
    Unusable,
)
from everwarm.request import Sampling
from everwarm.tokens import Mark, tokens_of

TOKENS = tokens_of([0, 1, -1, 2**31 - 1, -(2**31)])
FULL = Job(
    "an id",
    TOKENS,
    (Mark(3, "system"), Mark(5, "prompt")),
    Sampling(temperature=0.1, logit_bias={5: -100, 2**31: 0.5}, seed=2**63),
    7,
    logprobs=3,
    namespace="ключ",
    forced=TOKENS,
    markers=Markers(("<a>", "</a>"), (("x", ""), ("y", "z")), TOKENS, True),
    thinking_budget=0,
    grammar=Grammar("start: \x00", "\ud7ff"),
)
NODE = TreeNode(
    id=1, parent=None, start=0, end=9, nbytes=2**40, disk_nbytes=0, checkpoints=1, is_pinned=True,
    is_running=False, names=("a", "b"), value=math.inf,
)  # fmt: skip
INFO = ModelInfo("m", 1, 2, 3, 4, "llama", aliases=("x",), not_proved={"a": "b"})
PACKETS: list[Packet] = [
    Hello(1, 2),
    LoadModel("~/m", Settings(model="m", home=FilePath("/tmp/é"), allowed_hosts=("a", "b"))),
    LoadModel("m", Settings()),
    FULL,
    Job("", tokens_of(), (), Sampling(), 0),
    CancelJob(),
    StopEngine(0.5),
    CheckGrammar("start: /x/"),
    CountStats(),
    DeletePaths((Path("", TOKENS, 3),)),
    ReadTree({"a": (Path("n", TOKENS),), "": ()}),
    PinNode(2**40, False),
    DeleteNode(-1),
    LoadProgress(2**50, 2**51),
    Opened(INFO),
    Heartbeat(5, EngineHealth("why", 1.5, "full", "no space")),
    Leased(1, 2, "disk", 0.1, 0.2),
    Prefilled(1, 2),
    Token(5),
    Token(5, -math.inf, ((1, -0.0), (2, -math.inf))),
    Ended("length", 1, 2, 0.1, 0.2, 0.3, True),
    Given(None),
    Given(True),
    Given(2**40),
    Stats({"a": 1, "b": 0.5, "c": "text"}),
    TreeNodes((NODE,)),
]
ERRORS = [
    EverwarmError("plain"),
    RequestError("no", param="a.b", code="c"),
    TooLong("long", param=None),
    EngineDied("died"),
    Overloaded("later", retry_after_s=7),
    ConfigError("bad"),
]


@pytest.mark.parametrize("packet", PACKETS, ids=lambda p: type(p).__name__)
def test_a_packet_comes_back_as_it_was(packet: Packet) -> None:
    about, found = decode(encode(packet, "an id"))
    assert about == "an id" and found == packet and type(found) is type(packet)


def test_whether_it_is_a_number_or_a_truth_comes_back() -> None:
    for value in (True, False, 0, 1, None):
        _, found = decode(encode(Given(value)))
        assert isinstance(found, Given) and found.value is value


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_an_error_comes_back_with_all_that_it_carries(error: EverwarmError) -> None:
    for packet in (Failed(error), Unusable("ended", error), CallRefused(error)):
        _, found = decode(encode(packet))
        assert isinstance(found, (Failed, Unusable, CallRefused)) and found.error is not None
        assert type(found.error) is type(error) and str(found.error) == str(error)
        assert vars(found.error) == vars(error)


def test_an_error_of_another_home_is_sent_as_the_nearest_that_is_known() -> None:
    class Special(EngineError):
        """Not in the tree."""

    _, found = decode(encode(Failed(Special("x"))))
    assert isinstance(found, Failed) and type(found.error) is EngineError


@pytest.mark.parametrize(
    "job",
    [
        Job("x", tokens_of(), (), Sampling(seed=2**64), 0),
        Job("x", tokens_of(), (), Sampling(), 0, namespace="\ud800"),
        Job("x", tokens_of(), (object(),), Sampling(), 0),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_sent_is_refused(job: Job) -> None:
    with pytest.raises(BadPacket):
        encode(job)


def test_garbled_bytes_are_refused_or_a_packet_and_nothing_else() -> None:
    """A changed byte may be a number that is changed; it never raises anything else."""
    chance = random.Random(1)
    whole = [encode(p, "a") for p in PACKETS] + [encode(Failed(e), "a") for e in ERRORS]
    refused = 0
    for _ in range(20_000):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            data[at] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            decode(bytes(data))
        except BadPacket:
            refused += 1
    assert refused > 10_000


@pytest.mark.parametrize("data", [b"", b"\x90", b"\xc1", b"\x91" * 100_000, b"\x93\xa1x\xa0\xc0"])
def test_what_is_no_packet_is_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        decode(data)
