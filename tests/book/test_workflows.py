"""GitHub's workflows: well-formed, safe, and publishing only what was tested."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools import chapters as book

ROOT = book.ROOT
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def schema_check(schema, path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_is_one(path):
    result = schema_check("vendor.github-workflows", path)
    assert result.returncode == 0, result.stdout


def test_dependabot_is_configured():
    result = schema_check("vendor.dependabot", ROOT / ".github" / "dependabot.yml")
    assert result.returncode == 0, result.stdout


def test_a_wrong_workflow_is_noticed(tmp_path):
    path = tmp_path / "w.yml"
    path.write_text(
        "name: x\non: [push]\njobs: {a: {runs-on: ubuntu-latest, steps: [{use: actions/checkout@v4}]}}\n",
        encoding="utf-8",
    )
    assert schema_check("vendor.github-workflows", path).returncode != 0


def security_faults(path):
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent))
    command = [program, "--offline", "--no-progress", "--min-severity=medium", "--format=plain", str(path)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def test_workflows_are_safe():
    result = security_faults(ROOT / ".github")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (r"@[0-9a-f]{40} # v", "@v", "unpinned-uses"),
        (r"permissions:\n +contents: read", "permissions: write-all", "excessive-permissions"),
        (r"- run: make test", "- run: echo ${{ github.head_ref }}", "template-injection"),
    ],
)
def test_an_unsafe_workflow_is_noticed(tmp_path, old, new, fault):
    path = tmp_path / "test.yml"
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    path.write_text(re.sub(old, new, text), encoding="utf-8")
    assert fault in security_faults(path).stdout


def test_nothing_is_published_that_was_not_tested():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8"))["jobs"]
    assert (jobs["deploy"]["needs"], jobs["build"]["needs"]) == ("build", "test")
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_make_target_of_a_workflow_exists(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        for step in job.get("steps", []):
            assert set(re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE)) <= targets
