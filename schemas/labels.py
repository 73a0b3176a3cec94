"""Labels, matchers and `covers`: the one rule that says which offers a hold stops.

A matcher is `name="v"`, `!=`, `=~` or `!~`, several joined by commas, as in Prometheus; regular
expressions are RE2's and anchored on both ends. There is one departure from Prometheus: a matcher
on a label that the offer does not carry covers it. The offer might be about that line, and when in
doubt Interlock is quiet. `{}` has no matcher and covers everything.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

import re2
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from schemas.base import Value, WithoutNul

LABEL_COUNT = 32
MATCHER_COUNT = 32
VALUE_CHARS = 256

LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=64)]


def canonical(given: object) -> object:
    """Return the one way to write what looks the same: NFKC (UAX #15), without invisible characters.

    Else a hold on "Zürich" would miss an offer whose author's keyboard writes the ü as two characters.
    """
    if not isinstance(given, str) or given.isascii():
        return given
    visible = "".join(c for c in given if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", visible)


LabelValue = Annotated[
    str,
    StringConstraints(min_length=1, max_length=VALUE_CHARS, strip_whitespace=True),
    WithoutNul,
    BeforeValidator(canonical),
]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=LABEL_COUNT)]
Operator = Literal["=", "!=", "=~", "!~"]


class Matcher(Value):
    """One condition on one label."""

    name: LabelName
    operator: Operator
    value: LabelValue

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        # Of the value as it is kept: there "（" is a bracket, and a record with it could not be read.
        if self.operator in ("=~", "!~"):
            _is_pattern(self.value)
        return self

    def holds_for(self, value: str) -> bool:
        """Say whether the condition is true of a label's value; a regex must match all of it."""
        match self.operator:
            case "=":
                return value == self.value
            case "!=":
                return value != self.value
            case "=~":
                return full_match(self.value, value)
            case "!~":
                return not full_match(self.value, value)

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.name}{self.operator}"{escaped}"'


def covers(matchers: tuple[Matcher, ...], labels: dict[str, str]) -> bool:
    """Say whether these matchers cover an offer with these labels. A label it lacks is a doubt."""
    return all(m.name not in labels or m.holds_for(labels[m.name]) for m in matchers)


def matches(matchers: tuple[Matcher, ...], labels: dict[str, str]) -> bool:
    """Say whether the matchers are true of the labels as Prometheus reads them: absent is empty.

    Policy rules are chosen by this one: a rule that holds nothing must not be chosen by a doubt.
    """
    return all(m.holds_for(labels.get(m.name, "")) for m in matchers)


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """Read matchers such as `line="coast",region=~"north|east"`, with or without braces.

    Raises ValueError that says where reading stopped. The empty text is refused: whoever means
    everything writes `{}`.
    """
    inner = text.strip()
    if not inner:
        raise ValueError('no matcher: write {} for everything, or name="value"')
    if inner.startswith("{"):
        if not inner.endswith("}"):
            raise ValueError("the closing brace is missing")
        inner = inner[1:-1].strip()
    found: list[Matcher] = []
    at = 0
    while at < len(inner):
        token = _MATCHER.match(inner, at)
        if token is None:
            raise ValueError(f'expected name="value" at: {inner[at : at + 40]!r}')
        found.append(_matcher(token))
        at = token.end()
        if at < len(inner) and token["comma"] is None:
            raise ValueError(f"expected a comma at: {inner[at : at + 40]!r}")
    if len(found) > MATCHER_COUNT:
        raise ValueError(f"more than {MATCHER_COUNT} matchers")
    return tuple(found)


def format_matchers(matchers: tuple[Matcher, ...]) -> str:
    """Write matchers so that `parse_matchers` reads the same ones."""
    return "{" + ",".join(str(m) for m in matchers) + "}"


_MATCHER = re.compile(
    r'\s*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)\s*(?P<operator>=~|!~|!=|=)\s*"(?P<value>(?:[^"\\]|\\.)*)"'
    r"\s*(?P<comma>,)?\s*"
)
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


def _matcher(token: re.Match[str]) -> Matcher:
    value = re.sub(r"\\.", lambda e: _ESCAPES.get(e[0], e[0]), token["value"])
    name, operator = token["name"], token["operator"]
    if not 1 <= len(value) <= VALUE_CHARS:
        raise ValueError(f"the value of {name} must have 1 to {VALUE_CHARS} characters")
    try:
        return Matcher.model_validate({"name": name, "operator": operator, "value": value})
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"the value of {name}: {why}") from error


def _is_pattern(text: str) -> str:
    try:
        _compiled(text)
    except re2.error as error:
        why = error.args[0] if error.args else ""
        said = why.decode(errors="replace") if isinstance(why, bytes) else why
        raise ValueError(f"not an RE2 pattern: {said}") from error
    return text


def full_match(pattern: str, text: str) -> bool:
    """Say whether an RE2 pattern matches all of a text."""
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Any:  # google-re2 has no types of its own.
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options=options)


def _read_matchers(value: object) -> object:
    return parse_matchers(value) if isinstance(value, str) else value


Pattern = Annotated[
    str, StringConstraints(min_length=1, max_length=VALUE_CHARS), AfterValidator(_is_pattern)
]
Matchers = Annotated[
    tuple[Matcher, ...],
    BeforeValidator(_read_matchers),
    PlainSerializer(format_matchers, return_type=str),
    WithJsonSchema({"type": "string", "examples": ['{line="coast",network="northlink"}']}),
]
"""Matchers as JSON carries them: one string in Prometheus syntax."""
