"""What ``ray-ns gc`` prints: a line per folder and reason, what stays, and what no run can know."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ray_ns.printed import say
from ray_ns.store.gc import Found, Leftover

NAMED = 5  # folders that a line names
FORKS = (
    "Forks of this run read its data, and it does not know them: what its commits name stays, so none loses any, "
    "unless a stage was deleted here by hand since they were forked."
)


def as_json(found: Found, removed: bool) -> dict[str, Any]:
    """The findings for machines; sizes in bytes."""
    groups = [{"folder": it[0], "why": it[1], "files": files, "bytes": size} for it, files, size in _groups(found.old)]
    return {
        "removed": removed,
        **_total(found.old),
        "groups": groups,
        "young": _total(found.young),
        "unknown": list(found.unknown),
    }


def show(found: Found, removed: bool) -> None:
    """Print what was found; ``removed``: what is older than a day is gone."""
    for (folder, why), files, size in _groups(found.old):
        say(f"{folder:<24} {_files(files):>14} {in_bytes(size):>9}  {why}")
    if found.young:
        young = _total(found.young)
        say(f"{_files(young['files'])} more, {in_bytes(young['bytes'])}: younger than a day, not to be removed yet")
    if found.unknown:
        say(f"{_files(len(found.unknown))} not the run's by name, never removed: {_places(found.unknown)}")
    total = _total(found.old)
    words = f"{_files(total['files'])}, {in_bytes(total['bytes'])}"
    if removed:
        say(f"removed: {words}")
    elif not found.old:
        say("nothing to remove")
    else:
        say(f"nothing is removed yet: 'ray-ns gc RUN --delete' removes {words}. {FORKS}")


def in_bytes(size: float) -> str:
    """A size in words: ``0 B``, ``12 kB``, ``3.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _groups(leftovers: Iterable[Leftover]) -> Iterable[tuple[tuple[str, str], int, int]]:
    files: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for it in leftovers:
        files[it.folder, it.why] += 1
        sizes[it.folder, it.why] += it.size
    return [(group, count, sizes[group]) for group, count in sorted(files.items())]


def _total(leftovers: Iterable[Leftover]) -> dict[str, int]:
    sizes = [it.size for it in leftovers]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _places(keys: Iterable[str]) -> str:
    folders = Counter(f"{key.rpartition('/')[0]}/" if "/" in key else key for key in keys)
    named = [
        f"{folder} ({count:,})" if folder.endswith("/") else folder for folder, count in folders.most_common(NAMED)
    ]
    more = len(folders) - NAMED
    return ", ".join(named) + (f" and {more:,} more places" if more > 0 else "")
