"""Requests that share a transaction: which, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest, StoreUnavailable
from dalga.store import group_commit
from dalga.store.group_commit import GATHER, LOCKED, SLOW, GroupCommit, Locked
from dalga.store.transactions import BUSY_ATTEMPTS, Abandoned, Busy, Call, Conflict
from tests.fakes import EPOCH


class Transaction:
    """A transaction that was asked for, and ends when it is told to."""

    def __init__(self, work: Callable[..., Any], call: Call, reactor: Clock) -> None:
        self._work = work
        self._reactor = reactor
        self.call = call
        self.answer: Deferred[Any] = Deferred()

    def do(self) -> Any:
        """Do its work, as its thread would."""
        return self._work(None, EPOCH, 0.0)

    def commit(self) -> None:
        """Do its work and commit it."""
        result = self.do()
        self.call.commit()
        self.answer.callback(result)
        self._reactor.advance(GATHER)


class FakeTransactions:
    """Notes the transactions that are asked for."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.reactor.advance(1000)
        #: Whether another would have a connection at once.
        self.has_room = True
        self.begun: list[Transaction] = []

    def run_call(self, work: Callable[..., Any], call: Call, operation: str) -> Deferred[Any]:
        """See `dalga.store.transactions.Transactions`."""
        self.begun.append(Transaction(work, call, self.reactor))
        return self.begun[-1].answer


class GroupCommitTests(SynchronousTestCase):
    """What the requests are is of no matter here: each is answered with itself in capitals."""

    def setUp(self) -> None:
        self.transactions = FakeTransactions()
        #: The arguments of each time that work was done.
        self.done: list[list[str]] = []
        #: What work says of an argument: an exception to give, or to raise.
        self.given: dict[str, Exception] = {}
        self.raised: dict[str, Exception] = {}
        #: What it gives for others than those.
        self.results: dict[str, str | Locked] = {}
        lane: Any = self.transactions
        self.requests: GroupCommit[str, str] = GroupCommit(lane, self.work)

    def work(self, cursor: object, now: object, words: list[str]) -> list[str | Exception | Locked]:
        self.done.append(words)
        for word in words:
            if word in self.raised:
                raise self.raised[word]
        return [self.given.get(word) or self.results.get(word, word.upper()) for word in words]

    def ask(self, words: str) -> dict[str, Deferred[str]]:
        """What the reactor reads in one turn."""
        answers = {word: self.requests.run(word) for word in words.split()}
        self.transactions.reactor.advance(0)
        return answers

    def test_what_comes_at_once_goes_together(self) -> None:
        """A request waits until the reactor has read what else is there, and no longer."""
        answers = {word: self.requests.run(word) for word in "abc"}
        self.assertEqual(self.transactions.begun, [])
        self.transactions.reactor.advance(0)
        self.transactions.begun[0].commit()
        self.assertEqual(self.done, [["a", "b", "c"]])
        for word, answer in answers.items():
            self.assertEqual(self.successResultOf(answer), word.upper())
        self.assertEqual(self.transactions.reactor.getDelayedCalls(), [])

    def test_one_is_locked(self) -> None:
        """P7: what would wait for somebody's lock is done by itself, and nobody waits for it."""
        self.results["b"] = LOCKED
        answers = self.ask("a b c")
        self.transactions.begun[0].commit()
        self.assertEqual(self.successResultOf(answers["a"]), "A")
        self.assertEqual(self.successResultOf(answers["c"]), "C")
        self.ask("d")
        self.assertEqual(len(self.transactions.begun), 3)
        del self.results["b"]
        self.transactions.begun[1].commit()
        self.assertEqual(self.successResultOf(answers["b"]), "B")
        self.assertEqual(self.done, [["a", "b", "c"], ["b"]])

    def test_locked_alone(self) -> None:
        """P5: a request that is locked when it is alone is refused, and its key is free again."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        for words in ("a1", "a2 b2"):  # the first in its group, the second when tried alone
            self.results[words[:2]] = LOCKED
            answers = self.ask(words)
            self.transactions.begun[-1].commit()
            if len(answers) > 1:
                self.transactions.begun[-1].commit()
            self.failureResultOf(answers[words[:2]], Busy)
        answer = self.ask("a3")["a3"]
        self.transactions.begun[-1].commit()
        self.assertEqual(self.successResultOf(answer), "A3")

    def test_a_result_is_missing(self) -> None:
        """P1: a mistake of the work function is found out before the COMMIT."""
        self.requests._work = lambda cursor, now, words: []
        answer = self.ask("a")["a"]
        transaction = self.transactions.begun[0]
        error = self.assertRaises(ValueError, transaction.do)
        transaction.answer.errback(error)
        self.failureResultOf(answer, ValueError)

    def test_no_key_twice(self) -> None:
        """What has the same key goes into the next transaction, in the order in which it came."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        self.ask("a1 b1 a2 c1 a3 b2")
        for number in range(3):
            self.transactions.begun[number].commit()
        self.assertEqual(self.done, [["a1", "b1", "c1"], ["a2", "b2"], ["a3"]])
        self.assertEqual(self.requests._lines, {})

    def test_a_key_that_is_under_way(self) -> None:
        """
        P4: what was said later comes later, though what was said before it waits for a lock, beside
        others or by itself; and it waits no longer for what was abandoned.
        """
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        self.results["a1"] = LOCKED
        answers = self.ask("a1 b1")
        self.transactions.reactor.advance(SLOW)
        answers |= self.ask("a2 c1")
        slow, beside = self.transactions.begun
        beside.commit()
        self.assertEqual(self.done, [["c1"]])
        slow.commit()
        alone = self.transactions.begun[2]
        self.assertEqual(len(self.transactions.begun), 3)
        del self.results["a1"]
        alone.commit()
        self.transactions.begun[3].commit()
        self.assertEqual(self.done, [["c1"], ["a1", "b1"], ["a1"], ["a2"]])
        answers |= self.ask("a3") | self.ask("a4")
        answers["a3"].cancel()
        self.failureResultOf(answers["a3"], CancelledError)
        self.transactions.reactor.advance(0)
        self.assertRaises(Abandoned, self.transactions.begun[4].do)
        self.transactions.begun[4].answer.errback(Abandoned())
        self.transactions.reactor.advance(GATHER)
        self.transactions.begun[5].commit()
        self.assertEqual(self.successResultOf(answers["a4"]), "A4")

    def test_another_kind_of_write(self) -> None:
        """P4: it stands in the line of its key, and is in no group."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        others: dict[str, Deferred[str]] = {}

        def other(word: str) -> Deferred[str]:
            def begin() -> Deferred[str]:
                others[word] = Deferred()
                return others[word]

            return self.requests.run_ungrouped(word[0], begin)

        answers = self.ask("a1")
        deleted, abandoned = other("a2"), other("a3")
        answers |= self.ask("a4 b1")
        elsewhere = other("c1")
        self.assertEqual(list(others), ["c1"])
        others["c1"].callback("C1")
        self.assertEqual(self.successResultOf(elsewhere), "C1")
        self.transactions.begun[0].commit()
        self.assertEqual(list(others), ["c1", "a2"])
        abandoned.cancel()
        self.failureResultOf(abandoned, CancelledError)
        self.transactions.begun[1].commit()
        self.assertEqual(self.done, [["a1"], ["b1"]])
        others["a2"].callback("A2")
        self.assertEqual(self.successResultOf(deleted), "A2")
        self.transactions.reactor.advance(GATHER)
        self.transactions.begun[2].commit()
        self.assertEqual(self.done, [["a1"], ["b1"], ["a4"]])
        self.assertEqual(list(others), ["c1", "a2"])
        self.assertEqual(self.requests._lines, {})

    def test_another_kind_of_write_is_abandoned(self) -> None:
        """Its own Deferred is cancelled, and the next write of its key begins."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        under_way: Deferred[str] = Deferred()
        abandoned = self.requests.run_ungrouped("a", lambda: under_way)
        self.ask("a1")
        self.assertEqual(self.transactions.begun, [])
        abandoned.cancel()
        self.failureResultOf(abandoned, CancelledError)
        self.assertTrue(under_way.called)
        self.transactions.reactor.advance(0)
        self.transactions.begun[0].commit()
        self.assertEqual(self.done, [["a1"]])

    def test_another_kind_of_write_at_a_stop(self) -> None:
        """P5: what waits for its turn fails, and what is under way goes on."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        under_way: Deferred[str] = Deferred()
        first = self.requests.run_ungrouped("a", lambda: under_way)
        begun: list[Deferred[str]] = []

        def begin() -> Deferred[str]:
            begun.append(Deferred())
            return begun[-1]

        waiting = self.requests.run_ungrouped("a", begin)
        self.requests.close()
        late = self.requests.run_ungrouped("a", begin)
        for answer in (waiting, late):
            self.failureResultOf(answer, StoreUnavailable)
        under_way.callback("A")
        self.assertEqual(self.successResultOf(first), "A")
        self.assertEqual(begun, [])

    def test_another_kind_of_write_behind_one_that_a_stop_refuses(self) -> None:
        """P4: a write that the stop has refused is not begun, though it becomes the first."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        begun: list[Deferred[str]] = []

        def begin() -> Deferred[str]:
            begun.append(Deferred())
            return begun[-1]

        answers = [self.requests.run("a1"), self.requests.run_ungrouped("a", begin)]
        self.requests.close()
        for answer in answers:
            self.failureResultOf(answer, StoreUnavailable)
        self.assertEqual(begun, [])
        self.assertEqual(self.requests._lines, {})
        self.assertEqual(self.transactions.reactor.getDelayedCalls(), [])

    def test_another_kind_of_write_that_can_not_begin(self) -> None:
        """P5: it fails, and the next write of its key begins."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])

        def broken() -> Deferred[str]:
            raise ZeroDivisionError

        self.failureResultOf(self.requests.run_ungrouped("a", broken), ZeroDivisionError)
        answers = self.ask("a1")
        behind = self.requests.run_ungrouped("a", broken)
        self.transactions.begun[0].commit()
        self.assertEqual(self.successResultOf(answers["a1"]), "A1")
        self.failureResultOf(behind, ZeroDivisionError)
        self.assertEqual(self.requests._lines, {})

    def test_alone_as_the_others_are_abandoned(self) -> None:
        """P5: the last request of a group that is wanted is refused if its row is locked."""
        self.results["b"] = LOCKED
        answers = self.ask("a b")
        answers["a"].cancel()
        self.failureResultOf(answers["a"], CancelledError)
        self.transactions.begun[0].commit()
        self.assertEqual(self.done, [["b"]])
        self.failureResultOf(answers["b"], Busy)

    def test_not_twice_after_the_commit(self) -> None:
        """P4: whatever kind of error comes of the COMMIT: it may have been written."""
        answers = self.ask("a b")
        transaction = self.transactions.begun[0]
        transaction.do()
        transaction.call.commit()
        transaction.answer.errback(ZeroDivisionError())
        for answer in answers.values():
            self.failureResultOf(answer, ZeroDivisionError)
        self.assertEqual(len(self.transactions.begun), 1)

    def test_closed(self) -> None:
        """P5: a stop answers those who wait, and those who come; what is under way goes on."""
        first = self.ask("a")
        waiting = self.ask("b c") | {"d": self.requests.run("d")}
        self.requests.close()
        late = self.requests.run("e")
        for answer in (*waiting.values(), late):
            self.failureResultOf(answer, StoreUnavailable)
        self.transactions.begun[0].commit()
        self.assertEqual(self.successResultOf(first["a"]), "A")
        self.assertEqual(self.transactions.reactor.getDelayedCalls(), [])

    def test_closed_in_line(self) -> None:
        """P5: the same for those that wait for another write of their key."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        answers = self.ask("a1 a2 a3")
        self.requests.close()
        for word in ("a2", "a3"):
            self.failureResultOf(answers[word], StoreUnavailable)
        self.transactions.begun[0].commit()
        self.assertEqual(self.successResultOf(answers["a1"]), "A1")
        self.assertEqual(len(self.transactions.begun), 1)
        self.assertEqual(self.requests._lines, {})

    def test_closed_in_line_before_it_begins(self) -> None:
        """P5: the same where the first of the line waits, too; no timer is left."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        answers = [self.requests.run(word) for word in ("a1", "a2", "a3")]
        self.requests.close()
        for answer in answers:
            self.failureResultOf(answer, StoreUnavailable)
        self.assertEqual(self.transactions.reactor.getDelayedCalls(), [])
        self.assertEqual(self.requests._lines, {})
        self.requests.close()  # a second time is nothing new

    def test_closed_beside_one_that_is_tried_alone(self) -> None:
        """P1: what is committed after the stop has its answer, though the next was to begin."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        self.results["a1"] = LOCKED
        alone = self.ask("a1 b1")["a1"]
        self.transactions.begun[0].commit()
        del self.results["a1"]
        self.transactions.reactor.advance(GATHER)
        late = self.requests.run("c1")
        self.requests.close()
        self.failureResultOf(late, StoreUnavailable)
        self.transactions.begun[1].commit()
        self.assertEqual(self.successResultOf(alone), "A1")

    def test_closed_before_it_begins(self) -> None:
        """The same for those whose turn of the reactor is not over."""
        answer = self.requests.run("a")
        self.requests.close()
        self.failureResultOf(answer, StoreUnavailable)
        self.assertEqual(self.transactions.reactor.getDelayedCalls(), [])

    def test_abandoned_before_the_commit(self) -> None:
        """
        P4: what is abandoned while it is done must not be written: a late end of it would undo what
        was said since. The others are done once more.
        """
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word)
        answers = self.ask("a b c")
        transaction = self.transactions.begun[0]
        transaction.do()
        answers["b"].cancel()
        self.failureResultOf(answers["b"], CancelledError)
        self.assertRaises(Conflict, transaction.call.commit)
        self.assertFalse(transaction.call.committing)
        transaction.commit()
        self.assertEqual(self.done[1], ["a", "c"])
        self.assertEqual(self.successResultOf(answers["c"]), "C")

    def test_a_read_that_is_abandoned(self) -> None:
        """It undoes nothing of the others."""
        answers = self.ask("a b")
        transaction = self.transactions.begun[0]
        result = transaction.do()
        answers["a"].cancel()
        self.failureResultOf(answers["a"], CancelledError)
        transaction.call.commit()
        transaction.answer.callback(result)
        self.assertEqual(self.successResultOf(answers["b"]), "B")

    def test_many_of_one_key(self) -> None:
        """P7: however many writes of a key wait, a write of another key waits for none of them."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        self.ask(" ".join(f"a{number}" for number in range(2_000)))
        self.ask("b1")
        self.transactions.begun[0].commit()
        self.transactions.begun[1].commit()
        self.assertEqual(self.done, [["a0"], ["b1", "a1"]])

    def test_abandoned_behind_another(self) -> None:
        """P4: a write that is abandoned in its key's line is not done, and those behind it are."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        answers = self.ask("a1 a2 a3")
        answers["a2"].cancel()
        self.failureResultOf(answers["a2"], CancelledError)
        self.transactions.begun[0].commit()
        self.transactions.begun[1].commit()
        self.assertEqual(self.done, [["a1"], ["a3"]])
        self.assertEqual(self.requests._lines, {})

    def test_many_are_abandoned(self) -> None:
        """P5: whatever number is abandoned before it, a request is done."""
        self.ask("x")
        for number in range(2_000):
            answer = self.requests.run(f"a{number}")
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
        self.ask("b")
        self.transactions.begun[0].commit()
        self.assertEqual(len(self.transactions.begun), 2)
        self.transactions.begun[1].commit()
        self.assertEqual(self.done, [["x"], ["b"]])

    def test_a_caller_that_waits(self) -> None:
        """A key is free again, whatever its caller's callbacks do."""
        lane: Any = self.transactions
        self.requests = GroupCommit(lane, self.work, lambda word: word[0])
        for number, callback in enumerate([lambda result: Deferred(), lambda result: 1 / 0]):
            self.requests.run(f"a{number}").addCallback(callback).addErrback(lambda failure: None)
            self.transactions.reactor.advance(0)
            self.transactions.begun[-1].commit()
        answers = self.ask("a2")
        self.transactions.begun[-1].commit()
        self.assertEqual(self.successResultOf(answers["a2"]), "A2")
        self.assertEqual(self.done, [["a0"], ["a1"], ["a2"]])

    def test_what_comes_meanwhile_goes_together(self) -> None:
        """A lone request waits for nobody; those that come while it runs share the next."""
        first = self.ask("a")
        others = self.ask("b c d")
        self.assertEqual(len(self.transactions.begun), 1)
        self.transactions.begun[0].commit()
        self.assertEqual(self.successResultOf(first["a"]), "A")
        self.assertNoResult(others["b"])
        self.transactions.begun[1].commit()
        for word, answer in others.items():
            self.assertEqual(self.successResultOf(answer), word.upper())
        self.assertEqual(self.done, [["a"], ["b", "c", "d"]])
        self.assertEqual(self.transactions.reactor.getDelayedCalls(), [])

    def end(self, number: int) -> None:
        """End a transaction, and what the reactor had to do anyway."""
        reactor = self.transactions.reactor
        self.transactions.begun[number].answer.callback(self.transactions.begun[number].do())
        reactor.advance(0)

    def test_those_that_were_answered_ask_again(self) -> None:
        """What waits at the end waits for them too, until all are there, or for a moment."""
        self.ask("a b")
        self.ask("c")
        self.end(0)
        self.ask("d")
        self.assertEqual(len(self.transactions.begun), 1)
        self.ask("e")
        self.end(1)
        self.assertEqual(self.done, [["a", "b"], ["c", "d", "e"]])
        self.ask("f")
        self.transactions.reactor.advance(GATHER / 2)
        self.assertEqual(len(self.transactions.begun), 2)
        self.transactions.reactor.advance(GATHER / 2)
        self.end(2)
        self.assertEqual(self.done[2:], [["f"]])

    def test_the_moment_is_counted_from_the_end(self) -> None:
        """P7: a group begins `GATHER` after the last one, whenever its first request came."""
        self.ask("a b")
        self.end(0)
        self.transactions.reactor.advance(0.75 * GATHER)
        self.ask("c")
        self.assertEqual(len(self.transactions.begun), 1)
        self.transactions.reactor.advance(0.26 * GATHER)
        self.assertEqual(len(self.transactions.begun), 2)

    def test_who_has_no_answer_is_not_waited_for(self) -> None:
        """P7: who is tried alone sends nothing yet, and who has abandoned its request may not."""
        self.results["b"] = LOCKED
        answers = self.ask("a b c")
        self.ask("d")
        answers["c"].cancel()
        self.failureResultOf(answers["c"], CancelledError)
        self.end(0)
        self.assertEqual(len(self.transactions.begun), 2)  # that of b
        self.ask("e")  # the client that had a
        self.assertEqual(len(self.transactions.begun), 3)

    def test_nobody_is_waited_for_in_vain(self) -> None:
        """Neither by one that comes alone, nor for those that were answered long ago."""
        self.ask("a")
        self.end(0)
        self.ask("b")
        self.assertEqual(len(self.transactions.begun), 2)
        self.ask("c d")
        self.transactions.begun[1].commit()
        self.end(2)
        self.transactions.reactor.advance(1.5 * GATHER)
        self.ask("e")
        self.assertEqual(len(self.transactions.begun), 4)

    def test_no_more_than_fit(self) -> None:
        """P10: a transaction has its limit."""
        self.patch(group_commit, "MAX_GROUP", 2)
        self.ask("a b c d e")
        for number in range(3):
            self.transactions.begun[number].commit()
        self.assertEqual(self.done, [["a", "b"], ["c", "d"], ["e"]])

    def test_as_many_as_fit_wait_for_nobody(self) -> None:
        """P7: nobody who was just answered could be in the next one."""
        self.patch(group_commit, "MAX_GROUP", 2)
        self.ask("a b")
        self.ask("c d")
        self.end(0)
        self.assertEqual(len(self.transactions.begun), 2)

    def test_one_is_refused(self) -> None:
        """What is refused is the answer of its own request only."""
        self.given["b"] = InvalidRequest("no")
        self.ask("x")
        answers = self.ask("a b c")
        self.transactions.begun[0].commit()
        self.transactions.begun[1].commit()
        self.failureResultOf(answers["b"], InvalidRequest)
        self.assertEqual(self.successResultOf(answers["a"]), "A")
        self.assertEqual(self.successResultOf(answers["c"]), "C")

    def test_one_breaks(self) -> None:
        """What undoes the transaction is found out: each is tried alone, and the others go well."""
        self.raised["b"] = ZeroDivisionError()
        self.ask("x")
        answers = self.ask("a b c")
        self.transactions.begun[0].commit()
        self.transactions.begun[1].answer.errback(ZeroDivisionError())
        self.transactions.begun[2].commit()
        self.assertRaises(ZeroDivisionError, self.transactions.begun[3].do)
        self.transactions.begun[3].answer.errback(ZeroDivisionError())
        self.transactions.begun[4].commit()
        self.assertEqual(self.done[1:], [["a"], ["b"], ["c"]])
        self.assertEqual(self.successResultOf(answers["a"]), "A")
        self.failureResultOf(answers["b"], ZeroDivisionError)
        self.assertEqual(self.successResultOf(answers["c"]), "C")

    def test_abandoned_before_each_is_tried(self) -> None:
        """P4: a request that was abandoned is not tried alone."""
        answers = self.ask("a b c")
        answers["b"].cancel()
        self.failureResultOf(answers["b"], CancelledError)
        self.transactions.begun[0].answer.errback(ZeroDivisionError())
        self.assertEqual(len(self.transactions.begun), 3)
        self.transactions.begun[1].commit()
        self.transactions.begun[2].commit()
        self.assertEqual(self.done, [["a"], ["c"]])

    def test_somebody_is_in_the_way(self) -> None:
        """A row that is locked for too long holds up its own request only."""
        self.ask("x")
        answers = self.ask("a b")
        self.transactions.begun[0].commit()
        self.transactions.begun[1].answer.errback(Busy("locked"))
        self.transactions.begun[2].answer.errback(Busy("locked"))
        self.transactions.begun[3].commit()
        self.failureResultOf(answers["a"], StoreUnavailable)
        self.assertEqual(self.successResultOf(answers["b"]), "B")
        attempts = [transaction.call.busy_attempts for transaction in self.transactions.begun]
        self.assertEqual(attempts, [BUSY_ATTEMPTS, 1, BUSY_ATTEMPTS, BUSY_ATTEMPTS])

    def test_the_database_is_away(self) -> None:
        """
        P4: then all of them fail, and none is tried again: it may have been written, if the reply
        to the COMMIT was lost.
        """
        self.ask("x")
        answers = self.ask("a b")
        self.transactions.begun[0].commit()
        self.transactions.begun[1].answer.errback(StoreUnavailable("away"))
        for answer in answers.values():
            self.failureResultOf(answer, StoreUnavailable)
        self.assertEqual(len(self.transactions.begun), 2)

    def test_abandoned_before(self) -> None:
        """P4: what nobody wants any more is not done."""
        self.ask("x")
        answers = self.ask("a b")
        answers["a"].cancel()
        self.failureResultOf(answers["a"], CancelledError)
        self.transactions.begun[0].commit()
        self.transactions.begun[1].commit()
        self.assertEqual(self.done, [["x"], ["b"]])

    def test_abandoned_after_the_commit(self) -> None:
        """What is committed already goes on to its end, which nobody hears of."""
        answer = self.ask("a")["a"]
        transaction = self.transactions.begun[0]
        result = transaction.do()
        transaction.call.commit()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        transaction.answer.callback(result)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_slow_one_on_the_only_connection(self) -> None:
        """P7: where there is no other connection, what waits waits on, and stays together."""
        self.transactions.has_room = False
        self.ask("a")
        self.ask("b c")
        self.transactions.reactor.advance(3 * SLOW)
        self.assertEqual(len(self.transactions.begun), 1)
        self.transactions.has_room = True
        self.transactions.reactor.advance(SLOW)
        self.assertEqual(len(self.transactions.begun), 2)

    def test_all_abandoned_before_the_commit(self) -> None:
        """P10: a transaction that nobody wants any more is not run again, and ends there."""
        lane: Any = self.transactions
        for requests in (self.requests, GroupCommit(lane, self.work, lambda word: word)):
            self.requests = requests
            answer = self.ask("a")["a"]
            transaction = self.transactions.begun[-1]
            transaction.do()
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
            transaction.call.abandon()  # as `Transactions` does when it is cancelled
            self.assertRaises(Abandoned, transaction.call.commit)

    def test_abandoned_while_it_waits_for_a_connection(self) -> None:
        """P10: a transaction that nobody wants any more gives up its place."""
        answers = self.ask("a")
        answers["a"].cancel()
        self.failureResultOf(answers["a"], CancelledError)
        self.assertTrue(self.transactions.begun[0].answer.called)

    def test_all_abandoned(self) -> None:
        """The next transaction is begun after one that nobody wants."""
        answer = self.ask("a")["a"]
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.ask("b")
        self.assertRaises(Abandoned, self.transactions.begun[0].do)
        self.transactions.begun[-1].commit()
        self.assertEqual(self.done, [["b"]])

    def test_a_slow_one(self) -> None:
        """P5: a transaction that waits for a lock holds up the others for a moment only."""
        slow = self.ask("a")["a"]
        others = self.ask("b c")
        self.transactions.reactor.advance(SLOW)
        self.transactions.begun[1].commit()
        self.assertEqual(self.successResultOf(others["b"]), "B")
        self.transactions.begun[0].commit()
        self.assertEqual(self.successResultOf(slow), "A")
        self.ask("d")
        self.ask("e")
        self.assertEqual(len(self.transactions.begun), 3)  # still one at a time

    def test_a_slow_one_ends(self) -> None:
        """P7: its end begins no other while the one that was begun beside it goes on."""
        self.ask("a")
        self.ask("b")
        self.transactions.reactor.advance(SLOW)
        self.transactions.begun[0].commit()
        self.ask("c")
        self.assertEqual(len(self.transactions.begun), 2)
        self.transactions.begun[1].commit()
        self.assertEqual(len(self.transactions.begun), 3)
