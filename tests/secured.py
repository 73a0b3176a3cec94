"""A Kafka broker that asks who is there: TLS, SCRAM-SHA-512 and Kafka's own authorizer, on loopback."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ops.embedded import kafka
from ops.embedded.process import free_port, wait_until
from services.commands.topics import USERS
from services.kit.cluster import Cluster

ADMIN = "admin"
HOST = "127.0.0.1"
READY_S = 60


@dataclass(frozen=True)
class Secured:
    """The broker's address, and the files by which each of its users reaches it."""

    servers: str
    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def password_file(self, user: str) -> Path:
        return self.folder / f"{user}.password"

    def environment(self, user: str) -> dict[str, str]:
        """Return what a process is told that is this user."""
        return {
            "INTERLOCK_KAFKA": self.servers,
            "INTERLOCK_KAFKA_CA": str(self.ca),
            "INTERLOCK_KAFKA_USER": user,
            "INTERLOCK_KAFKA_PASSWORD_FILE": str(self.password_file(user)),
        }

    def cluster(self, user: str) -> Cluster:
        """Return the cluster as this user reaches it."""
        return Cluster(
            self.servers, tls=True, ca=self.ca, user=user, password_file=self.password_file(user)
        )


@contextmanager
def secured_kafka(folder: Path) -> Iterator[Secured]:
    """Run a broker that lets in `admin`, who may all, and the users of the registry, who may nothing yet."""
    found = Secured(f"{HOST}:{free_port()}", folder)
    for user in (ADMIN, *USERS.values()):
        found.password_file(user).write_text(secrets.token_hex(16) + "\n")
    _certify(found)
    node = kafka.Node(1, int(found.servers.rpartition(":")[2]), free_port())
    users = [
        f"SCRAM-SHA-512=[name={user},password={found.password_file(user).read_text().strip()}]"
        for user in (ADMIN, *USERS.values())
    ]
    child = kafka.start(
        folder / "kafka",
        node,
        [node],
        log=folder / "kafka.log",
        progress=lambda _: None,
        options=_options(found, node),
        users=users,
    )
    try:
        wait_until(
            lambda: kafka.answers(found.cluster(ADMIN)),
            what="Kafka",
            child=child,
            patience_s=READY_S,
        )
        yield found
    finally:
        child.stop()


def _certify(found: Secured) -> None:
    """Write an authority, and the broker's chain with its key as PKCS #8, which is all Kafka reads."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(found.ca)
    made = authority.issue_cert(HOST, common_name="broker")
    key = load_pem_private_key(made.private_key_pem.bytes(), password=None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(one.bytes() for one in made.cert_chain_pems)
    (found.folder / "broker.pem").write_bytes(pem + chain)


def _options(found: Secured, node: kafka.Node) -> dict[str, str]:
    password = found.password_file(ADMIN).read_text().strip()
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    return {
        "listeners": f"SASL_SSL://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"SASL_SSL://{HOST}:{node.port}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "SASL_SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            f'{module} required username="{ADMIN}" password="{password}";'
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(found.folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(found.ca),
        "listener.name.controller.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:{ADMIN};User:broker",
    }
