"""What a node of a cluster finds of a run. It goes there by value, so that a node without this package can say so.

At the top of this file only Python's own modules are imported, and nothing here needs the rest of the package before
``look`` has seen that it is there.
"""

import contextlib
import hashlib
import os
import pickle
import platform
import shutil
import tempfile
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

PACKAGE, OTHERS = "ray_ns", ("ray", "torch", "timm")
STORE_SECONDS = 20.0  # a node waits so long for the run directory


def versions() -> dict[str, str]:
    """The versions that must be the same on every node, by name; empty where something is not there.

    ``code`` is a digest of the package's files: a copy that was changed has the version of the one that was not.
    """
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    try:
        package = import_module(PACKAGE)
        root = Path(str(package.__file__)).parent
        digest = hashlib.sha256()
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
        found |= {PACKAGE: str(package.__version__), "code": digest.hexdigest()[:12]}
    except ImportError:
        found |= {PACKAGE: "", "code": ""}
    for name in OTHERS:
        try:
            found[name] = metadata.version(name).partition("+")[0]  # builds for CPUs and for GPUs are one version
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def look(key: str, marker: bytes, answer: str, packed: bytes) -> dict[str, Any]:
    """What this node has: ``versions``, free bytes of ``scratch``, and in words what it cannot do.

    ``store``: empty where it reads ``marker`` at ``key`` of the run directory; then it has written it at ``answer`` too
    (``reached``). ``corpora``: of each that it cannot read, its place and why. ``packed``: store and corpora, pickled.
    """
    found: dict[str, Any] = {"versions": versions(), "scratch": 0, "reached": False, "store": "", "corpora": {}}
    folder = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        found["scratch"] = shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0
    if not found["versions"][PACKAGE]:
        return found
    try:
        store, corpora = pickle.loads(packed)  # noqa: S301 - made by the driver of this job
        patient = store.patient(STORE_SECONDS)
        seen = patient.get(key)
        if seen == marker:
            patient.put(answer, marker)
            found["reached"] = True
        else:
            found["store"] = "is another folder there: it lacks the file that the driver has just written"
    except Exception as error:
        found["store"] = f"cannot be read and written there ({_words(error)})"
        return found
    for corpus in corpora:
        try:
            reader = corpus.open(corpus.shards[0])
            group = next(number for number, rows in enumerate(reader.group_rows) if rows)
            reader.images(group, _first_row())
        except StopIteration:
            pass
        except Exception as error:
            found["corpora"][corpus.root] = _words(error)
    return found


def _first_row() -> Any:
    import numpy as np

    return np.zeros(1, np.int64)


def _words(error: Exception) -> str:
    return f"{(str(error).strip() or type(error).__name__).splitlines()[0]}"
