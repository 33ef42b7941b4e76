"""What is remembered of histories is exact, shared where it can be, and bounded."""

from __future__ import annotations

from everwarm.messages import MessageId
from everwarm.prompt.token_records import TokenPath, TokenRecord, TokenRecords
from everwarm.tokens import Mark, tokens_of


def history(*tokens: int) -> TokenRecord:
    return TokenRecord(TokenPath(), 0).extend(tokens)


def test_a_history_grows_in_place_and_branches_by_copy() -> None:
    start = history(1, 2)
    grown = start.extend([3], [Mark(2, "user")])
    branch = start.extend([4])
    assert grown.path is start.path
    assert branch.path is not start.path
    assert list(start.tokens) == [1, 2]
    assert (list(grown.tokens), list(branch.tokens)) == ([1, 2, 3], [1, 2, 4])
    assert (grown.marks, branch.marks, start.marks) == ([Mark(2, "user")], [], [])


def test_histories_used_longest_ago_are_forgotten_first() -> None:
    records = TokenRecords(limit=2)
    for name in "ab":
        records.put(MessageId(name), history(1))
    records.get(MessageId("a"))
    records.put(MessageId("c"), history(1))
    assert [MessageId(name) in records for name in "abc"] == [True, False, True]


def test_tokens_are_bounded_and_a_shared_path_counts_once() -> None:
    records = TokenRecords(max_tokens=10)
    first = history(*range(6))
    records.put(MessageId("a"), first)
    records.put(MessageId("a2"), first.extend([7]))
    assert MessageId("a") in records
    records.put(MessageId("b"), history(*range(6)))
    assert [MessageId(name) in records for name in ("a", "a2", "b")] == [False, False, True]


def test_one_history_is_kept_however_long() -> None:
    records = TokenRecords(max_tokens=10)
    records.put(MessageId("a"), history(*range(20)))
    assert records.get(MessageId("a")) is not None


def test_a_replaced_history_frees_its_path() -> None:
    records = TokenRecords(max_tokens=10)
    for _ in range(3):
        records.put(MessageId("a"), history(*range(6)))
    records.put(MessageId("b"), history(1, 2))
    assert MessageId("a") in records
    assert list((records.get(MessageId("a")) or history()).tokens) == list(tokens_of(range(6)))
