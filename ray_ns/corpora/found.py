"""Files below a corpus's root that are not part of it."""

from collections.abc import Iterable
from dataclasses import dataclass

KINDS_SHOWN = 5  # suffixes that are named in a message
# Files that people keep beside images. They are listed, but do not suggest that images were overlooked.
NOTES = frozenset(
    [
        "csv",
        "tsv",
        "txt",
        "json",
        "jsonl",
        "xml",
        "yaml",
        "yml",
        "md",
        "rst",
        "html",
        "htm",
        "pdf",
        "log",
        "py",
        "ipynb",
        "sh",
        "ini",
        "cfg",
        "toml",
        "db",
        "sha256",
        "md5",
        "crc",
        "xlsx",
        "parquet",
    ]
)


@dataclass(frozen=True)
class Found:
    """What a scan found besides the corpus.

    Attributes:
        passed_over: files that are not part of the corpus: suffix, how many, an example.
        of: how many files there are in all.
        sniffed: images whose names are not an image's; their first bytes are.
        empty: folders directly below the root without a file of the corpus.
        links, repeats, broken: see ``formats.listing``.
    """

    passed_over: tuple[tuple[str, int, str], ...] = ()
    of: int = 0
    sniffed: int = 0
    empty: tuple[str, ...] = ()
    links: int = 0
    repeats: int = 0
    broken: tuple[str, ...] = ()

    def overlooked(self) -> int:
        """How many files may be or hold images and are not part of the corpus."""
        return sum(count for suffix, count, _ in self.passed_over if suffix not in NOTES)

    def in_words(self) -> list[str]:
        """Each that is not zero, in a few words."""
        kinds = [
            f"{count:,} {f'.{suffix}' if suffix else 'without suffix'} ({example})"
            for suffix, count, example in self.passed_over[:KINDS_SHOWN]
        ]
        more = len(self.passed_over) - len(kinds)
        words = [f"passed over: {', '.join(kinds)}" + f" and {more} more kinds" * bool(more)] if kinds else []
        words += [f"{self.sniffed:,} images recognised by their first bytes"] * bool(self.sniffed)
        words += [f"links followed: {self.links:,}"] * bool(self.links)
        words += [f"links to what is counted already: {self.repeats:,}"] * bool(self.repeats)
        words += [f"links that lead nowhere: {len(self.broken):,} ({self.broken[0]})"] if self.broken else []
        return words


def by_suffix(paths: Iterable[str]) -> tuple[tuple[str, int, str], ...]:
    """(suffix, how many, an example) of files, the most frequent first."""
    found: dict[str, list[str]] = {}
    for path in paths:
        stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
        found.setdefault(suffix.lower() if dot and stem else "", []).append(path)
    ordered = sorted(found.items(), key=lambda it: (-len(it[1]), it[0]))
    return tuple((suffix, len(of), min(of)) for suffix, of in ordered)
