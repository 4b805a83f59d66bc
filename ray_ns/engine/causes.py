"""What a failure inside Ray was, in one line: the error that was raised, or what ended the process, and where.

Ray wraps errors in several layers, and its texts end with advice for who programs with Ray (retries, settings, links).
"""

import re
from collections.abc import Iterator

LONGEST = 400  # characters of a message
WITHIN = ("cause", "controller_failure", "health_check_failure")  # attributes of Ray's errors that hold another one
CHAIN = "\nThe above exception was the direct cause of the following exception:"
# Sentences with these words are for programmers, or say what may have been.
_ADVICE = re.compile(
    r"causes include|If the process was killed|onsider |Refer to |Check (?:cluster|raylet|python)|RAY_\w+|"
    r"max_(?:restarts|retries|task_retries)|retry_exceptions|To (?:see|prevent|adjust|disable|revert|avoid) |"
    r"[Tt]ip: |You can set|file an issue|For (?:more|remote) |https?://|ray\.(?:init|remote|put)\(|`ray |"
    r"^Fix the exceptions|^The task may or may not"
)
_MEMORY = re.compile(r"emory on the node \(IP: ([^,)]+).*?\) was ([\d.]+ ?GB)(?: used)? / ([\d.]+ ?GB)")
_TASK = re.compile(r"\(pid=(\d+), ip=([^,)\s]+)")
_ACTOR = re.compile(r"^\tpid: (\d+)$(?:.*?^\tip: (\S+)$)?", re.MULTILINE | re.DOTALL)
_DIED = ("died", "crashed", "killed", "low on memory")


def in_short(error: BaseException) -> str:
    """Type and message of the error within Ray's wrappings, without a full stop; where known worker, pid and node."""
    where: dict[str, str] = {}
    seen: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in seen:
        error = inner
        seen.append(error)
        where |= _where(error)
        inner = _inside(error, where)
    kind, message = _told(error)
    place = ", ".join(f"{name} {value}" for name, value in where.items())
    return f"{kind}: {message.rstrip('.') or 'no message'}{f' ({place})' if place else ''}"


def failures_of(error: BaseException) -> Iterator[tuple[int, BaseException]]:
    """The errors of a training's workers by rank: first those of processes that died, which made the others fail."""
    found = getattr(error, "worker_failures", None) or {}
    yield from sorted(found.items(), key=lambda it: (not any(word in str(it[1]) for word in _DIED), it[0]))


def _inside(error: BaseException, where: dict[str, str]) -> BaseException | None:
    """The error that one of Ray's wraps; None where there is none, and for all that are not Ray's."""
    if not _is_rays(error):
        return None
    for rank, failure in failures_of(error):
        where["worker"] = str(rank)
        return failure
    held = [getattr(error, name, None) for name in WITHIN]
    if error.__cause__ is not None and str(error.__cause__):  # Ray Data raises its own from one without a word
        held.append(error.__cause__)
    found = next((it for it in held if isinstance(it, BaseException)), None)
    # On the way between processes the cause of a cause is lost, and only the text of the outer one has it.
    return None if found is not None and _is_rays(found) and CHAIN in str(error) else found


def _is_rays(error: BaseException) -> bool:
    return any(base.__module__.partition(".")[0] == "ray" for base in type(error).__mro__)


def _where(error: BaseException) -> dict[str, str]:
    """Process and node, where one of Ray's errors says them: the innermost, which comes last."""
    if not _is_rays(error):
        return {}
    text = str(error)
    if found := _TASK.findall(text):
        return dict(zip(("pid", "node"), found[-1], strict=True))
    if actor := _ACTOR.search(text):
        return {name: value for name, value in zip(("pid", "node"), actor.groups(), strict=True) if value}
    return {}


def _told(error: BaseException) -> tuple[str, str]:
    """The name of the error's type, and its message on one line."""
    kind, text = type(error).__name__, str(error)
    if not _is_rays(error):
        first, *more = [line.strip() for line in text.splitlines() if line.strip()] or [""]
        return kind, _cut(f"{first} {more[0]}" if first.endswith(":") and more else first)
    if memory := _MEMORY.search(text):
        node, used, limit = memory.groups()
        return "OutOfMemoryError", f"node {node} ran out of memory ({used} used of {limit}), and Ray ended a process"
    if raised := _raised(text):
        return raised
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\t")]
    sentences = [it for line in lines for it in re.split(r"(?<=[.!?]) +(?=[A-Z(`\[])", line)]
    return kind, _cut(" ".join(it for it in sentences if not _ADVICE.search(it)))


def _raised(text: str) -> tuple[str, str] | None:
    """Type and message of the error at the end of a traceback; of a chain of causes the first one. None without one."""
    lines = text.partition(CHAIN)[0].splitlines()
    frames = [at for at, line in enumerate(lines) if line.startswith('  File "')]
    for line in lines[frames[-1] + 1 :] if frames else ():
        if found := re.fullmatch(r"(?:\w+\.)*(\w+)(?:: (.*))?", line):
            return found[1], _cut(found[2] or "")
    return None


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
