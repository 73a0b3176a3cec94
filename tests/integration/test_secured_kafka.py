"""Kafka with TLS, SCRAM and ACLs: the services run as who they are, and a stolen password opens one door.

The ACLs are those that `interlock topics guard` writes, from the registry.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from kafka import KafkaProducer
from kafka.admin import ACLFilter
from kafka.errors import TopicAuthorizationFailedError
from typer.testing import CliRunner

from ops.embedded.nursery import Nursery
from ops.embedded.system import SERVICES, System
from schemas import envelope
from schemas.base import Record
from schemas.disruptions import Disruption, ReleaseHold
from schemas.signing import SIGNED_S, SigningKeys
from schemas.topics import DISRUPTIONS, DUE, HOLDS, OUTCOMES, SNAPSHOTS, TOPICS, Topic
from services.cli import app
from services.commands.topics import USERS, acl_of
from services.detector.state import partition_of
from services.kit.cluster import Cluster
from services.kit.settings import read_file
from services.kit.topics import new_admin
from tests.builders import at_once
from tests.journey import Journey, wait_for
from tests.secured import ADMIN, Secured, secured_kafka

ANSWER_S = 20


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as found:
        yield found


@pytest.fixture(scope="module")
def signing(secured: Secured) -> dict[str, Path]:
    """Return files of signing keys: the detectors' has all, the control room's its own."""
    made = {}
    for who, words in {"control": [], "detector": ["--everything"]}.items():
        told = CliRunner().invoke(app, ["keys", "signing", who, *words])
        made[who] = secured.folder / f"{who}.yaml"
        made[who].write_text(told.output)
    with made["detector"].open("a") as file:
        file.write(made["control"].read_text().removeprefix("keys:\n"))
    return made


@pytest.fixture(scope="module")
def guarded(
    secured: Secured,
    signing: dict[str, Path],
    nursery: Nursery,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[System]:
    """Return a system of which each service is a user of its own, and commands are signed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("INTERLOCK_DATABASE", raising=False)
        for name, value in secured.environment(ADMIN).items():
            patch.setenv(name, value)
        told = CliRunner().invoke(app, ["topics", "guard"])
        assert told.exit_code == 0, told.output
        system = System(
            tmp_path_factory.mktemp("guarded"), progress=lambda _: None, replicas=1,
            env={"INTERLOCK_SIGNING_KEYS": str(signing["detector"])}, nursery=nursery,
        )  # fmt: skip
        system.env_of |= {name: secured.environment(name) for name in SERVICES}
        with system:
            with system.client("detector", "admin") as admin:
                admin.put("/v1/policy", json=at_once()).raise_for_status()
            yield system


@pytest.fixture
def told(guarded: System) -> Iterator[Journey]:
    with Journey(guarded) as made:
        yield made


def write(
    cluster: Cluster,
    topic: Topic,
    record: Record | None = None,
    *,
    signing: SigningKeys | None = None,
    at: datetime | None = None,
) -> None:
    """Write a record, signed at a time, or some bytes; raises what the broker says."""
    value, headers = b"{}", {}
    partition = partition_of(record.hold_id) if isinstance(record, ReleaseHold) else None
    if record is not None:
        value = envelope.write_value(record)
        name: dict[str, Any] = {"event_id": uuid.uuid4().hex, "source": "/forged"}
        headers = envelope.write_headers(record, **name)
        if signing is not None and at is not None:
            headers |= signing.headers_of(record, value, at=at, **name)
    pairs = [(name, text.encode()) for name, text in headers.items()]
    producer: Any = KafkaProducer(**cluster.options(), acks="all")
    try:
        producer.send(topic.name, value, key=b"x", headers=pairs, partition=partition).get(
            timeout=ANSWER_S
        )
    finally:
        producer.close()


def allowed(cluster: Cluster) -> dict[str, set[str]]:
    """Ask the broker what this user may do with each topic."""
    admin = new_admin(cluster)
    try:
        found = admin.describe_topics()
    finally:
        admin.close()
    return {topic["name"]: set(topic["authorized_operations"]) for topic in found}


def test_a_disruption_silences_and_speaks_behind_tls_and_acls(told: Journey) -> None:
    before = told.hand_over(1)
    wait_for("the offer", lambda: told.seen(among=before))
    told.event()
    wait_for("the update", told.updates)
    wait_for("the hold", told.holds)
    campaign = told.campaign(recovery={"plan": "resume"})
    (offer,) = told.offers(campaign, {"labels": {"line": "coast"}})
    told.wait_state(offer, "held")
    told.event(status="resolved")
    wait_for("the release", lambda: not told.holds())
    told.wait_state(offer, "published")


@pytest.mark.parametrize("who", USERS)
def test_each_user_may_do_what_the_registry_says_and_nothing_else(
    guarded: System, secured: Secured, who: str
) -> None:
    found = allowed(secured.cluster(USERS[who]))
    looks = {"DESCRIBE", "DESCRIBE_CONFIGS"} if who in SERVICES else set()
    for topic in TOPICS:
        may = {"READ"} if who in topic.readers else set()
        may |= {"WRITE"} if who in topic.writers else set()
        assert found.get(topic.name, set()) == may | ({"DESCRIBE"} if may else set()) | looks, topic


def test_a_stolen_publisher_cannot_write_holds_or_due_posts(
    guarded: System, secured: Secured
) -> None:
    for topic in (HOLDS, DUE, SNAPSHOTS):
        with pytest.raises(TopicAuthorizationFailedError):
            write(secured.cluster("publisher"), topic)


def test_a_stolen_publisher_can_write_a_command_and_nobody_believes_it(
    secured: Secured, told: Journey
) -> None:
    hold_id = told.hold('{line="coast"}')
    forged = ReleaseHold(hold_id=hold_id, reason="it is over", author="ann")
    write(secured.cluster("publisher"), DISRUPTIONS, forged)
    wait_for("the precaution", lambda: unproven(told))
    assert hold_id in {hold["hold_id"] for hold in told.holds()}


def test_a_command_of_before_that_somebody_writes_again_is_not_believed(
    secured: Secured, signing: dict[str, Path], told: Journey
) -> None:
    hold_id = told.hold('{line="coast"}')
    keys = read_file(signing["detector"], SigningKeys)
    release = ReleaseHold(hold_id=hold_id, reason="it is over", author="ann")
    before = datetime.now(UTC) - timedelta(seconds=SIGNED_S + 60)
    write(secured.cluster("publisher"), DISRUPTIONS, release, signing=keys, at=before)
    wait_for("the precaution", lambda: unproven(told, "was made "))
    assert hold_id in {hold["hold_id"] for hold in told.holds()}
    write(secured.cluster("publisher"), DISRUPTIONS, release, signing=keys, at=datetime.now(UTC))
    wait_for("the release", lambda: hold_id not in {hold["hold_id"] for hold in told.holds()})


def test_an_operations_system_signs_what_it_writes(
    secured: Secured, signing: dict[str, Path], told: Journey, tmp_path: Path
) -> None:
    file = tmp_path / "event.json"
    data = {
        "disruption_id": "d-1",
        "network": told.network,
        "status": "opened",
        "title": "Standing",
    }
    event = {"specversion": "1.0", "id": "e-1", "source": "/control", "type": Disruption.TYPE}
    file.write_text(json.dumps(event | {"data": data}))
    send = ["events", "send", str(file), "--format", "cloudevents"]
    operations = CliRunner(env=secured.environment("operations"))
    sent = operations.invoke(app, [*send, "--signing-keys", str(signing["control"])])
    assert sent.exit_code == 0, sent.output
    wait_for("its hold", told.holds)
    assert not unproven(told)
    sent = operations.invoke(app, send)
    assert sent.exit_code == 0, sent.output
    wait_for("the precaution", lambda: unproven(told))


def unproven(told: Journey, why: str = "is missing") -> list[dict[str, Any]]:
    """Return the holds on everything that an unsigned record opened, or one that is wrong otherwise."""
    said = f"unreadable event: interlock-signature: {why}"
    return [hold for hold in told.holds() if hold["reason"].startswith(said)]


def test_a_user_without_rules_is_told_so_and_takes_no_topic_for_empty(
    guarded: System, secured: Secured
) -> None:
    told = CliRunner(env=secured.environment("operations")).invoke(app, ["topics", "check"])
    assert told.exit_code == 1
    assert f"{HOLDS.name} is missing, or this user may not see it" in told.output
    assert f"{DISRUPTIONS.name}: this user may not see how it is set" in told.output


@pytest.mark.parametrize("wrong", ["password", "authority", "nobody"])
async def test_who_is_not_known_is_not_let_in(secured: Secured, wrong: str) -> None:
    given = {
        "password": Cluster(
            secured.servers, tls=True, ca=secured.ca, user="detector",
            password_file=secured.password_file("publisher"),
        ),
        "authority": Cluster(
            secured.servers, tls=True, user="detector",
            password_file=secured.password_file("detector"),
        ),
        "nobody": Cluster(secured.servers, tls=True, ca=secured.ca),
    }[wrong]  # fmt: skip
    producer = AIOKafkaProducer(**given.options(), request_timeout_ms=5_000)
    try:
        with pytest.raises(KafkaError):
            await producer.start()
    finally:
        await producer.stop()


def test_a_password_is_in_no_log(guarded: System, secured: Secured) -> None:
    passwords = [secured.password_file(user).read_text().strip() for user in (ADMIN, *SERVICES)]
    logs = list((guarded.data / "logs").glob("*.log"))
    assert logs
    for log in logs:
        assert not any(password in log.read_text() for password in passwords), log


def test_a_detector_that_may_no_longer_write_holds_ends_and_offers_wait(
    guarded: System, secured: Secured, told: Journey
) -> None:
    rule = acl_of("detector", "write", "topic", HOLDS.name)
    admin = new_admin(secured.cluster(ADMIN))
    try:
        admin.delete_acls([ACLFilter(**vars(rule))])
        told.event()
        wait_for("the detector's end", lambda: guarded.children["detector"].ended() is not None)
        wait_for("the lease's end", lambda: told.gate()["state"] == "waiting")
        waiting = told.hand_over(3)
        wait_for("the gate", lambda: told.gate()["waiting_offers"])
        admin.create_acls([rule])
    finally:
        admin.close()
    assert not told.seen(among=waiting)
    assert "TopicAuthorizationFailedError" in (guarded.data / "logs" / "detector.log").read_text()
    guarded.replace("detector")
    wait_for("the hold", told.holds)
    told.event(status="resolved")


WRONG = (
    ("INTERLOCK_KAFKA_PASSWORD_FILE", "publisher.password", "does not let us in as detector"),
    ("INTERLOCK_KAFKA_USER", "", "INTERLOCK_KAFKA_PASSWORD_FILE go together"),
    ("INTERLOCK_KAFKA_PASSWORD_FILE", "none", "No such file or directory"),
    ("INTERLOCK_SIGNING_KEYS", "control.yaml", "keys: the first must be one that may sign"),
)


@pytest.fixture(scope="module")
def ended(secured: Secured, signing: dict[str, Path]) -> dict[tuple[str, ...], tuple[int, str]]:
    """Return how detectors with a wrong setting ended: its code, and what it said; all begun at once."""
    assert signing

    def end(wrong: tuple[str, str, str]) -> tuple[int, str]:
        name, value, _ = wrong
        env = {**os.environ, **secured.environment("detector"), "INTERLOCK_PORT": "0"}
        env[name] = str(secured.folder / value) if value else ""
        command = [sys.executable, "-m", "services.cli", "serve", "detector"]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=ANSWER_S * 3, check=False
        )
        return done.returncode, done.stdout + done.stderr

    with ThreadPoolExecutor(len(WRONG)) as pool:
        return dict(zip(WRONG, pool.map(end, WRONG), strict=True))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong[2])
def test_a_service_that_is_not_let_in_says_why_and_ends(
    ended: dict[tuple[str, ...], tuple[int, str]], wrong: tuple[str, str, str]
) -> None:
    code, said = ended[wrong]
    assert code != 0
    assert wrong[2] in said, said


def test_what_the_rules_would_be_is_told_before() -> None:
    told = CliRunner().invoke(app, ["topics", "guard", "--dry-run", "--user", "detector=det-1"])
    assert told.exit_code == 0, told.output
    assert f"det-1 may write topic {HOLDS.name}" in told.output
    assert f"publisher may write topic {OUTCOMES.name}" in told.output
    assert f"publisher may write topic {HOLDS.name}" not in told.output
    wrong = CliRunner().invoke(app, ["topics", "guard", "--dry-run", "--user", "detector"])
    assert wrong.exit_code == 1
    assert "WHO=USER was expected" in wrong.output
