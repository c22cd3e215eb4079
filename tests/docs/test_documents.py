"""README, citation, licences and changelog: they run, validate, and agree with one another."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from helpers import Risk, minimise

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_readmes_python_runs_and_its_prediction_is_about_retraining() -> None:
    names: dict = {}
    (block,) = python_blocks(read("README.md"))
    exec(compile(block, "README.md", "exec"), names)
    scores, change, risk, test = names["scores"], names["change"], names["risk"], names["test"]
    assert scores.shape == change.shape == (10, 30)
    assert "(10, 30)" in block

    # Leave out the point that is predicted to matter most for test point 0, over the other 29.
    i = int(change[0].abs().argmax())
    kept = [j for j in range(30) if j != i]
    without = Risk(risk.model, risk.data[kept], loss=risk.loss, l2=risk.l2)
    theta = minimise(without, names["theta_hat"]).theta
    actual = risk.losses(theta, test)[0] - risk.losses(names["theta_hat"], test)[0]
    assert torch.sign(actual) == torch.sign(change[0, i])
    assert 0.5 < float(actual / change[0, i]) < 2


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_exist(name: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", read(name)):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), f"{name} links to {target}, which does not exist"


def test_the_citation_file_validates() -> None:
    schema = ["--builtin-schema", "vendor.citation-file-format"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, "CITATION.cff"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_version_and_date_agree() -> None:
    citation = YAML(typ="safe").load(read("CITATION.cff"))
    heading = re.compile(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)
    newest, date = heading.search(read("CHANGELOG.md")).groups()
    assert citation["version"] == newest == VERSION
    assert str(citation["date-released"]) == date
    how_to_cite = read("book/cite.md")
    assert f"{{{VERSION}}}" in how_to_cite
    assert f"(version {VERSION})" in how_to_cite
    assert f"{{{date}}}" in how_to_cite
    assert citation["title"] in re.sub(r"\s+", " ", how_to_cite)


def test_the_licences_are_whole() -> None:
    assert read("LICENSE").startswith("MIT License\n")
    text = read("LICENSE-TEXT")
    assert text.startswith("Attribution 4.0 International\n")
    assert all(f"\nSection {number} -- " in text for number in range(1, 9))
    assert text.rstrip().endswith("Creative Commons may be contacted at creativecommons.org.")


def test_every_module_of_helpers_is_in_the_reference() -> None:
    documented = set(re.findall(r"automodule:: helpers\.([\w.]+)", read("book/helpers-reference.md")))
    there = [path.relative_to(ROOT / "helpers").with_suffix("") for path in (ROOT / "helpers").rglob("*.py")]
    assert documented == {".".join(path.parts) for path in there if path.name != "__init__"}


def test_the_glossary_is_sorted_and_has_two_sentences_a_term() -> None:
    body = re.search(r"```\{glossary\}\n(.*?)^```", read("book/glossary.md"), re.DOTALL | re.MULTILINE)[1]
    entries = re.findall(r"^(\S.*)\n((?:  .*\n)+)", body, re.MULTILINE)
    terms = [term for term, _ in entries]
    assert terms == sorted(terms, key=str.lower)
    for term, definition in entries:
        assert len(re.findall(r"\.(?=\s|$)", definition)) == 2, f"{term}: {definition}"


def test_documents_use_british_spelling() -> None:
    american = re.compile(r"\b(?:(?:regular|minim|optim|general|normal)iz|(?:col|behavi)or)\w*", re.IGNORECASE)
    fence = re.compile(r"^(`{3,})[^`\n]*\n.*?^\1 *$", re.DOTALL | re.MULTILINE)
    for path in [*ROOT.glob("*.md"), *(ROOT / "book").glob("*.md")]:
        prose = fence.sub("", path.read_text(encoding="utf-8"))
        prose = re.sub(r"`[^`]*`|\[[^\]]*\]\([^)]*\)", "", prose)
        assert american.findall(prose) == [], path.name
