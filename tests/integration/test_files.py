"""Files of offers: tried first, all or none, again and again, and out as they went in."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.cli import app
from tests.journey import Journey

DUE = "2099-06-01T10:00:00Z"
SHEET = """<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{rows}
</sheetData></worksheet>"""
PACKAGE = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="r1" Target="xl/workbook.xml" Type="http://schemas.openxmlformats.org/'
    'officeDocument/2006/relationships/officeDocument"/></Relationships>',
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets>'
    '<sheet name="Offers" sheetId="1" r:id="r1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
    'relationships"><Relationship Id="r1" Target="worksheets/sheet1.xml" Type="http://schemas.'
    'openxmlformats.org/officeDocument/2006/relationships/worksheet"/></Relationships>',
}


class Desk:
    """The command, on one campaign."""

    def __init__(self, journey: Journey, folder: Path) -> None:
        self.journey, self.folder, self.campaign = journey, folder, journey.campaign()
        self.where = ["--campaign", self.campaign, "--scheduler", str(journey.marketing.base_url)]
        self.where += ["--key", journey.marketing.headers["authorization"].split(" ")[1]]

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["posts", *words, *self.where])

    def write(self, name: str, rows: list[dict[str, Any]]) -> str:
        file = self.folder / name
        with file.open("w", newline="") as out:
            if name.endswith(".ndjson"):
                out.writelines(json.dumps(row) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(out, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        return str(file)

    def write_sheet(self, name: str, rows: list[list[str]]) -> str:
        cells = "".join(
            "<row>"
            + "".join(f'<c t="inlineStr"><is><t>{cell}</t></is></c>' for cell in row)
            + "</row>"
            for row in rows
        )
        file = self.folder / name
        with zipfile.ZipFile(file, "w") as out:
            for path, content in PACKAGE.items():
                out.writestr(path, content)
            out.writestr("xl/worksheets/sheet1.xml", SHEET.format(rows=cells))
        return str(file)

    def counts(self) -> dict[str, int]:
        found = self.journey.marketing.get(f"/v1/campaigns/{self.campaign}").json()
        counts: dict[str, int] = found["counts"]
        return counts


@pytest.fixture
def desk(journey: Journey, tmp_path: Path) -> Desk:
    return Desk(journey, tmp_path)


def rows(count: int, **changed: str) -> list[dict[str, Any]]:
    return [
        {"account": "social-en", "text": f"To the sea {n}", "due_at": DUE, "label.line": "coast"}
        | changed
        for n in range(count)
    ]


def test_a_csv_is_queued_in_parts_and_again_nothing_twice(desk: Desk) -> None:
    file = desk.write("offers.csv", rows(2_345))
    first = desk.run("import", file)
    assert "queueing: 2,345 rows, 0 wrong, 2,345 queued, 0 known before" in first.output
    again = desk.run("import", file)
    assert "0 queued, 2,345 known before" in again.output
    rest = desk.run("import", file, "--from-row", "2001")
    assert "345 rows, 0 wrong, 0 queued, 345 known before" in rest.output
    assert desk.counts() == {"queued": 2_345}


def test_a_wrong_row_is_named_and_nothing_is_queued_unless_the_good_ones_are_asked_for(
    desk: Desk,
) -> None:
    known = rows(1_203)
    known[1_100] |= {"due_at": "tomorrow"}
    known[1_200] |= {"text": ""}
    file = desk.write("offers.csv", known)
    refused = desk.run("import", file)
    assert refused.exit_code == 1
    assert "row 1101: due_at:" in refused.output
    assert "row 1201: text:" in refused.output
    assert "2 rows are wrong: nothing was queued" in refused.output
    assert desk.counts() == {}
    assert desk.run("import", file, "--dry-run").exit_code == 1
    good = desk.run("import", file, "--good-only")
    assert "1,203 rows, 2 wrong, 1,201 queued" in good.output


def test_ndjson_says_all_that_an_offer_can(desk: Desk) -> None:
    offers = [
        {
            "account": "social-en", "text": "To the sea", "due_at": DUE, "labels": {"line": "coast"},
            "thread": ["There", "and back"],
            "external_id": "crm-1",
            "media": [{"url": "https://a.example/a.png", "type": "image/png", "alt": "The sea"}],
        }
    ]  # fmt: skip
    assert desk.run("import", desk.write("offers.ndjson", offers)).exit_code == 0
    out = desk.folder / "out.ndjson"
    assert desk.run("export", "--to", str(out)).exit_code == 0
    (post,) = map(json.loads, out.read_text().splitlines())
    assert post["external_id"] == "crm-1"
    assert post["media"] == offers[0]["media"]
    assert post["thread"] == offers[0]["thread"]
    assert post["labels"] == {"line": "coast", "network": desk.journey.network}


def test_a_sheet_is_a_file_as_well(desk: Desk) -> None:
    file = desk.write_sheet(
        "offers.xlsx", [["account", "text", "due_at"], ["social-en", "To the sea", DUE]]
    )
    assert "1 queued" in desk.run("import", file).output


def test_what_goes_out_as_csv_says_what_became_of_each(desk: Desk) -> None:
    desk.run("import", desk.write("offers.csv", rows(3)))
    out = desk.folder / "out.csv"
    desk.run("export", "--to", str(out))
    with out.open() as content:
        found = list(csv.DictReader(content))
    assert [(row["state"], row["text"]) for row in found] == [
        ("queued", f"To the sea {n}") for n in range(3)
    ]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", "acount,text\nx,y\n", "no such column: acount"),
        ("a.ndjson", "{\n", "line 1: no JSON"),
        ("a.txt", "", ".csv, .ndjson or .xlsx was expected"),
    ],
)
def test_a_file_that_is_none_is_told(desk: Desk, name: str, content: str, why: str) -> None:
    (desk.folder / name).write_text(content)
    answer = desk.run("import", str(desk.folder / name))
    assert answer.exit_code == 1
    assert why in answer.output


def test_a_part_that_is_no_part_is_refused(desk: Desk) -> None:
    path = f"/v1/campaigns/{desk.campaign}/import"
    post = desk.journey.marketing.post
    assert post(path, content=b"x").status_code == 415
    csv_type = {"content-type": "text/csv"}
    many = "text\n" + "x\n" * 1_001
    assert post(path, content=many, headers=csv_type).status_code == 413
    assert post(path, content=b"text\n\xff\n", headers=csv_type).status_code == 422
    report = post(path, content="text,due_at\nx\n", headers=csv_type).json()
    assert report["refused"][0]["row"] == 1
