"""What every service is told from outside: environment variables that begin with `INTERLOCK_`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Generic, Self, TypeVar

import structlog
import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.kit.cluster import Cluster, Mechanism

M = TypeVar("M", bound=BaseModel)
LOOK_S: Final = 1.0


class Settings(BaseSettings):
    """Settings shared by all services; a service adds its own in its `app.py`."""

    model_config = SettingsConfigDict(env_prefix="INTERLOCK_", extra="ignore", frozen=True)

    kafka: str = Field(default="127.0.0.1:9092", description="bootstrap servers, by commas")
    kafka_tls: bool = Field(default=False, description="speak TLS; implied by the next two")
    kafka_ca: Path | None = Field(default=None, description="PEM of authorities, not the system's")
    kafka_certificate: Path | None = Field(default=None, description="our own, PEM: mutual TLS")
    kafka_key: Path | None = Field(default=None, description="its key, where that has a file too")
    kafka_user: str = Field(default="", description="who we are by SASL")
    kafka_password_file: Path | None = Field(default=None, description="a file: read at the start")
    kafka_mechanism: Mechanism = "SCRAM-SHA-512"
    database: str = Field(default="", description="postgresql:// address")
    keys: Path = Field(default=Path("keys.json"), description="file of API keys (hashes only)")
    labels: Path | None = Field(default=None, description="file of the labels there are")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65_535)
    instance: str = Field(
        default="", description="this process's lasting name: a restart takes its partitions back"
    )
    log_level: str = "INFO"
    log_format: str = Field(default="json", pattern="^(json|console)$")

    @model_validator(mode="after")
    def _user_and_password(self) -> Self:
        if bool(self.kafka_user) != (self.kafka_password_file is not None):
            raise ValueError("INTERLOCK_KAFKA_USER and INTERLOCK_KAFKA_PASSWORD_FILE go together")
        return self

    @property
    def cluster(self) -> Cluster:
        """Return the Kafka cluster as this process reaches it."""
        return Cluster(
            self.kafka,
            tls=self.kafka_tls or bool(self.kafka_ca or self.kafka_certificate),
            ca=self.kafka_ca,
            certificate=self.kafka_certificate,
            key=self.kafka_key,
            user=self.kafka_user,
            password_file=self.kafka_password_file,
            mechanism=self.kafka_mechanism,
        )


def read_file(path: Path | None, model: type[M]) -> M:
    """Read a file of YAML; no file is an empty one. Raises ValueError that names file and field."""
    try:
        return model.model_validate(yaml.safe_load(path.read_text()) or {} if path else {})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{path}: {told}") from None  # Not the input: there may be secrets in it.


class Watched(Generic[M]):
    """A file that is read again when it changes; while it is wrong, what it said before counts."""

    def __init__(self, path: Path | None, model: type[M]) -> None:
        self._path, self._model = path, model
        self._value, self._stamp, self._looked_s = read_file(path, model), self._mark(), 0.0

    @property
    def value(self) -> M:
        if self._path is not None and time.monotonic() - self._looked_s > LOOK_S:
            self._looked_s = time.monotonic()
            try:
                if (stamp := self._mark()) != self._stamp:
                    self._stamp, self._value = stamp, read_file(self._path, self._model)
            except (OSError, ValueError) as error:
                structlog.get_logger().error("a file", path=str(self._path), error=str(error))
        return self._value

    def _mark(self) -> tuple[int, int]:
        found = self._path.stat() if self._path else None
        return (found.st_mtime_ns, found.st_size) if found else (0, 0)
