"""The `interlock` command."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Service = Literal["scheduler", "detector", "publisher"]
GRACE_S = 5


@app.callback()
def interlock() -> None:
    """Stop offers and tell customers when operations are disrupted."""


@app.command()
def serve(service: Annotated[Service, typer.Argument(help="which service")]) -> None:
    """Run one service in the foreground, as INTERLOCK_… says; this is what containers start."""
    import uvicorn

    from services.kit.settings import Settings
    from services.kit.telemetry import set_up_logs

    settings = Settings()
    set_up_logs(service=service, level=settings.log_level, style=settings.log_format)
    uvicorn.run(
        import_module(f"services.{service}.app").new_service(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
    )


def main() -> None:
    app()


if __name__ == "__main__":
    main()
