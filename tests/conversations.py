"""A hypothesis state machine: clients and a server that do to a cache all that real ones do.

Conversations are random trees on two models and two namespaces. Their jobs are stepped one at a
time, cancelled or broken anywhere, and pushed out of small budgets. Whatever ends is compared with
the oracle's reply to the literal context.
"""

from __future__ import annotations

import collections
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from everwarm.cache.cache import Cache, Lease
from everwarm.cache.evict import candidates
from everwarm.cache.tree import Holder, Node
from everwarm.errors import EngineError, RequestError
from everwarm.testing import ORACLES, RESERVE, Layer, OracleRun, OracleState, reply_to
from everwarm.tokens import Mark, Tokens, common_length, tokens_of

USER, BOT, END = 1, 2, 3
SYSTEMS = (0, 12, 90, 1100)
MOST_JOBS, MOST_TALKS = 5, 16
PICK = st.integers(0, 59)
TEXT = st.tuples(st.integers(0, 2), st.sampled_from([1, 4, 20, 75, 160]))
BUDGET = st.sampled_from([1 << 30, 60_000, 40_000, 25_000, 15_000, 8000, 5000, 2500])
LENGTH = st.integers(1, 9)

SEED = int(os.environ.get("EVERWARM_MACHINE_SEED", 0))
SHRINK = (Phase.shrink,) if os.environ.get("EVERWARM_MACHINE_SHRINK") else ()
RULES = ("begins", "goes on", "edits", "regenerates", "forks", "steps", "runs", "cancels", "fails",
         "evicts")  # fmt: skip

steps: collections.Counter[str] = collections.Counter()
"""How often each rule was carried out since `explore` began, and what it met."""


def words(kind: int, n: int) -> tuple[int, ...]:
    """Texts of one kind begin alike."""
    return tuple(100 + (kind * 997 + i * i) % 3000 for i in range(n))


@dataclass(frozen=True)
class Talk:
    """A conversation as its client remembers it: user and reply in turn, a user last."""

    model: int
    namespace: str
    system: int
    messages: tuple[tuple[int, ...], ...]

    def prompt(self) -> tuple[Tokens[int], tuple[Mark, ...]]:
        tokens = tokens_of(words(7 + self.system, SYSTEMS[self.system]))
        marks = {len(tokens): Mark(len(tokens), "system")}
        for i, text in enumerate(self.messages):
            if i % 2 == 0:
                marks.setdefault(len(tokens), Mark(len(tokens), "user"))
                tokens.append(USER)
            tokens.extend([*text, END])
            if i % 2 == 0:
                marks[len(tokens)] = Mark(len(tokens), "prompt")
                tokens.append(BOT)
        return tokens, tuple(m for m in marks.values() if m.at)

    def with_messages(self, *messages: tuple[int, ...]) -> Talk:
        return Talk(self.model, self.namespace, self.system, messages)


@dataclass(eq=False)
class Job:
    """A request on its way, and what is needed to judge it."""

    talk: Talk
    run: OracleRun
    layers: Sequence[Layer]
    dropped: bool = False


class Conversations(RuleBasedStateMachine):
    """The real cache under clients that do as they please. Faults are planted by subclassing."""

    families: Sequence[str] = tuple(ORACLES)

    def new_cache(self, layers: Sequence[Layer], budget: int) -> Cache:
        return Cache(lambda: OracleState(layers), budget=budget, bytes_at=self.bytes_at)

    @staticmethod
    def bytes_at(rows: int) -> int:
        return 10 * (rows + RESERVE) + 200

    def new_run(self, cache: Cache, talk: Talk, n: int, chunk: int) -> OracleRun:
        tokens, marks = talk.prompt()
        return OracleRun(cache, tokens, marks, namespace=talk.namespace, max_tokens=n, chunk=chunk)

    @initialize(data=st.data(), budgets=st.tuples(BUDGET, BUDGET))
    def load_two_models(self, data: Any, budgets: tuple[int, int]) -> None:
        names = [data.draw(st.sampled_from(self.families)) for _ in budgets]
        self.layers = [ORACLES[name] for name in names]
        self.caches = [
            self.new_cache(layers, b) for layers, b in zip(self.layers, budgets, strict=True)
        ]
        self.ended = 0
        self.talks: list[Talk] = []
        self.jobs: list[Job] = []
        self.read: list[dict[str, list[Tokens[int]]]] = [{}, {}]
        self.torn: list[dict[str, list[Tokens[int]]]] = [{}, {}]
        for model in (0, 1, 1):
            self.ask(Talk(model, "", 1 + model, (words(model, 30),)), 5)
        self.finish()

    def ask(self, talk: Talk, n: int, chunk: int = 16) -> None:
        run = self.new_run(self.caches[talk.model], talk, n, chunk)
        self.jobs.append(Job(talk, run, self.layers[talk.model]))

    @precondition(lambda self: len(self.jobs) < MOST_JOBS)
    @rule(
        model=st.integers(0, 1),
        namespace=st.sampled_from(["", "", "b"]),
        system=st.integers(0, len(SYSTEMS) - 1),
        text=TEXT,
        n=LENGTH,
        chunk=st.sampled_from([8, 16, 64]),
    )
    def begins(
        self, model: int, namespace: str, system: int, text: tuple[int, int], n: int, chunk: int
    ) -> None:
        steps["begins"] += 1
        self.ask(Talk(model, namespace, system, (words(*text),)), n, chunk)

    @precondition(lambda self: self.talks and len(self.jobs) < MOST_JOBS)
    @rule(pick=PICK, text=TEXT, n=LENGTH)
    def goes_on(self, pick: int, text: tuple[int, int], n: int) -> None:
        steps["goes on"] += 1
        talk = self.talks[-1 - pick % len(self.talks)]
        self.ask(talk.with_messages(*talk.messages, words(*text)), n)

    @precondition(lambda self: self.talks and len(self.jobs) < MOST_JOBS)
    @rule(pick=PICK, back=st.integers(0, 9), text=TEXT, n=LENGTH)
    def edits_an_earlier_message(self, pick: int, back: int, text: tuple[int, int], n: int) -> None:
        steps["edits"] += 1
        talk = self.talks[-1 - pick % len(self.talks)]
        keep = 2 * (back % (len(talk.messages) // 2))
        self.ask(talk.with_messages(*talk.messages[:keep], words(*text)), n)

    @precondition(lambda self: self.talks and len(self.jobs) < MOST_JOBS)
    @rule(pick=PICK, n=LENGTH)
    def regenerates(self, pick: int, n: int) -> None:
        steps["regenerates"] += 1
        talk = self.talks[-1 - pick % len(self.talks)]
        self.ask(talk.with_messages(*talk.messages[:-1]), n)

    @precondition(lambda self: self.jobs and len(self.jobs) < MOST_JOBS - 1)
    @rule(pick=PICK, text=TEXT, other=TEXT, n=LENGTH)
    def forks_twice_while_it_runs(
        self, pick: int, text: tuple[int, int], other: tuple[int, int], n: int
    ) -> None:
        steps["forks"] += 1
        job = self.jobs[pick % len(self.jobs)]
        for t in (text, other):
            messages = (*job.talk.messages, tuple(job.run.reply), words(*t))
            self.ask(job.talk.with_messages(*messages), n)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def steps_once(self, pick: int) -> None:
        steps["steps"] += 1
        self.step(self.jobs[pick % len(self.jobs)])

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, n=st.sampled_from([3, 6, 200]))
    def runs(self, pick: int, n: int) -> None:
        """Many steps of one job; those of a job that it waits for come first."""
        steps["runs"] += 1
        job = self.jobs[pick % len(self.jobs)]
        for _ in range(n):
            if job.run.over:
                break
            if not self.step(job):
                busy = next(j for j in self.jobs if j.run.lease is not None and self.beside(j, job))
                self.step(busy)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, told=st.booleans())
    def is_cancelled(self, pick: int, told: bool) -> None:
        """At once, or known to the cache a while before it happens."""
        steps["cancels"] += 1
        job = self.jobs[pick % len(self.jobs)]
        if told and job.run.lease is not None and not job.run.lease.holder.ending:
            job.run.lease.holder.ending = True
            return
        self.cancel(job)

    @precondition(lambda self: any(j.run.lease is not None for j in self.jobs))
    @rule(pick=PICK)
    def fails_in_the_middle_of_a_step(self, pick: int) -> None:
        leased = [j for j in self.jobs if j.run.lease is not None]
        job = leased[pick % len(leased)]
        state = job.run.state
        assert state is not None
        state.fails_next = True
        try:
            self.step(job)
            state.fails_next = False
        except EngineError:
            steps["fails"] += 1
            self.jobs.remove(job)
            self.note(self.torn, job)

    @precondition(lambda self: self.ended % 4 == 0)
    @rule(model=st.integers(0, 1), budget=BUDGET)
    def budget_changes(self, model: int, budget: int) -> None:
        """While nobody runs: what a busy state was promised stays promised."""
        if self.caches[model].memory.busy:
            return
        steps["evicts"] += 1
        self.caches[model].memory.budget = budget
        self.caches[model].evict()

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:  # else the first failure is the one to tell
            self.finish()

    def finish(self) -> None:
        while getattr(self, "jobs", None):
            moved = [self.step(j) for j in list(self.jobs)]
            assert any(moved), "every job waits for another"

    def step(self, job: Job) -> bool:
        """One step, or the end of a job whose cancel is known."""
        run, waiting = job.run, job.run.lease is None
        if run.lease is not None and run.lease.holder.ending:
            self.cancel(job)
            return True
        try:
            moved = run.step()
        except RequestError:
            self.refuse(job)
            return True
        if waiting and moved:
            self.check_lease(job, run.lease)
        if not moved:
            steps["waits"] += 1
            assert any(j.run.lease is not None and self.beside(j, job) for j in self.jobs), (
                "a job waits although no other is busy"
            )
        if run.over:
            self.end(job, cancelled=False)
        return moved

    def refuse(self, job: Job) -> None:
        """Only what cannot fit even alone may be refused."""
        steps["refused"] += 1
        cache, run = self.caches[job.talk.model], job.run
        assert cache.memory.budget < self.bytes_at(len(run.tokens) + run.max_tokens)
        run.over = True
        self.jobs.remove(job)

    def cancel(self, job: Job) -> None:
        committed = job.run.lease is not None
        job.run.cancel()
        self.end(job, cancelled=True, committed=committed)

    def beside(self, a: Job, b: Job) -> bool:
        return a.talk.model == b.talk.model

    def note(self, into: list[dict[str, list[Tokens[int]]]], job: Job) -> None:
        run = job.run
        seen = run.tokens[: run.start + run.prefilled] + tokens_of(run.reply)
        into[job.talk.model].setdefault(job.talk.namespace, []).append(seen)

    def check_lease(self, job: Job, lease: Lease | None) -> None:
        """What was never read is told exactly, and the state has just the tokens it is under."""
        assert lease is not None and job.run.state is not None
        tokens, (model, space) = job.run.tokens, (job.talk.model, job.talk.namespace)
        steps[lease.cached_from] += 1
        assert job.run.state.length == lease.sequence.length == lease.start < len(tokens)
        known = self.read[model].get(space, []) + [
            j.run.lease.sequence.tokens
            for j in self.jobs
            if j is not job and j.run.lease is not None
            if (j.talk.model, j.talk.namespace) == (model, space)
        ]
        most = max((common_length(k, tokens) for k in known), default=0)
        torn = max((common_length(k, tokens) for k in self.torn[model].get(space, [])), default=0)
        assert most <= len(tokens) - lease.unseen <= max(most, torn)

    def end(self, job: Job, *, cancelled: bool, committed: bool = True) -> None:
        """Judge a job that is over."""
        steps["ends"] += 1
        self.ended += 1
        self.jobs.remove(job)
        run = job.run
        n = len(run.reply) if cancelled else run.max_tokens
        assert run.reply == reply_to(run.tokens, job.layers, n), "a warm reply is not the cold one"
        assert run.prefilled <= len(run.tokens) - run.start
        assert cancelled or run.start + run.prefilled == len(run.tokens)
        self.note(self.read, job)
        messages = (*job.talk.messages, tuple(run.reply))
        self.talks = [*self.talks[1 - MOST_TALKS :], job.talk.with_messages(*messages)]
        cache = self.caches[job.talk.model]
        busy = any(j.run.lease is not None and self.beside(j, job) for j in self.jobs)
        if committed and not busy:
            memory = cache.memory
            left = candidates(
                memory.nodes(), memory.states, memory.clock, is_cuttable=memory.is_cuttable
            )
            assert cache.nbytes <= memory.budget or not left

    @invariant()
    def memory_is_a_promise(self) -> None:
        for cache in getattr(self, "caches", ()):
            account = cache.memory.account()
            assert account.total <= cache.memory.budget, account

    @invariant()
    def trees_are_sound(self) -> None:
        for cache in getattr(self, "caches", ()):
            found: dict[int, Holder] = {}
            for root in cache.roots.values():
                for node in root.below():
                    check_node(node)
                    found |= {id(h): h for h in node.holders}
            states = {id(h) for h in cache.memory.states if h.node.parent is not None}
            assert states == set(found), "a state that nobody can find, or that nobody counts"


def check_node(node: Node) -> None:
    """A node's place, and that its bytes live in one place."""
    for first, child in node.children.items():
        assert child.parent is node and child.tokens[0] == first and child.start == node.end
    assert node.segment is None or not node.holders, "rows both in a state and at rest"
    assert node.segment is None or (node.segment.start, node.segment.end) == (node.start, node.end)
    assert len({id(h) for h in node.holders}) == len(node.holders)
    for h in node.holders:
        check_holder(h, node)


def check_holder(h: Holder, node: Node) -> None:
    """A state stands on all nodes of its path, over the tokens that it has read."""
    own = h.sequence
    assert own.live.length == own.length and (h.busy or h.node.end == own.length == own.end)
    assert h.node.end >= node.end
    assert own.tokens[node.start : node.end] == node.tokens
    assert node.parent is None or node.parent.parent is None or h in node.parent.holders


def explore(
    machine: type[Conversations], n: int, *, examples: int = 50
) -> collections.Counter[str]:
    """Carry out at least `n` rules; gives back how often what happened."""
    steps.clear()
    few = settings(
        max_examples=examples,
        stateful_step_count=60,
        deadline=None,
        database=None,
        phases=(Phase.generate, *SHRINK),
        suppress_health_check=list(HealthCheck),
    )
    run = SEED
    while sum(steps[name] for name in RULES) < n:
        run_state_machine_as_test(seed(run)(machine), settings=few)
        run += 1
    assert all(steps[name] for name in RULES), f"a rule was never carried out: {dict(steps)}"
    return steps
