"""Something that is done again and again while other work goes on."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def every(seconds: float, look: Callable[[], None], name: str) -> Iterator[None]:
    """While the block runs, call ``look`` every so many seconds, in a thread of that name."""
    stop = threading.Event()

    def keep_looking() -> None:
        while not stop.wait(seconds):
            look()

    thread = threading.Thread(target=keep_looking, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
