"""`interlock policy …`: check a file, try it on examples, compare it, put it in force, look."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer

from services.commands.ending import fail

policy = typer.Typer(no_args_is_help=True, help="What a disruption holds, and what is said.")

Detector = Annotated[str, typer.Option(envvar="INTERLOCK_DETECTOR", help="its address")]
Key = Annotated[str, typer.Option(envvar="INTERLOCK_KEY", help="an API key")]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels", envvar="INTERLOCK_LABELS", help="check its labels by this file as well"
    ),
]
PolicyFile = Annotated[
    Path | None, typer.Argument(help="by default the one that came with it", show_default=False)
]


@policy.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="policy files")], labels: Labels = None
) -> None:
    """Read policy files; every mistake is printed with its line. Exits 1 when there are any."""
    from ops.policies import WrongPolicy, read_policy
    from schemas.vocabulary import Vocabulary
    from services.kit.settings import read_file

    wrong = 0
    try:
        vocabulary = read_file(labels, Vocabulary)
    except (OSError, ValueError) as error:
        fail(str(error))
    for file in files:
        try:
            found = read_policy(file, vocabulary)
        except WrongPolicy as error:
            print(error)
            wrong += len(error.mistakes)
            continue
        print(
            f"{file}: {found.name}: {len(found.rules)} rules, "
            f"{', '.join(found.messages) or 'no messages: it says nothing'}"
        )
    if wrong:
        fail(f"{wrong} mistake{'s' if wrong > 1 else ''}")


@policy.command("test")
def test(
    file: Annotated[Path, typer.Argument(help="the policy")],
    examples: Annotated[list[Path], typer.Argument(help="files of events; see the documentation")],
    quiet: Annotated[bool, typer.Option("--quiet", help="print only what differs")] = False,
) -> None:
    """Play examples: what would be held, said and when. Exits 1 when an expectation is not met."""
    from rich.console import Console
    from rich.markup import escape

    from ops.policies import read_example
    from services.detector.rehearsal import rehearse

    found = read(file)
    console = Console(highlight=False, soft_wrap=True)
    wrong: list[str] = []
    for path in examples:
        try:
            happened, differences = rehearse(found, read_example(path))
        except ValueError as error:
            fail(str(error))
        wrong += [f"{path}: {one}" for one in differences]
        if not quiet:
            console.print(f"[bold]{escape(str(path))}[/]")
            for line in happened:
                text = escape(line.text).replace("\n", "\n" + " " * 19)
                console.print(f"{as_minute(line.minute):>8}  {COLOURED[line.what]} {text}")
    if wrong:
        fail("\n".join(["not as expected:", *wrong]))
    print(f"{len(examples)} example{'s' if len(examples) > 1 else ''}: as expected")


COLOURED = {
    "hold": "[red]hold    [/]",
    "release": "[green]release [/]",
    "update": "[cyan]update  [/]",
    "draft": "[yellow]draft   [/]",
    "incident": "[dim]incident[/]",
}


def as_minute(minute: float) -> str:
    return f"{int(minute)}:{round(minute * 60) % 60:02}"


@policy.command("show")
def show(detector: Detector = "", key: Key = "") -> None:
    """Print the policy in force, as a file that `apply` takes."""
    print(_in_words(in_force(detector, key)), end="")


@policy.command("diff")
def diff(file: PolicyFile = None, detector: Detector = "", key: Key = "") -> None:
    """Say in what a file differs from the policy in force; exits 1 when it does."""
    from ops.policies import DEFAULT

    differences = _differences(in_force(detector, key), read(file or DEFAULT))
    print("\n".join(differences) or "no difference")
    if differences:
        raise typer.Exit(1)


@policy.command("apply")
def apply(
    file: PolicyFile = None,
    detector: Detector = "",
    key: Key = "",
    dry_run: Annotated[
        bool, typer.Option(help="check the file, and say what it would change")
    ] = False,
) -> None:
    """Put a policy in force: it is written into the detector's log, on every partition."""
    from ops.policies import DEFAULT

    found = read(file or DEFAULT)
    if dry_run:
        print(f"{found.name}: {len(found.rules)} rules, {len(found.messages)} languages")
        if detector:
            differences = _differences(in_force(detector, key), found)
            print("\n".join(differences) or "no difference to what is in force")
        return
    done = _ask("PUT", detector, key, content=found.model_dump_json())
    print(f"{found.name} is in force on {len(done)} partitions")


def read(file: Path) -> Any:
    from ops.policies import WrongPolicy, read_policy

    try:
        return read_policy(file)
    except WrongPolicy as error:
        fail(str(error))


def in_force(detector: str, key: str) -> Any:
    from schemas.policies import Policy

    answer = _ask("GET", detector, key)
    found = {number: one for number, one in answer.items() if one is not None}
    if not found:
        fail(
            "no policy is in force: every disruption holds everything. See `interlock policy apply`"
        )
    policies = [Policy.model_validate(one) for one in found.values()]
    if any(one != policies[0] for one in policies):
        fail(f"partitions {', '.join(found)} have different policies: apply one again")
    return policies[0]


def _ask(method: str, detector: str, key: str, *, content: str | None = None) -> Any:
    import httpx

    if not detector:
        fail("--detector: the detector's address is needed, such as http://127.0.0.1:8001")
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    url = f"{detector}/v1/policy"
    try:
        answer = httpx.request(method, url, content=content, headers=headers, timeout=30)
    except httpx.HTTPError as error:
        fail(f"{url}: {error}")
    if not answer.is_success:
        fail(f"{url}: {answer.json()['detail']}")
    return answer.json()


def _differences(before: Any, after: Any) -> list[str]:
    old, new = (_in_words(one).splitlines() for one in (before, after))
    return list(difflib.unified_diff(old, new, "in force", "the file", lineterm="", n=2))


def _in_words(found: Any) -> str:
    import yaml

    plain = found.model_dump(mode="json", exclude_defaults=True)
    text: str = yaml.safe_dump(
        {"version": 1, **plain}, sort_keys=False, allow_unicode=True, width=100
    )
    return text
