"""`interlock topics …`: create, check and document the topics, and say who may do what with them."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from services.commands.ending import fail
from services.commands.reaching import LOCAL, Servers, cluster_at

topics = typer.Typer(no_args_is_help=True, help="Create, check, document and guard the topics.")

# The names in the registry, and the Kafka users that they are unless somebody says otherwise.
USERS: Final = {
    "detector": "detector",
    "publisher": "publisher",
    "scheduler": "scheduler",
    "operations systems": "operations",
    "people": "people",
}


@topics.command("create")
def create(
    kafka: Servers = LOCAL,
    replicas: Annotated[int, typer.Option(help="3 in production")] = 3,
    dry_run: Annotated[bool, typer.Option(help="say what would be done")] = False,
) -> None:
    """Create the topics that are missing, as the registry has them."""
    from schemas.topics import TOPICS
    from services.kit.topics import create_topics, topic_differences

    cluster = cluster_at(kafka)
    if dry_run:
        print("\n".join(topic_differences(cluster, TOPICS)) or "nothing to do")
        return
    made = create_topics(cluster, TOPICS, replicas=replicas)
    print("\n".join(f"created {name}" for name in made) or "all topics were there")
    check(kafka)


@topics.command("check")
def check(kafka: Servers = LOCAL) -> None:
    """Compare the cluster's topics with the registry; exits 1 when they differ."""
    from schemas.topics import TOPICS
    from services.kit.topics import topic_differences

    if wrong := topic_differences(cluster_at(kafka), TOPICS):
        fail("\n".join(wrong))
    print(f"{len(TOPICS)} topics are as they must be")


@topics.command("docs")
def docs(
    check_only: Annotated[
        bool, typer.Option("--check", help="only say whether they are stale")
    ] = False,
) -> None:
    """Write the JSON Schemas and the AsyncAPI document beside the models."""
    from schemas.generate import stale, write_all

    if not check_only:
        print("\n".join(f"wrote {path}" for path in write_all()))
    elif wrong := stale():
        fail("stale: " + ", ".join(str(p) for p in wrong) + ". Run `interlock topics docs`")


@topics.command("guard")
def guard(
    kafka: Servers = LOCAL,
    user: Annotated[
        list[str] | None,
        typer.Option(help=f"WHO=USER, for any of {', '.join(USERS)}; repeatable"),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="say what would be allowed")] = False,
) -> None:
    """Write the ACLs by which each service can do what the registry says, and nothing else.

    It only adds: what a cluster allows besides is not taken away. Brokers must run an authorizer.
    """
    from kafka.errors import KafkaError

    from services.kit.topics import new_admin

    rules = rules_for(_users(user or []))
    for who, operation, kind, name in rules:
        print(f"{who} may {operation} {kind} {name}")
    if dry_run:
        return
    try:
        admin = new_admin(cluster_at(kafka))
        try:
            said = admin.create_acls([acl_of(*rule) for rule in rules])
        finally:
            admin.close()
    except KafkaError as error:
        fail(f"--kafka {kafka}: {error}. Brokers need an authorizer, and this user its ALTER")
    if failed := said["failed"]:
        fail("not written: " + "; ".join(str(one) for one in failed))
    print(f"{len(rules)} rules are in force")


Rule = tuple[str, str, str, str]


def rules_for(users: dict[str, str]) -> list[Rule]:
    """Return what each user may do: user, operation, kind of resource, its name (a group's: how it begins).

    A service also looks at every topic when it starts: whether it is as it must be.
    """
    from schemas.topics import TOPICS

    rules: list[Rule] = []
    for topic in TOPICS:
        rules += [(users[who], "write", "topic", topic.name) for who in topic.writers]
        rules += [(users[who], "read", "topic", topic.name) for who in topic.readers]
        for who in ("detector", "publisher", "scheduler"):
            rules += [
                (users[who], look, "topic", topic.name) for look in ("describe", "describe_configs")
            ]
    rules += [(users[who], "read", "group", who) for who in ("detector", "publisher", "scheduler")]
    return sorted(set(rules))


def acl_of(who: str, operation: str, kind: str, name: str) -> Any:
    """Return a rule as kafka-python's admin client takes it."""
    from kafka.admin import (
        ACL,
        ACLOperation,
        ACLPermissionType,
        ACLResourcePatternType,
        ResourcePattern,
        ResourceType,
    )

    how = ACLResourcePatternType.PREFIXED if kind == "group" else ACLResourcePatternType.LITERAL
    pattern = ResourcePattern(ResourceType[kind.upper()], name, how)
    allowed = ACLPermissionType.ALLOW
    return ACL(f"User:{who}", "*", ACLOperation[operation.upper()], allowed, pattern)


def _users(given: list[str]) -> dict[str, str]:
    users = dict(USERS)
    for one in given:
        who, _, user = one.partition("=")
        if who not in users or not user:
            fail(f"--user {one}: WHO=USER was expected, WHO one of {', '.join(USERS)}")
        users[who] = user
    return users
