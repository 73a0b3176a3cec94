"""What is checked of the model: the protocol within bounds, and the faults that must be found.

Bounds are the macros at the top of `fence.pml`; what is not named here has its default there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Bounds = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Case:
    """A bounded world in which every order of what may happen is tried. `long`: not in CI."""

    what: str
    bounds: Bounds
    long: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the protocol left out; a check that does not find it counts for nothing."""

    switch: str
    what: str
    bounds: Bounds


_ONE: Final = {"P": 1, "EVENTS": 1, "FENCES": 1}
_COUNTING: Final = {"P": 1, "EVENTS": 2, "FENCES": 1, "NEED": 2}

CASES: Final = (
    Case("report, all-clear, report again", {"P": 1, "EVENTS": 3, "FENCES": 1}),
    Case("a rule that counts to two", _COUNTING | {"EVENTS": 3}),
    Case("two partitions", {"P": 2, "EVENTS": 1, "FENCES": 1}),
    Case("leases run out, two fences", _ONE | {"FENCES": 2, "TIME": 1}),
    Case("long times, and the cleaner", _ONE | {"LONGS": 1, "CLEANINGS": 1}),
    Case("somebody adds a partition", _ONE | {"EVENTS": 2, "GROWS": 1, "REBALANCES": 0}),
    Case("retention removes what was not read", _ONE | {"EVENTS": 2, "CUTS": 1}),
    Case("a new policy", _ONE | {"EVENTS": 2, "POLICIES": 1}),
    Case("sends, take-back, a publisher dies", _ONE | {"FENCES": 2, "SENDS": 1, "RESTARTS": 1}),
    Case("two events, two fences", {"P": 1, "EVENTS": 2, "FENCES": 2}, long=True),
    Case("two partitions, two events", {"P": 2, "EVENTS": 2, "FENCES": 1}, long=True),
    Case("two crashes, two snapshots", _ONE | {"EVENTS": 2, "CRASHES": 2, "SNAPSHOTS": 2}, long=True),
    Case("the cleaner, two events", _ONE | {"EVENTS": 2, "LONGS": 1, "CLEANINGS": 1}, long=True),
    Case("time, sends and a publisher that dies",
         _ONE | {"FENCES": 2, "TIME": 1, "SENDS": 1, "RESTARTS": 1}, long=True),
)  # fmt: skip

FAULTS: Final = (
    Fault("NO_FENCE", "offers go out without a fence", _ONE | {"TIME": 1}),
    Fault("ECHO_FIRST", "a fence is echoed before the holds in front of it", _ONE),
    Fault("ONE_PARTITION", "one partition's echo is not waited for", _ONE | {"P": 2}),
    Fault("SNAPSHOT_EARLY", "a snapshot before its outputs are acknowledged", _ONE),
    Fault("ECHO_UNSETTLED", "a snapshot that does not wait for echoes", _ONE),
    Fault("NO_STATE", "a restart without the state before the offset", _COUNTING),
    Fault("REUSED_ID", "the id of a released hold is used again", _ONE | {"EVENTS": 3}),
    Fault("NO_LAG", "compaction that does not trail the fences", _ONE | {"CLEANINGS": 1}),
    Fault("ECHO_AFTER_FAILED", "an echo behind a hold that could not be written", _ONE),
    Fault("GROUP_OFFSET", "a restart at the group's offset, not the snapshot's", _COUNTING),
    Fault("STALE_COUNT", "partitions counted at the start only", _ONE | {"GROWS": 1}),
    Fault("LEASE_FROM_ECHO", "the lease measured from the echo", _ONE | {"TIME": 1}),
    Fault("RETENTION_UNSEEN", "a restore that does not see what is gone", _ONE | {"CUTS": 1}),
    Fault("CUT_UNSEEN", "a detector that runs does not see what is gone", _ONE | {"CUTS": 1}),
    Fault("POLICY_FILE", "the policy in a file and not in the log", _ONE | {"POLICIES": 1}),
    Fault("NO_REPLAY", "a restart at the end of the log", _ONE),
    Fault("OPEN_WINS", "a repeated hold opens again what was released", _ONE | {"EVENTS": 2}),
    Fault("UPDATE_WAITS", "status updates wait at the gate", _ONE),
    Fault("NO_TAKE_BACK", "a hold does not take back what is out", _ONE | {"SENDS": 1}),
    Fault("ON_ITS_WAY", "what was on its way when the hold came stays", _ONE | {"SENDS": 1}),
)  # fmt: skip
