"""How a Kafka cluster is reached, and as whom: the one place that knows of TLS and SASL."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

Mechanism = Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]
_SASL: Final = {
    "SCRAM-SHA-512": SASLScram512,
    "SCRAM-SHA-256": SASLScram256,
    "PLAIN": SASLPlaintext,
}


@dataclass(frozen=True)
class Cluster:
    """Bootstrap servers, by commas, and what they ask for: nothing, TLS, a certificate, a password.

    `ca` is a PEM file of authorities in place of the system's; `certificate` and `key` are ours (mutual TLS).
    """

    servers: str
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: str = ""
    password_file: Path | None = None
    mechanism: Mechanism = "SCRAM-SHA-512"

    @cached_property
    def _context(self) -> ssl.SSLContext | None:
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    @property
    def _password(self) -> str:
        assert self.password_file is not None, "settings ask for both"
        return self.password_file.read_text().strip()

    @property
    def security(self) -> BaseSecurity:
        """Return FastStream's word for it; raises OSError where a file cannot be read."""
        if not self.user:
            return BaseSecurity(ssl_context=self._context)
        return _SASL[self.mechanism](self.user, self._password, ssl_context=self._context)

    def options(self) -> dict[str, Any]:
        """Return what clients of aiokafka and of kafka-python are made with: they share the names."""
        found: dict[str, Any] = {"bootstrap_servers": self.servers.split(",")}
        sasl = "SASL_" if self.user else ""
        found["security_protocol"] = sasl + ("SSL" if self.tls else "PLAINTEXT")
        if self.tls:
            found["ssl_context"] = self._context
        if self.user:
            found |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self._password,
            }
        return found
