"""What every service is told from outside: environment variables that begin with `INTERLOCK_`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings shared by all services; a service adds its own in its `app.py`."""

    model_config = SettingsConfigDict(env_prefix="INTERLOCK_", extra="ignore", frozen=True)

    kafka: str = Field(default="127.0.0.1:9092", description="bootstrap servers, by commas")
    database: str = Field(default="", description="postgresql:// address")
    keys: Path = Field(default=Path("keys.json"), description="file of API keys (hashes only)")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65_535)
    instance: str = Field(
        default="", description="this process's lasting name: a restart takes its partitions back"
    )
    log_level: str = "INFO"
    log_format: str = Field(default="json", pattern="^(json|console)$")
