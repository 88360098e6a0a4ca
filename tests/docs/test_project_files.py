"""The files around the project: versions, kernels, what a report needs."""

from __future__ import annotations

import re
import tomllib

import yaml  # type: ignore[import-untyped]

import softsgx
from softsgx.linux.version import VERSIONS
from tests.tidy.source import ROOT


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def rows(path: str) -> dict[str, str]:
    return dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", text(path), re.MULTILINE))


def test_the_supported_versions_are_those_of_the_sources() -> None:
    found = rows("docs/releases.md")
    assert found["the driver that is modelled (`--linux`)"].split(", ") == list(VERSIONS)
    project = tomllib.loads(text("pyproject.toml"))["project"]
    pythons = [c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r":: 3\.\d", c)]
    assert found["Python"].split(", ") == pythons
    assert project["requires-python"] == f">={pythons[0]}"


def test_the_table_of_vulnerabilities_names_what_the_documents_say() -> None:
    found = rows("SECURITY.md")
    assert sum("**a vulnerability**" in what for what in found.values()) == 2
    assert "the mailboxes of all programs of one run are shared" in text("docs/run.md")
    for what in ("softsgx is no sandbox",):
        assert what in text("docs/run.md")


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == softsgx.__version__
    assert citation["cff-version"] == "1.2.0"
    assert f"## [{softsgx.__version__}]" in text("CHANGELOG.md")
    urls = tomllib.loads(text("pyproject.toml"))["project"]["urls"]
    assert citation["repository-code"] == urls["Source"]


def test_a_report_asks_for_what_doctor_says() -> None:
    form = yaml.safe_load(text(".github/ISSUE_TEMPLATE/bug.yml"))
    fields = {field["id"]: field for field in form["body"]}
    assert fields["doctor"]["attributes"]["label"] == "softsgx doctor --json"
    assert fields["doctor"]["validations"] == {"required": True}
