"""What a failure inside Ray comes out as: one of our errors, with its exit code and what to do."""

import contextlib
from collections.abc import Callable, Iterator

from ray_ns.errors import RayNsError, RepeatingError, ResumableError

# Raised by code over what it was given, and so raised again. Trouble of a machine or a network raises none of these.
AGAIN = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, ImportError, AssertionError)


@contextlib.contextmanager
def as_ours(stage: str, logs: Callable[[], str]) -> Iterator[None]:
    """Errors of the block come out as ours: those raised inside Ray bare, all others naming the ``stage``.

    ``logs``: where Ray's logs lie, as the end of the message.
    """
    try:
        yield
    except RayNsError:
        raise
    except Exception as error:
        found = cause(error)
        if found is not None:
            raise type(found)(str(found)) from error
        words = f"{stage} failed: {_last_line(error)}. What is committed stays."
        if would_repeat(error):
            raise RepeatingError(f"{words} The same command would meet this again: mend its cause.{logs()}") from error
        raise ResumableError(f"{words} The same command goes on from there.{logs()}") from error


def cause(error: BaseException | None) -> RayNsError | None:
    """The error of ours inside Ray's wrappings, if there is one."""
    seen: list[BaseException] = []
    queue = [error]
    while queue:
        current = queue.pop(0)
        if current is None or current in seen:
            continue
        if isinstance(current, RayNsError):
            return current
        seen.append(current)
        inner = getattr(current, "cause", None)
        queue += [inner if isinstance(inner, BaseException) else None, current.__cause__, current.__context__]
        queue += list((getattr(current, "worker_failures", None) or {}).values())
    return None


def would_repeat(error: BaseException) -> bool:
    """Whether code has raised it over what it was given, and no crash, machine or network is behind it."""
    seen: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or current in seen:
            continue
        seen.append(current)
        if isinstance(current, AGAIN) and not type(current).__module__.startswith("ray"):
            return True
        inner = getattr(current, "cause", None)
        queue += [inner if isinstance(inner, BaseException) else None, current.__cause__]
        queue += list((getattr(current, "worker_failures", None) or {}).values())
    return False


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
