"""``cluster/Dockerfile``, read: nothing here can build it. What hadolint would say of it, and what ray_ns needs."""

import fnmatch
import re

from support.manifests import CLUSTER, ROOT, pods, rendered

TEXT = (CLUSTER / "Dockerfile").read_text()
LINES = [
    it for it in re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines() if it.strip()
]
STEPS = [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in LINES]


def of(word: str) -> list[str]:
    return [rest for name, rest in STEPS if name == word]


def test_it_has_only_instructions_that_are_known() -> None:
    assert {name for name, _ in STEPS} <= {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "SHELL", "ENV", "USER"}


def test_the_base_is_named_by_digest_and_by_nobody_but_the_builder() -> None:
    assert STEPS[0] == ("ARG", "RAY_IMAGE")  # without a default
    assert of("FROM") == ["${RAY_IMAGE} AS build", "${RAY_IMAGE}"]
    assert any("@sha256:" in it and "exit 2" in it for it in of("RUN"))
    assert not re.search(r"sha256:[0-9a-f]{64}", TEXT)


def test_it_ends_as_another_user_than_root_and_as_that_of_the_pods() -> None:
    assert STEPS[-1] == ("USER", "1000:100")
    assert of("USER") == ["1000:100"]
    for pod in pods(rendered(CLUSTER / "kuberay/overlays/gpu")):
        found = pod.spec["securityContext"]
        assert (found["runAsUser"], found["runAsGroup"]) == (1000, 100)


def test_packages_are_pinned_and_the_program_is_tried() -> None:
    installs = [it for it in of("RUN") if "pip install" in it]
    assert len(installs) == 1
    assert "--constraint /home/ray/wheels/constraints.txt" in installs[0]
    assert "--no-cache-dir" in installs[0]
    assert "ray-ns --version" in installs[0]
    assert "import ray" in installs[0]
    assert not re.search(r"apt-get|curl|wget|sudo|ADD ", TEXT)


def test_what_it_copies_exists_and_is_let_through() -> None:
    rules = [it for it in (ROOT / ".dockerignore").read_text().splitlines() if it and not it.startswith("#")]
    assert rules[0] == "*"
    let = {it[1:] for it in rules if it.startswith("!")}
    copied = [
        it
        for words in (rest.split() for rest in of("COPY") if "--from" not in rest)
        for it in words[:-1]
        if not it.startswith("--")
    ]
    assert set(copied) == let
    assert all((ROOT / it).exists() for it in copied)
    kept = [it for it in rules[1:] if not it.startswith("!")]
    assert any(fnmatch.fnmatch("ray_ns/cli/__pycache__", it) for it in kept)


def test_it_holds_what_a_job_needs() -> None:
    assert "EXTRAS=cluster" in of("ARG")
    assert "pip wheel" in TEXT
    assert all(
        (name in (ROOT / "pyproject.toml").read_text())
        for name in ('"README.md"', '"LICENSE"', '"configs" = "ray_ns/presets"')
    )
