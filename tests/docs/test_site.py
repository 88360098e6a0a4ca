"""What `make site` builds from: every document, every public name, every option.

Sphinx is not installed where the tests run: whether it accepts all of it, `make site` says.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from softsgx.cli.completion.scripts import tables
from tools import pins, reference, site
from tools.documents import ROOT

ADDRESS = "https://h/softsgx"


def lock() -> dict[str, str]:
    """Package and version, of requirements/site.txt."""
    lines = (ROOT / "requirements" / "site.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_document_is_in_the_order_once() -> None:
    listed = [page for pages in site.ORDER.values() for page in pages]
    docs = {path.stem for path in site.DOCS.glob("*.md")} - {"README"}
    assert {page for page in listed if "/" not in page} == docs
    assert len(listed) == len({*listed})
    assert [f"{page}.md" for page in listed if "/" in page] == [
        f"{site.REFERENCE}/{name}" for name in reference.NAMES
    ]
    assert len(reference.NAMES) == 1 + len(reference.MODULES)


def test_everything_is_staged(tmp_path: Path) -> None:
    site.stage(tmp_path / "source")
    written = {path.relative_to(tmp_path / "source") for path in tmp_path.rglob("*.md")}
    assert len(written) == len([*site.DOCS.glob("*.md")]) + len(reference.NAMES)
    index = (tmp_path / "source" / "index.md").read_text(encoding="utf-8")
    assert index.count("```{toctree}") == len(site.ORDER)
    for path in written:
        assert "<!--" not in (tmp_path / "source" / path).read_text(encoding="utf-8"), path


def test_links_that_leave_docs_lead_to_the_repository() -> None:
    for text, led in (
        ("[a](run.md#x)", "[a](run.md#x)"),
        ("[a](#x)", "[a](#x)"),
        ("[a](https://b.org/c)", "[a](https://b.org/c)"),
        ("[a](README.md)", "[a](index.md)"),
        ("[a](../LICENSE)", f"[a]({ADDRESS}/blob/main/LICENSE)"),
        ("[a](../README.md#x)", f"[a]({ADDRESS}/blob/main/README.md#x)"),
        ("[a](../examples/explored)", f"[a]({ADDRESS}/tree/main/examples/explored)"),
        ("[a](softsgx.gdb)", f"[a]({ADDRESS}/blob/main/docs/softsgx.gdb)"),
        ("<!-- made -->\n| a |\n", "| a |\n"),
        ("```md\n<!-- [a](../x) -->\n```", "```md\n<!-- [a](../x) -->\n```"),
    ):
        assert site.prepared(text, ADDRESS) == led
    with pytest.raises(FileNotFoundError, match=r"\.\./none"):
        site.prepared("[a](../none)", ADDRESS)


@pytest.mark.parametrize("name", reference.MODULES)
def test_every_public_name_has_its_docstring_on_the_page(name: str) -> None:
    module = import_module(name)
    sections = reference.module_page(name).split("\n## ")[1:]
    assert [section.partition("\n")[0] for section in sections] == module.__all__
    for section in sections:
        title, _, said = section.partition("\n")
        value = getattr(module, title)
        if inspect.isclass(value) or inspect.isfunction(value):
            said = said.partition("\n```\n")[2].partition("\n### ")[0]
            first = (inspect.getdoc(value) or "").splitlines()[0]
            assert reference.text(first).strip() in said
        assert said.strip(), f"{name}.{title}: no docstring"


def test_every_command_and_option_is_on_the_page() -> None:
    page = reference.cli_page()
    for name, about, table in tables():
        assert f"## softsgx {name}\n" in page
        assert about[:20] in page
        for option in table.options.values():
            assert f"| `{option.usage.replace('|', chr(92) + '|')}` |" in page, option.usage


def test_signatures_and_docstrings_are_written_as_they_are() -> None:
    page = reference.module_page("softsgx")
    assert "    __init__(\n        *,\n        cpus: int = 2,\n" in page
    assert "```python\nrun(body: Steps[T], cpu: int = 0) -> T\n```" in page
    assert reference.text("A_b *c* `d_e` [f].") == "A\\_b \\*c\\* `d_e` \\[f\\].\n"
    columns = "one    first\n\ntwo    second"
    assert reference.text(f"Head.\n\n{columns}") == f"Head.\n\n```text\n{columns}\n```\n"


def test_the_lock_of_the_site_has_what_the_extra_allows() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    locked, wanted = lock(), pins.site(pyproject)
    assert len(wanted) == 3
    for pin in map(Requirement, wanted):
        assert pin.specifier.contains(locked[canonicalize_name(pin.name)]), pin
    assert not {*wanted} & {*pins.pins(pyproject), *pins.lowest(pyproject)}


def test_a_warning_of_sphinx_is_an_error() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "SPHINX := -q -W " in makefile
