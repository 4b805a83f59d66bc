from pathlib import Path
from types import SimpleNamespace

import pytest

from ray_ns.engine.run import Run
from ray_ns.engine.stages.training import _done
from ray_ns.store.objects import LocalStore

GARBAGE = (
    b"",
    b"\x00",
    b"[]",
    b"{}",
    b'{"step":"x"}',
    b'{"step":[1]}',
    b'{"step":null}',
    b'{"step":true}',
    b"[" * 9999,
)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_for_progress_or_seconds_is_no_progress_and_no_seconds(tmp_path: Path, garbage: bytes) -> None:
    store = LocalStore(tmp_path)
    for key in ("t/progress.json", "t/timing.json"):
        store.put(key, garbage)
    assert _done(store, "t") is None
    assert Run.seconds(SimpleNamespace(store=store), "t") == 0.0  # type: ignore[arg-type]
    store.put("t/progress.json", b'{"step":3,"curve":[[1,2]]}')
    assert _done(store, "t") == (3, "", {})
    store.put("t/progress.json", b'{"step":3,"loss":0.25,"images":"many"}')
    assert _done(store, "t") == (3, "", {"loss": 0.25})
