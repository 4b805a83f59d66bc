"""What the documents name exists: links, paths, tests, benchmarks, verbs and targets."""

import re
from pathlib import Path

import pytest

from ray_ns.cli import app

ROOT = Path(__file__).parents[2]
LOG = ROOT / "docs/LOG.md"  # tells of the past, whose files may be gone
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "cluster/README.md",
]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TOP = ("ray_ns", "tests", "benchmarks", "cluster/kuberay", "cluster/monitoring", "configs", "docs", ".ci")
BELOW_TESTS = ("unit", "e2e", "faults", "properties", "golden", "cluster_files", "cluster(?=/test_)", "support")


def code(document: Path) -> list[str]:
    """The code spans and the lines of fenced blocks, each on one line; of a config its header."""
    text = document.read_text()
    if document.suffix == ".yaml":
        return [line[1:] for line in text.splitlines() if line.startswith("#")]
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [line for block in fenced for line in block.splitlines()] + [" ".join(span.split()) for span in spans]


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives a document's headings."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_relative_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            target = document.parent / path if path else document
            assert target.exists(), f"{document.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{document.name}: {link}"


@pytest.mark.parametrize("document", [it for it in DOCUMENTS if it != LOG], ids=lambda it: it.name)
def test_every_path_in_code_exists(document: Path) -> None:
    """Paths from the root, and those of tests from their folder; a name in capitals or a star stands for many."""
    for line in code(document):
        for path in re.findall(rf"(?<![\w/.<])(?:{'|'.join(map(re.escape, TOP))})/[\w./*{{}},-]*", line):
            found = path.rstrip(".,")
            if "*" not in found and "{" not in found and not re.search(r"[A-Z]{4}", found):
                assert (ROOT / found).exists(), f"{document.name}: {found}"
        for path in re.findall(rf"(?<![\w/.<])(?:{'|'.join(BELOW_TESTS)})/[\w/]+\.\w+", line):
            assert (ROOT / "tests" / path).exists(), f"{document.name}: {path}"


def test_every_verb_exists() -> None:
    verbs = {it.name or it.callback.__name__.replace("_", "-") for it in app.registered_commands if it.callback}
    for document in (*DOCUMENTS, *CONFIGS):
        named = {verb for line in code(document) for verb in re.findall(r"(?<![\w./-])ray-ns ([a-z][a-z-]*)", line)}
        assert named <= verbs, document.name


def test_every_target_and_every_benchmark_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in (*DOCUMENTS, *CONFIGS):
        for line in code(document):
            assert set(re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", line)) <= targets, document.name
            for name in re.findall(r"-m benchmarks\.(\w+)", line):
                assert (ROOT / f"benchmarks/{name}.py").exists() or name == "NAME", f"{document.name}: {name}"
