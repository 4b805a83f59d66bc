"""Faults for a run under test; on PYTHONPATH it reaches the driver and every worker of Ray.

``RAY_NS_FAULT`` is one of
``before|after:<regular expression>:<n>``  at the n-th write of a matching key in one process, before or after it, the
    driver (the process that holds the run's highest lease) is killed with SIGKILL;
``read:<regular expression>:<marker file>``  the process that reads a matching shard first kills itself, once: the
    marker says that it happened;
``decode:<sha256>:<sha256>``  the process that decodes the image with the first sha256 dies of SIGSEGV, every time; the
    one that decodes the second image never ends.
``die:<regular expression>;...:<marker>``  the process that first has written a key matching one of them kills itself,
    once for each: ``<marker>-<n>`` says that it happened.
``term:<regular expression>:<marker>``  the process that first notes the progress of a training sends SIGTERM to the
    other training worker of its node, once, in that step; ``<marker>`` holds the steps in the keys and values of all
    written keys that match, in order.
``late:<seconds>:<marker>``  the first of the training workers kills itself so long after its first step, in three
    attempts: ``<marker>-<n>`` says that it happened; every step takes a quarter of a second longer.
``order:<seconds>:<folder>``  nothing goes wrong: every process that trains notes there the images of its share of every
    step; a worker that trains alone takes so much longer for a step, none where it is empty.
"""

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path


def is_first(marker: str) -> bool:
    """Whether nobody has asked for this marker file, which now is there."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def kill_driver_at_write(when: str, pattern: str, nth: int) -> None:
    import json
    from itertools import product

    from ray_ns.store.objects import LocalStore, ObjectStore
    from ray_ns.store.s3 import S3Store

    seen = 0

    def reach(store: ObjectStore, key: str, moment: str) -> None:
        nonlocal seen
        if moment != when or not re.search(pattern, key):
            return
        seen += 1
        if seen == nth:
            held = store.get(max(store.list("driver/0")))
            os.kill(json.loads(held)["pid"], signal.SIGKILL)
            time.sleep(60)  # a worker waits here for Ray to end it with its driver

    for kind, name in product((LocalStore, S3Store), ("put", "put_if_absent")):
        original = getattr(kind, name)

        def write(self: ObjectStore, key: str, data: bytes, original=original):
            reach(self, key, "before")
            result = original(self, key, data)
            reach(self, key, "after")
            return result

        setattr(kind, name, write)


def kill_reader(pattern: str, marker: str) -> None:
    from ray_ns.corpora import corpus

    original = corpus.ShardReader.images

    def images(self: corpus.ShardReader, *what):
        if re.search(pattern, self._name) and is_first(marker):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *what)

    corpus.ShardReader.images = images


def break_decoder(crashes: str, hangs: str) -> None:
    import hashlib

    from ray_ns.images import decode

    original = decode.Decode.__call__

    def decoded(self: decode.Decode, data: bytes | None):
        found = hashlib.sha256(data or b"").hexdigest()
        if found == crashes:
            os.kill(os.getpid(), signal.SIGSEGV)
        while found == hangs:
            pass
        return original(self, data)

    decode.Decode.__call__ = decoded


def kill_writer(patterns: list[str], marker: str) -> None:
    from ray_ns.store import objects

    for name in ("put", "put_if_absent"):
        original = getattr(objects.LocalStore, name)

        def put(self: objects.LocalStore, key: str, data: bytes, original=original):
            result = original(self, key, data)
            for number, pattern in enumerate(patterns):
                if re.search(pattern, key) and is_first(f"{marker}-{number}"):
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(objects.LocalStore, name, put)


def other_training_worker() -> int:
    """The one other child of this process's parent that Ray calls a training worker."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            name = (process / "cmdline").read_bytes()
            if parent == os.getppid() and int(process.name) != os.getpid() and b"RayTrainWorker" in name:
                found.append(int(process.name))
    (pid,) = found
    return pid


def tell_the_other_worker(pattern: str, marker: str) -> None:
    from ray_ns.engine.workers import recorder
    from ray_ns.store import objects

    original, noted = objects.LocalStore.put, recorder.Recorder._so_far

    def so_far(self: recorder.Recorder, state):
        if is_first(f"{marker}-told"):
            os.kill(other_training_worker(), signal.SIGTERM)
        return noted(self, state)

    def put(self: objects.LocalStore, key: str, data: bytes):
        original(self, key, data)
        if re.search(pattern, key):
            with open(marker, "a") as file:
                print(key.rsplit("/")[-1], re.search(rb'"step":(\d+)', data)[1].decode(), file=file)

    objects.LocalStore.put, recorder.Recorder._so_far = put, so_far


def kill_worker_after(seconds: float, marker: str) -> None:
    import threading

    from ray_ns.train import sampler

    original = sampler.Order.slots
    begun = False

    def die() -> None:
        if any(is_first(f"{marker}-{number}") for number in range(3)):
            os.kill(os.getpid(), signal.SIGKILL)

    def slots(self: sampler.Order, step: int, rank: int = 0, world: int = 1):
        nonlocal begun
        if rank == 0 and not begun:
            begun = True
            timer = threading.Timer(seconds, die)
            timer.daemon = True
            timer.start()
        time.sleep(0.25)
        return original(self, step, rank, world)

    sampler.Order.slots = slots


def note_order(folder: str, slower: float) -> None:
    import json

    from ray_ns.train import sampler

    original = sampler.Order.slots

    def slots(self: sampler.Order, step: int, rank: int = 0, world: int = 1):
        found = original(self, step, rank, world)
        with open(f"{folder}/{os.getpid()}.jsonl", "a") as file:
            print(json.dumps([step, rank, world, found]), file=file)
        if world == 1:
            time.sleep(slower)
        return found

    sampler.Order.slots = slots


if "RAY_NS_FAULT" in os.environ:
    _kind, _pattern, _last = os.environ["RAY_NS_FAULT"].split(":")
    if _kind == "decode":
        break_decoder(_pattern, _last)
    elif _kind == "read":
        kill_reader(_pattern, _last)
    elif _kind == "order":
        note_order(_last, float(_pattern or 0))
    elif _kind == "late":
        kill_worker_after(float(_pattern), _last)
    elif _kind == "term":
        tell_the_other_worker(_pattern, _last)
    elif _kind == "die":
        kill_writer(_pattern.split(";"), _last)
    else:
        kill_driver_at_write(_kind, _pattern, int(_last))
