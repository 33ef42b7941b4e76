"""A hypothesis state machine: clients and a server that do to a cache all that real ones do.

Conversations are random trees on two models and two namespaces. Their jobs are stepped one at a
time, cancelled or broken anywhere, and pushed out of small budgets. Reads and writes of the disk
stay under way until a rule lets them end, well or not, in any order; a model may be started again
at any moment. Whatever ends is compared with the oracle's reply to the literal context.
"""

from __future__ import annotations

import collections
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from held_disk import HeldDisk
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
from everwarm.cache.disk.tier import DiskTier
from everwarm.cache.evict import candidates
from everwarm.cache.tree import Holder, Node
from everwarm.errors import EngineError, RequestError
from everwarm.testing import ORACLES, RESERVE, OracleLayer, OracleRun, OracleState, Trap, reply_to
from everwarm.tokens import Mark, Tokens, common_length, tokens_of

USER, BOT, END = 1, 2, 3
SYSTEMS = (0, 12, 90, 1100)
MOST_JOBS, MOST_TALKS = 5, 16
PICK = st.integers(0, 59)
TEXT = st.tuples(st.integers(0, 2), st.sampled_from([1, 4, 20, 75, 160]))
BUDGET = st.sampled_from([1 << 30, 60_000, 40_000, 25_000, 15_000, 8000, 5000, 2500])
LENGTH = st.integers(1, 9)
FEW_STEPS = 2000
CALLS = ("read", "read", "cut", "release", "checkpoint", "rewind", "extend", "put_back", "fork",
         "rows_out", "piece_rows_out", "rows_in", "checkpoint_out", "checkpoint_in",
         "reserve")  # fmt: skip

SEED = int(os.environ.get("EVERWARM_MACHINE_SEED", 0))
SHRINK = (Phase.shrink,) if os.environ.get("EVERWARM_MACHINE_SHRINK") else ()
RULES = ("begins", "goes on", "edits", "regenerates", "forks", "steps", "runs", "cancels", "traps",
         "evicts", "disk steps", "disk answers", "loses", "restarts")  # fmt: skip

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
    layers: Sequence[OracleLayer]
    dropped: bool = False


class Conversations(RuleBasedStateMachine):
    """The real cache under clients that do as they please. Faults are planted by subclassing."""

    families: Sequence[str] = tuple(ORACLES)

    state: type[OracleState] = OracleState
    cache: type[Cache] = Cache

    def new_state(self, model: int) -> OracleState:
        made = self.state(self.layers[model])
        made.trap = self.traps[model]
        self.states[model].add(made)
        return made

    def layers_of(self, family: str) -> Any:
        """What a state of this family is made of."""
        return ORACLES[family]

    def is_right(self, job: Job, n: int) -> bool:
        """Whether a reply, cut to `n` tokens, is what a cold model says."""
        return job.run.reply == reply_to(job.run.tokens, job.layers, n)

    def new_cache(self, model: int, budget: int, tier: DiskTier | None) -> Cache:
        room = self.room_of(model)
        return self.cache(
            lambda: self.new_state(model), budget=room(budget // 10), bytes_at=room, tier=tier
        )

    def room_of(self, model: int) -> Callable[[int], int]:
        """What a state of so many rows takes."""
        return lambda rows: 10 * (rows + RESERVE) + 200

    def new_run(self, cache: Cache, talk: Talk, n: int, chunk: int) -> OracleRun:
        tokens, marks = talk.prompt()
        return OracleRun(cache, tokens, marks, namespace=talk.namespace, max_tokens=n, chunk=chunk)

    @initialize(
        data=st.data(),
        budgets=st.tuples(BUDGET, BUDGET),
        have_disks=st.tuples(st.booleans(), st.just(True)),
    )
    def load_two_models(
        self, data: Any, budgets: tuple[int, int], have_disks: tuple[bool, bool]
    ) -> None:
        names = [data.draw(st.sampled_from(self.families)) for _ in budgets]
        self.layers = [self.layers_of(name) for name in names]
        self.traps = [Trap(), Trap()]
        self.states: list[weakref.WeakSet[OracleState]] = [weakref.WeakSet(), weakref.WeakSet()]
        self.disks = [HeldDisk() if has else None for has in have_disks]
        self.caches = [self.started(model, budgets[model]) for model in (0, 1)]
        self.ended = self.started_at = 0
        self.talks: list[Talk] = []
        self.jobs: list[Job] = []
        self.read: list[dict[str, list[Tokens[int]]]] = [{}, {}]
        self.torn: list[dict[str, list[Tokens[int]]]] = [{}, {}]
        for model in (0, 1, 1):
            self.ask(Talk(model, "", 1 + model, (words(model, 30),)), 5)
        self.finish()

    def started(self, model: int, budget: int) -> Cache:
        """A cache of this model over what is on its disk."""
        disk, tier = self.disks[model], None
        if disk is not None:
            tier = DiskTier(disk, bytes([model]) * 32, lambda: None)  # type: ignore[arg-type]
        return self.new_cache(model, budget, tier)

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
                busy = (j for j in self.jobs if j.run.is_reading and self.beside(j, job))
                if (other := next(busy, None)) is not None:
                    self.step(other)
                else:
                    self.answer_disk(job.talk.model)

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

    @precondition(lambda self: self.jobs)
    @rule(model=st.integers(0, 1), call=st.sampled_from(CALLS))
    def a_call_will_fail(self, model: int, call: str) -> None:
        """The next call of that name on any state of a model raises, wherever it comes from."""
        steps["traps"] += 1
        self.traps[model].call = call

    @precondition(lambda self: self.ended % 4 == 0)
    @rule(model=st.integers(0, 1), part=st.sampled_from([2, 3, 5]))
    def somebody_else_needs_the_room(self, model: int, part: int) -> None:
        memory = self.caches[model].memory
        budget, memory.budget = memory.budget, memory.account().total * (part - 1) // part
        while self.raises(memory.evict):
            pass
        memory.budget = budget

    @precondition(lambda self: self.ended % 4 == 0)
    @rule(model=st.integers(0, 1), budget=BUDGET)
    def budget_changes(self, model: int, budget: int) -> None:
        """While nobody runs or writes: what was promised stays promised."""
        cache = self.caches[model]
        memory, tier = cache.memory, cache.tier
        if memory.busy or (tier is not None and tier.writing_nbytes):
            return
        steps["evicts"] += 1
        memory.budget = self.room_of(model)(budget // 10)
        if tier is not None:
            shape = cache.new_sequence().live
            tier.attach(shape, memory.budget, memory.make_room, cache.policy)
        while self.raises(self.caches[model].evict):
            pass

    @rule(model=st.integers(0, 1), keeps_up=st.booleans())
    def the_disk_tier_steps(self, model: int, keeps_up: bool) -> None:
        """As the engine has it do between any two steps; perhaps until all is written."""
        if (tier := self.caches[model].tier) is not None:
            steps["disk steps"] += 1
            self.raises(tier.step)
            while keeps_up and self.answer_disk(model):
                pass

    @precondition(lambda self: any(d is not None and d.held for d in self.disks))
    @rule(model=st.integers(0, 1), pick=PICK, end=st.sampled_from(["well"] * 6 + ["fails", "torn"]))
    def the_disk_answers(self, model: int, pick: int, end: Any) -> None:
        """One of the reads and writes under way ends, well or not."""
        disk = self.disks[model]
        if disk is not None and disk.held:
            steps["disk answers"] += 1
            steps[disk.answer(pick, end)] += 1

    @precondition(lambda self: self.ended % 4 == 1)
    @rule(model=st.integers(0, 1), pick=PICK)
    def a_file_is_lost(self, model: int, pick: int) -> None:
        if (disk := self.disks[model]) is not None:
            steps["loses"] += 1
            disk.loses(pick)

    @precondition(lambda self: self.ended >= self.started_at + 6)
    @rule(model=st.integers(0, 1), budget=BUDGET, is_killed=st.booleans())
    def restarts(self, model: int, budget: int, is_killed: bool) -> None:
        """All that is in memory is gone; what the disk was doing ends or is lost."""
        disk = self.disks[model]
        if disk is None:
            return
        steps["restarts"] += 1
        self.started_at = self.ended
        while not is_killed and (disk.held or not self.is_at_rest(model)):
            self.answer_disk(model)
        disk.power_off()
        for job in [j for j in self.jobs if j.talk.model == model]:
            self.jobs.remove(job)
            self.raises(job.run.close)
            if job.run.lease is not None:
                seen = self.torn[model].setdefault(job.talk.namespace, [])
                seen.append(job.run.lease.sequence.tokens)
        for space, seen in self.read[model].items():
            self.torn[model].setdefault(space, []).extend(seen)
        self.read[model], self.states[model] = {}, weakref.WeakSet()
        self.caches[model] = self.started(model, budget)

    @staticmethod
    def raises(action: Callable[[], object]) -> bool:
        """Do it; whether a trap broke it."""
        try:
            action()
        except EngineError:
            steps["breaks"] += 1
            return True
        return False

    def is_at_rest(self, model: int) -> bool:
        """Nothing is left to write that there is room for."""
        tier = self.caches[model].tier
        assert tier is not None
        self.raises(tier.step)
        disk = self.disks[model]
        return disk is None or not disk.held

    def answer_disk(self, model: int) -> bool:
        """The oldest operation under way ends well. False: there is none."""
        disk, tier = self.disks[model], self.caches[model].tier
        if disk is None or tier is None or not self.is_disk_busy(model):
            return False
        if disk.held:
            disk.answer(0, "well")
        self.raises(tier.step)
        return True

    def is_disk_busy(self, model: int) -> bool:
        """An operation is under way, or has ended and nobody has looked."""
        disk, tier = self.disks[model], self.caches[model].tier
        return disk is not None and tier is not None and bool(disk.held or tier.writing_nbytes)

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:  # else the first failure is the one to tell
            self.finish()

    def finish(self) -> None:
        while getattr(self, "jobs", None):
            moved = [self.step(j) for j in list(self.jobs)]
            answered = [self.answer_disk(model) for model in (0, 1)]
            assert any(moved) or any(answered), "every job waits for another"

    def step(self, job: Job) -> bool:
        """One step, or the end of a job whose cancel is known."""
        run, waiting, leased = job.run, not job.run.is_reading, job.run.lease is not None
        if run.lease is not None and run.lease.holder.ending:
            self.cancel(job)
            return True
        try:
            moved = run.step()
        except RequestError:
            self.refuse(job)
            return True
        except EngineError:
            self.fail(job)
            return True
        if not leased and run.lease is not None and not run.reply:
            self.check_unseen(job, run.lease)
        if waiting and run.is_reading and not run.reply:
            self.check_start(job, run.lease)
        if not moved:
            steps["waits"] += 1
            busy = any(j.run.lease is not None and self.beside(j, job) for j in self.jobs)
            assert busy or self.is_disk_busy(job.talk.model), "a job waits for nothing"
        if run.over:
            self.end(job, cancelled=False)
        return moved

    def fail(self, job: Job) -> None:
        """What a failed job had read may be there again, or not."""
        steps["fails"] += 1
        job.run.over = True
        self.jobs.remove(job)
        self.note(self.torn, job)

    def refuse(self, job: Job) -> None:
        """Only what cannot fit even alone may be refused."""
        steps["refused"] += 1
        cache, run = self.caches[job.talk.model], job.run
        room = self.room_of(job.talk.model)
        aside = cache.tier.in_flight_nbytes - cache.tier.will_free if cache.tier is not None else 0
        assert cache.memory.budget < room(len(run.tokens) + run.max_tokens) + aside
        run.over = True
        self.jobs.remove(job)

    def cancel(self, job: Job) -> None:
        committed = job.run.is_reading
        try:
            job.run.cancel()
        except EngineError:
            self.fail(job)
            return
        self.end(job, cancelled=True, committed=committed)

    def beside(self, a: Job, b: Job) -> bool:
        return a.talk.model == b.talk.model

    def note(self, into: list[dict[str, list[Tokens[int]]]], job: Job) -> None:
        run = job.run
        seen = run.tokens[: run.start + run.prefilled] + tokens_of(run.reply)
        into[job.talk.model].setdefault(job.talk.namespace, []).append(seen)

    def check_start(self, job: Job, lease: Lease | None) -> None:
        """The state has just the tokens that it is under."""
        assert lease is not None and job.run.state is not None
        steps[lease.cached_from] += 1
        start = lease.start
        assert job.run.state.length == lease.sequence.length == start < len(job.run.tokens)
        assert lease.sequence.tokens == job.run.tokens[:start]

    def check_unseen(self, job: Job, lease: Lease) -> None:
        """What was never read is told exactly."""
        tokens, (model, space) = job.run.tokens, (job.talk.model, job.talk.namespace)
        known = self.read[model].get(space, []) + [
            j.run.lease.sequence.tokens
            if j.run.lease is not None
            else j.run.tokens + tokens_of(read_reply(j.run))  # parked: it was filed so far
            for j in self.jobs
            if j is not job and (j.run.lease is not None or j.run.reply)
            if (j.talk.model, j.talk.namespace) == (model, space)
        ]
        most = max((common_length(k, tokens) for k in known), default=0)
        torn = max((common_length(k, tokens) for k in self.torn[model].get(space, [])), default=0)
        seen = len(tokens) - lease.unseen
        assert most <= seen <= max(most, torn), (most, seen, torn)

    def end(self, job: Job, *, cancelled: bool, committed: bool = True) -> None:
        """Judge a job that is over."""
        steps["ends"] += 1
        self.ended += 1
        self.jobs.remove(job)
        run = job.run
        n = len(run.reply) if cancelled else run.max_tokens
        assert self.is_right(job, n), "a warm reply is not the cold one"
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
            assert memory.account().total <= memory.budget or not left

    @invariant()
    def what_was_let_go_is_gone(self) -> None:
        """No state stays alive behind the tree's back. One more is the tier's, and is empty."""
        for cache, alive in zip(getattr(self, "caches", ()), self.states, strict=False):
            known = {id(h.sequence.live) for h in cache.memory.states}
            assert not [s for s in alive if s.length and id(s) not in known], "a state stays alive"

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


def read_reply(run: Any) -> list[int]:
    """The tokens of a reply that are read, too: an engine tells its first token before that."""
    reply: list[int] = getattr(run, "read_reply", run.reply)
    return reply


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
    never = [name for name in RULES if not steps[name]]
    assert n < FEW_STEPS or not never, f"never carried out: {never} in {dict(steps)}"
    return steps
