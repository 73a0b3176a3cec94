"""Policies, and how one is read from its file: every mistake at once, each with its line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from schemas.envelope import mistakes_of
from schemas.policies import Policy
from schemas.vocabulary import Vocabulary
from services.detector import messages, naming
from services.detector.rehearsal import Example

DEFAULT = Path(__file__).with_name("default.yaml")
ANYTHING = Vocabulary()
MOST_PLACES = 20_000
Where = tuple[str | int, ...]


class WrongPolicy(ValueError):
    """A policy that cannot be applied; `mistakes` are lines such as `FILE:LINE: FIELD: why`."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def read_policy(path: Path, vocabulary: Vocabulary = ANYTHING) -> Policy:
    """Read a policy; messages named by path are read from beside it. Raises WrongPolicy."""
    file = _File.read(path)
    if not isinstance(file.data, dict):
        raise WrongPolicy([f"{path}:1: a mapping was expected"])
    given: Any = file.data.get("messages")
    for language, name in list(given.items()) if isinstance(given, dict) else ():
        if isinstance(name, str):
            other = _File.read(path.parent / name, prefix=("messages", language))
            given[language] = other.data
            file.places |= other.places
            file.twice += other.twice
    mistakes = list(file.twice)
    try:
        policy = Policy.model_validate(file.data)
    except ValidationError as error:
        mistakes += [file.say(where, why) for where, why in mistakes_of(error)]
        raise WrongPolicy(mistakes) from error
    wrong = messages.check(policy) | naming.check(policy, vocabulary)
    mistakes += [file.say(where, why) for where, why in wrong.items()]
    if mistakes:
        raise WrongPolicy(mistakes)
    return policy


@dataclass(slots=True)
class _File:
    """A YAML file: its data, and where each value stands."""

    path: Path
    data: Any
    places: dict[Where, tuple[Path, int]] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, *, prefix: Where = ()) -> _File:
        try:
            text = path.read_text()
            file = cls(path, yaml.safe_load(text))
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            file._find_places(node, prefix)
        except OSError as error:
            raise WrongPolicy([f"{path}: {error.strerror}"]) from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise WrongPolicy([f"{path}:{line}: {error.problem}"]) from error
        except (yaml.YAMLError, ValueError) as error:  # No UTF-8; a date or a number that is none.
            raise WrongPolicy([f"{path}: {' '.join(str(error).split())}"]) from error
        except RecursionError as error:
            raise WrongPolicy([f"{path}: what stands in it is nested too deep"]) from error
        return file

    def _find_places(self, node: Any, prefix: Where) -> None:
        # With aliases a small file has places without end; these are for what is said of mistakes.
        for where, line, is_again in islice(_walk(node, prefix), MOST_PLACES) if node else ():
            self.places[where] = (self.path, line)
            if is_again:
                self.twice.append(f"{self.path}:{line}: {_dotted(where)}: stands here twice")

    def say(self, where: Where, why: str) -> str:
        """Return a mistake with the line of the closest thing that stands in the file."""
        known: Where = where
        while known and known not in self.places:
            known = known[:-1]
        path, line = self.places.get(known, (self.path, 1))
        return f"{path}:{line}: {_dotted(where)}{': ' if where else ''}{why}"


def _walk(node: Any, where: Where) -> Iterator[tuple[Where, int, bool]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            inner = (*where, key.value)
            yield inner, key.start_mark.line + 1, key.value in seen
            seen.add(key.value)
            yield from _walk(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*where, number), value.start_mark.line + 1, False
            yield from _walk(value, (*where, number))


def _dotted(where: Where) -> str:
    return ".".join(str(part) for part in where)


def read_example(path: Path) -> Example:
    """Read an example of events. Raises WrongPolicy."""
    file = _File.read(path)
    try:
        return Example.model_validate(file.data)
    except ValidationError as error:
        mistakes = [file.say(where, why) for where, why in mistakes_of(error)]
        raise WrongPolicy(mistakes) from error
