"""Faults put into the real code on purpose, as changes of its text: the simulation must find each.

A change is made while its module is imported, in a process of its own; the file stays as it is. A text that
is not there (any more), or not once, is an error: a mutant that changes nothing would prove nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any

Change = tuple[str, str, str]  # Module, what is there, what stands in its place.
_OUTBOX, _DETECTOR = "services.detector.outbox", "services.detector.stream"
_STREAM, _DELIVERY = "services.publisher.stream", "services.publisher.delivery"
_FENCES = "services.publisher.fences"
_GATE, _LEDGER = "services.publisher.gate", "services.publisher.ledger"
_CLEARANCE, _JOB, _ENDS = (
    "services.publisher.clearance",
    "services.publisher.job",
    "services.publisher.ends",
)
_TAKE_BACK, _HOLDS = "services.publisher.takeback", "schemas.holds"
_AGAIN, _OUTCOMES, _LANES, _HANDS = (
    "services.scheduler.again",
    "services.scheduler.outcome_store",
    "services.scheduler.lane_store",
    "services.scheduler.stream",
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault, and its changes."""

    what: str
    changes: tuple[Change, ...]
    queued: bool = False  # It needs the real queue.


MUTANTS: dict[str, Mutant] = {
    "no_fence": Mutant(
        "offers go out without a fence",
        ((_GATE, "    if passed is None:", "    if passed is None or passed:\n        return Cleared(post, math.inf, 0)\n    if passed is None:"),),
    ),
    "one_partition": Mutant(
        "one partition's echo is enough",
        ((_FENCES, "now_s=begun_s, partitions=DISRUPTIONS.partitions)", "now_s=begun_s, partitions=1)"),),
    ),
    "holds_late": Mutant(
        "an echo overtakes the holds before it",
        ((_DETECTOR, "await self.outbox.emit(output, event_id, traceparent=found.traceparent)",
          ("asyncio.get_running_loop().call_later(0.6, lambda o=output, e=event_id:"
          " asyncio.ensure_future(self.outbox.emit(o, e)))")),),
    ),
    "snapshot_early": Mutant(
        "a snapshot before its outputs are acknowledged",
        ((_DETECTOR, "            await said  #", "            _ = said  #"),),
    ),
    "no_state": Mutant(
        "a restart without the state before the offset",
        ((_DETECTOR, "ours = Partition(state=state,", "ours = Partition(state=State(policy=state.policy),"),),
    ),
    "no_replay": Mutant(
        "a restart at the end of the log",
        ((_DETECTOR, "            self.disruptions.seek(tp.partition, max(offset, start))",
          "            ours.offset = (await consumer.end_offsets([tp]))[tp]\n            consumer.seek(tp, ours.offset)"),),
    ),
    "reused_id": Mutant(
        "the id of a released hold is used again",
        (("services.detector.state", "        return self.entry.new_id(kind, number)",
          "        return f'hold-{self.entry.partition}-0-0' if kind == 'hold' else self.entry.new_id(kind, number)"),),
    ),
    "echo_after_failed": Mutant(
        "an echo behind a hold that could not be written",
        ((_OUTBOX, 'self._crash("an output could not be written", future.exception())', "self._outputs.discard(future)"),
         (_OUTBOX, "        await _all(behind)", "        await asyncio.gather(*behind, return_exceptions=True)")),
    ),
    "gap_unseen": Mutant(
        "a detector does not see that records are gone",
        ((_DETECTOR, "            await self._see_losses(fresh)\n", ""),),
    ),
    "zombie_state": Mutant(
        "a partition that was taken away is still believed to be ours",
        ((_DETECTOR, "                    del self.partitions[partition]", "                    pass"),),
    ),
    "stale_records": Mutant(
        "records that were fetched before a rebalance are handed on after it",
        (("services.kit.broker", "min(passed.get(partition, 0), next_.get(partition, offset + 1))",
          "next_.get(partition, offset + 1)"),),
    ),
    "orphans_stand": Mutant(
        "a hold whose beginning is lost is ended by nobody",
        (("services.detector.orphans", "if hold.author == OURSELVES and", "if False and"),),
    ),
    "orphans_shown": Mutant(
        "an incident whose beginning is lost is closed by nobody",
        (("services.detector.orphans", "if has_looked and one.incident_id in before", "if False"),),
    ),
    "passed_unread": Mutant(
        "what a client passed over is read by nobody",
        (("services.kit.gaps", "if offset > expected and not self._was_missing(partition, (expected, offset))", "if False"),),
    ),
    "lets_nobody_by": Mutant(
        "an update that is never taken keeps its incident's next ones",
        (("services.publisher.failures", "> LET_BY_S", "> 1e9"),),
    ),
    "old_behind_new": Mutant(
        "an update is tried for ever, though a later one is out",
        (("services.publisher.turns", "        job.overtaken = True", "        pass"),),
    ),
    "again_is_later": Mutant(
        "what a detector says again counts as later",
        (("services.publisher.turns", " and job.post.due_at < at", ""),),
    ),
    "one_for_all": Mutant(
        "a post that is never taken keeps its account's offers",
        (("services.publisher.failures", "        if not job.lets_by:", "        if job:"),),
    ),
    "lease_from_echo": Mutant(
        "the lease measured from the echo",
        ((_FENCES, "Passed(number=fence.number, begun_s=fence.begun_s,", "Passed(number=fence.number, begun_s=now_s,"),),
    ),
    "no_last_check": Mutant(
        "no look at the lease right before the send",
        ((_GATE, "        if now_s >= self.until_s:", "        if False:"),),
    ),
    "not_renewed": Mutant(
        "what ran out while a channel connected is relied on all the same",
        ((_CLEARANCE, "            self.cleared = await self.renew()\n", "            return\n"),),
    ),
    "open_wins": Mutant(
        "a repeated hold opens again what was released",
        ((_HOLDS, "if fact.hold_id in self._released or fact.hold_id in self._open:", "if fact.hold_id in self._open:"),),
    ),
    "update_waits": Mutant(
        "status updates wait at the gate",
        ((_GATE, '    if post.kind == "update":', "    if False:"),),
    ),
    "no_take_back": Mutant(
        "a hold does not take back what is out",
        ((_TAKE_BACK, "        until = self.clock.now()  # What goes out", "        return\n        until = self.clock.now()  # What goes out"),),
    ),
    "doubt_unlooked": Mutant(
        "what may have gone out is not looked for when a hold covers it",
        ((_LEDGER, '    if can.reads_back != "none" and not looked:\n        return LookUp()\n    if can.reads_back == "exact" and parts',
          "    if looked and parts"),),
    ),
    "left_retracting": Mutant(
        "a retraction that was begun and left is never ended",
        ((_STREAM, "            await self.delivery.take_back.resume()", "            pass"),),
    ),
    "commit_early": Mutant(
        "a group commits what is not settled",
        (("services.publisher.offsets", "min(self._open[p], default=end)", "end"),),
    ),
    "passed_commit": Mutant(
        "a group commits beyond the offers that were passed over",
        (("services.publisher.queues", "committable(lambda partition: self._passed[partition].floor)",
          "committable()"),),
    ),
    "fresh_keys": Mutant(
        "every try has a key of its own",
        ((_DELIVERY, "await channel.publish(clearance, key=key)",
          "await channel.publish(clearance, key=f'{job.post.post_id}.{job.failures}')"),),
    ),
    "thread_again": Mutant(
        "what is out of a thread is not remembered",
        ((_JOB, "            self.so_far = failure.so_far or self.so_far\n", ""),),
    ),
    "adopted_unanswered": Mutant(
        "of what another publisher adopted, and lost its partition, nobody says what became",
        ((_DELIVERY, "            job.recorded = False\n            return await self._was_settled(job)\n", "            return True\n"),),
    ),
    "thread_forgotten": Mutant(
        "a hold between two parts of a thread is as one before the first",
        ((_DELIVERY, "        if job.so_far is not None:\n            await self.ends.end_in_part(job, reason)\n        elif", "        if"),),
    ),
    "thread_unlooked": Mutant(
        "the parts of a thread go out on the clearance of the first",
        (("services.publisher.channels.threads", "made = await self._send(clearance, part)",
          ("made = await self._send(clearance if number == 0 else"
          " Clearance(type(clearance.cleared)(clearance.post, 1e9, 0), clearance.now_s), part)")),),
    ),
    "blind_resend": Mutant(
        "an offer whose outcome is unknown is sent again where nothing knows its key",
        ((_LEDGER, '    if kind == "update":\n        return SendAgain()', "    if kind:\n        return SendAgain()"),),
    ),
    "adopt_as_new": Mutant(
        "an intent that a dead publisher left is taken for one that was not sent",
        ((_JOB, 'True, entry.intent_at, entry.publisher != ""', "True, entry.intent_at, False"),),
    ),
    "answer_forgotten": Mutant(
        "what a network answered is forgotten where the ledger does not answer",
        ((_ENDS, "job.sent, at = (attempt, made), self.clock.now()", "at = self.clock.now()"),),
    ),
    "answer_unbelieved": Mutant(
        "what another publisher took over stays over, though the network has answered whoever sent it",
        ((_LEDGER, '"withdrawn": frozenset({"sent"})', '"withdrawn": frozenset()'),
         (_LEDGER, '"uncertain": frozenset({"sent"})', '"uncertain": frozenset()')),
    ),
    "looked_too_soon": Mutant(
        "what is not there while the network may be at work on it is not there",
        (("services.publisher.doubts", "if not isinstance(next_, SendAgain) and self._may_still_land(job, since_s=since_s):", "if False:"),),
    ),
    "left_blindly": Mutant(
        "a publisher that hands a post over says that it was not sent, whatever became of it",
        ((_DELIVERY, "if not job.recorded or job.under_way or job.maybe_sent or job.sent is not None:", "if not job.recorded:"),),
    ),
    "held_unwritten": Mutant(
        "what the gate holds is said, and not written down",
        ((_DELIVERY, "elif await self.store.record_unsent(", "elif not job.recorded or await self.store.record_unsent("),),
        queued=True,
    ),
    "opened_in_1970": Mutant(
        "a hold for lost records was opened before all time",
        ((_DETECTOR, "            at=at,\n            body=gone,", "            at=datetime.fromtimestamp(0, UTC),\n            body=gone,"),),
        queued=True,
    ),
    "stale_forgotten": Mutant(
        "what a scheduler claimed that died is claimed by nobody again",
        ((_AGAIN, "SELECT post_id FROM posts WHERE state = 'claimed'", "SELECT post_id FROM posts WHERE state = 'lost'"),),
        queued=True,
    ),
    "sent_back_untold": Mutant(
        "a lane is not told of what the gate sent back",
        ((_OUTCOMES, "        if held:  # Its lane", "        if False:  # Its lane"),),
        queued=True,
    ),
    "handed_early": Mutant(
        "an offer counts as handed over before Kafka has it",
        ((_HANDS, "        await self._settle_too_large(due,",
          "        self._handed += [post.post.post_id for _, _, post in due]\n        await self._settle_too_large(due,"),),
        queued=True,
    ),
    "recovered_unsettled": Mutant(
        "a lane opens before what it kept back is settled",
        ((_LANES, "if not await _recover_some(connection, lane)]", "]"),),
        queued=True,
    ),
}  # fmt: skip


class _Loader(SourceFileLoader):
    def __init__(self, spec: ModuleSpec, changes: Sequence[Change]) -> None:
        super().__init__(spec.name, str(spec.origin))
        self.changes = changes

    def get_code(self, fullname: str) -> Any:
        text = self.get_data(self.path).decode()
        for _, there, instead in self.changes:
            if text.count(there) != 1:
                raise LookupError(f"{fullname} has {text.count(there)} times, not once: {there}")
            text = text.replace(there, instead)
        return compile(text, self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        changes = [change for change in self.mutant.changes if change[0] == fullname]
        spec = PathFinder.find_spec(fullname, path, target) if changes else None
        if spec is not None:
            spec.loader = _Loader(spec, changes)
        return spec


def put_in(name: str) -> None:
    """Change the code of this process; before anything of the services is imported."""
    changed = {change[0] for change in MUTANTS[name].changes}
    assert not changed & sys.modules.keys(), "it was imported before"
    sys.meta_path.insert(0, _Finder(MUTANTS[name]))
