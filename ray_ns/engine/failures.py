"""What a failure inside Ray comes out as: one of our errors, with its exit code and what to do."""

import contextlib
from collections.abc import Callable, Iterator

from ray_ns.engine.causes import WITHIN, in_short
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
        words = f"{stage} failed: {in_short(error)}. What is committed stays."
        if would_repeat(error):
            raise RepeatingError(f"{words} The same command would meet this again: mend its cause.{logs()}") from error
        raise ResumableError(f"{words} The same command goes on from there.{logs()}") from error


def cause(error: BaseException) -> RayNsError | None:
    """The error of ours inside Ray's wrappings, if there is one."""
    return next((it for it in _within(error, context=True) if isinstance(it, RayNsError)), None)


def would_repeat(error: BaseException) -> bool:
    """Whether code has raised it over what it was given, and no crash, machine or network is behind it."""
    # Not in what was being handled as an error was raised: a crash may come while code handles a KeyError.
    raised = _within(error, context=False)
    return any(isinstance(it, AGAIN) and not type(it).__module__.startswith("ray") for it in raised)


def _within(error: BaseException, context: bool) -> Iterator[BaseException]:
    """The error, and all that it wraps or that caused it; ``context``: also what was handled as it was raised."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        current = queue.pop(0)
        if not isinstance(current, BaseException) or current in seen:
            continue
        seen.append(current)
        yield current
        queue += [getattr(current, name, None) for name in WITHIN]
        queue += [current.__cause__, current.__context__ if context else None]
        queue += (getattr(current, "worker_failures", None) or {}).values()
