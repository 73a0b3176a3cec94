"""The words of a status update: templates of the policy, filled in. Never raises, never empty."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.incidents import Incident
from schemas.policies import Moment, Policy

TEXT_CHARS = 10_000
_JINJA = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)


def write(
    policy: Policy | None, moment: Moment, incident: Incident, *, at: datetime
) -> dict[str, str]:
    """Return the text for each language of the policy; none before the first policy.

    A template that fails must not keep an update back: the incident's title stands in for it.
    """
    if policy is None:
        return {}
    zone = _zone(policy.time_zone)
    values = {
        "title": incident.title,
        "detail": incident.detail,
        "severity": incident.severity,
        "labels": incident.labels,
        "number": incident.update_count + 1,
        "now": _clock(at, zone),
        "next_update": _clock(incident.next_update_at, zone),
        "expected_end": _clock(incident.expected_end_at, zone),
        "link": incident.link or "",
    }
    return {
        language: _render(templates[moment], values)[:TEXT_CHARS] or incident.title
        for language, templates in policy.messages.items()
    }


def check(policy: Policy, incident: Incident) -> list[str]:
    """Return what is wrong with the templates of a policy, each named; tried on an example."""
    wrong = []
    example = incident.model_copy(update={"next_update_at": incident.opened_at})
    for language, templates in policy.messages.items():
        for moment, template in templates.items():
            one = policy.model_copy(
                update={"messages": {language: dict.fromkeys(templates, template)}}
            )
            if _failure(template):
                wrong.append(f"messages.{language}.{moment}: {_failure(template)}")
            elif write(one, moment, example, at=example.opened_at)[language] == example.title:
                wrong.append(
                    f"messages.{language}.{moment}: names a value that is not there, or says only the title"
                )
    return wrong


def _render(template: str, values: dict[str, object]) -> str:
    try:
        return " ".join(_compiled(template).render(values).split())
    except Exception:  # Whatever a template can do wrong, customers are told at least the title.
        return ""


def _failure(template: str) -> str:
    try:
        _compiled(template)
    except Exception as error:  # Jinja's errors share no base with the ones of Python it passes on.
        return str(error)
    return ""


@lru_cache(maxsize=256)
def _compiled(template: str) -> Template:
    return _JINJA.from_string(template)


def _clock(at: datetime | None, zone: ZoneInfo) -> str:
    return at.astimezone(zone).strftime("%H:%M") if at else ""


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")
