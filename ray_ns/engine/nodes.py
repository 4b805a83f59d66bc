"""A look at every node of a cluster that a run joins, before it writes anything that lasts.

A task on each node finds out whether the run would work there: the same versions, the same run directory, the images.
Disks, container images and secrets that differ would otherwise be met hours later and as something else: a training
that ends without its network, workers that cannot be started.
"""

import pickle
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.found import Found
from ray_ns.engine.causes import in_short
from ray_ns.engine.placement import Node, alive, amount, held, on_nodes, shapes
from ray_ns.engine.workers import there
from ray_ns.errors import InputError
from ray_ns.observe import Reporter
from ray_ns.store.objects import ObjectStore

ANSWER_SECONDS = 120.0  # a node may first have to install what the job's runtime environment names
NOTE_SECONDS = 10.0
STARTING_SECONDS = 60.0  # nodes that were started with the cluster come one after the other
LITTLE_SCRATCH = 2 * 2**30
TOLD = 4  # nodes named per trouble, and troubles
Answer = Mapping[str, Any]  # what ``there.look`` returns, or ``failed`` and why; None: none came


def check(store: ObjectStore, corpora: Iterable[Corpus], reporter: Reporter) -> None:
    """Have every node look; one line for what they have. Raises ``InputError`` where one cannot do the run's work."""
    import ray

    nodes = at_work(alive(), ray.get_runtime_context().get_node_id())
    names = names_of(nodes)
    key, marker = f"driver/seen-{secrets.token_hex(6)}", secrets.token_bytes(32)
    firsts = [replace(it, shards=it.shards[:1], found=Found()) for it in corpora if it.shards]
    written = {node.id: f"{key}-{number}" for number, node in enumerate(nodes)}
    try:
        store.put(key, marker)
        found = _asked(
            {it: (key, marker, written[it], pickle.dumps((store, firsts))) for it in written}, names, reporter
        )
        for node_id, one in found.items():
            if one.get("reached") and store.get(written[node_id]) != marker:
                one["store"] = "is another folder there: what it writes is not seen here"
    finally:
        for name in (*written.values(), key):
            store.delete(name)
    present = {it.id for it in alive()} | set(found)
    answers: dict[str, Answer | None] = {
        names[it.id]: found.get(it.id) for it in nodes if it.id in present
    }  # others have left meanwhile
    wrong = troubles(answers, there.versions(), store.url)
    if wrong:
        raise InputError(in_words(len(answers), wrong))
    reporter.note(told(nodes, {name: answer for name, answer in answers.items() if answer is not None}))
    for name, answer in answers.items():
        if answer is not None and answer["scratch"] < LITTLE_SCRATCH:
            reporter.warn(
                f"{name}: {answer['scratch'] / 2**30:.1f} GB free in its TMPDIR, where training workers keep 40 bytes "
                f"an image. Give it a larger TMPDIR."
            )


def at_work(nodes: Iterable[Node], driver: str) -> list[Node]:
    """Those that a run works on: all that have CPUs or GPUs, and the ``driver``'s; by address."""
    found = (it for it in nodes if it.cpus or it.gpus or it.id == driver)
    return sorted(found, key=lambda node: (node.address, node.id))


def names_of(nodes: Sequence[Node]) -> dict[str, str]:
    """A name for a person of each node, by its id: its address, and the id where two have one address."""
    many = Counter(it.address for it in nodes)
    return {it.id: it.address if many[it.address] == 1 else f"{it.address} ({it.id[:8]})" for it in nodes}


def _asked(
    given: Mapping[str, tuple[Any, ...]], names: Mapping[str, str], reporter: Reporter
) -> dict[str, dict[str, Any]]:
    """The answers of the nodes that gave one in time, by their ids. ``given``: what each gets."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.cloudpickle.register_pickle_by_value(there)
    try:
        look = ray.remote(num_cpus=0, max_retries=0)(there.look)
        asked = {
            look.options(
                name="ray_ns: look at a node", scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
            ).remote(*words): node_id
            for node_id, words in given.items()
        }
    finally:
        ray.cloudpickle.unregister_pickle_by_value(there)
    found: dict[str, dict[str, Any]] = {}
    began, told_of = time.monotonic(), False
    while asked and time.monotonic() < began + ANSWER_SECONDS:
        for done in ray.wait(list(asked), num_returns=len(asked), timeout=1.0)[0]:
            node_id = asked.pop(done)
            try:
                found[node_id] = ray.get(done)
            except ray.exceptions.RayError as error:
                found[node_id] = {"failed": in_short(error)}
        if asked and not told_of and time.monotonic() > began + NOTE_SECONDS:
            told_of = True
            reporter.note(f"waiting for an answer of {_listed([names[it] for it in asked.values()])}")
    for late in asked:
        ray.cancel(late, force=True)
    return found


def troubles(
    answers: Mapping[str, Answer | None], mine: Mapping[str, str], url: str
) -> dict[tuple[str, str], list[str]]:
    """What is wrong and what mends it, each with the names of the nodes that have it.

    ``answers``: by the nodes' names; ``mine``: the driver's ``versions``; ``url``: of the run directory.
    """
    wrong: dict[tuple[str, str], list[str]] = {}
    for name, answer in answers.items():
        for trouble in _of_one(answer, mine, url):
            wrong.setdefault(trouble, []).append(name)
    return wrong


def _of_one(answer: Answer | None, mine: Mapping[str, str], url: str) -> list[tuple[str, str]]:
    if answer is None or "failed" in answer:
        what = f"no answer in {ANSWER_SECONDS:.0f} s" if answer is None else f"cannot run a task ({answer['failed']})"
        return [(what, "See 'ray list nodes' and the logs of that node")]
    theirs, package = answer["versions"], there.PACKAGE
    missing = [name for name in (package, *there.OTHERS) if not theirs[name]]
    other = [f"{name} {theirs[name]} there, {mine[name]} here" for name in mine if theirs[name] != mine[name]]
    if theirs[package] == mine[package] and theirs["code"] != mine["code"]:
        other = [f"{package} {mine[package]} of other code than here"]
    if missing or other:
        what = f"no {' and no '.join(missing)} there" if missing else ", ".join(it for it in other if it[:5] != "code ")
        return [(what, "Every node needs what the driver has: one image, or one pip list, for all")]
    if answer["store"]:
        return [(f"{url} {answer['store']}", "Give a folder that every node mounts, or a URL such as s3://bucket/run")]
    mend = "Give a folder that every node mounts, or a URL and its credentials"
    return [(f"{root} cannot be read there ({why.removesuffix('.')})", mend) for root, why in answer["corpora"].items()]


def in_words(nodes: int, wrong: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """One line: which of so many nodes cannot do the run's work, why, and what mends it."""
    bad = len({name for names in wrong.values() for name in names})
    parts = [f"{_listed(names)}: {what}. {mend}." for (what, mend), names in list(wrong.items())[:TOLD]]
    more = f" And {len(wrong) - TOLD} more troubles." if len(wrong) > TOLD else ""
    return f"{bad} of {nodes} nodes cannot do this run's work. {' '.join(parts)}{more}"


def told(nodes: Sequence[Node], answers: Mapping[str, Answer]) -> str:
    """One line: what the nodes have, all of them alike, and the least scratch space of any."""
    same = next(iter(answers.values()))["versions"]
    versions = ", ".join(f"{name} {same[name]}" for name in (there.PACKAGE, *there.OTHERS))
    power = f"{amount(sum(it.cpus for it in nodes), 'CPU')}, {amount(sum(it.gpus for it in nodes), 'GPU')}"
    least, name = min((answer["scratch"], name) for name, answer in answers.items())
    return (
        f"{amount(len(answers), 'node')}: {versions}, Python {same['python']}; {power}; run directory and images "
        f"reached from each; scratch space {least / 2**30:,.0f} GB at least ({name}). Nodes that join later are not "
        f"looked at."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:TOLD]) + (f" and {len(names) - TOLD} more" if len(names) > TOLD else "")


def check_shapes(config: Config, reporter: Reporter, grows: bool) -> None:
    """Raise ``InputError`` where some kind of worker fits no node, after a wait for nodes that are still starting.

    ``grows``: an autoscaler may bring such a node, so that it is waited for by whoever needs it.
    """
    until, told_of = time.monotonic() + STARTING_SECONDS, False
    while lacking := fits_none(config, nodes := alive()):
        if grows:
            reporter.warn(f"{lacking} The autoscaler may bring one; it is waited for.")
            return
        if time.monotonic() > until:
            raise InputError(
                f"{lacking} Lower what it asks for, or start such a node ({_kinds(nodes)}; no autoscaler is seen here)."
            )
        if not told_of:
            told_of = True
            reporter.note(f"{lacking} Waiting {STARTING_SECONDS:.0f} s for nodes that are starting.")
        time.sleep(1.0)


def fits_none(config: Config, nodes: Sequence[Node]) -> str:
    """In words: a kind of worker that none of the nodes can hold one of; empty where each kind fits some node."""
    for shape in shapes(config):
        one = replace(shape, count=1)
        if not any(held(one, node) for node in nodes):
            asked = " and ".join(amount(it, unit) for it, unit in ((shape.cpus, "CPU"), (shape.gpus, "GPU")) if it)
            return f"no node holds one {shape.name}: {asked}{on_nodes(shape.selector)}."
    return ""


def _kinds(nodes: Iterable[Node]) -> str:
    """What nodes there are: ``2 x 4 CPUs, 1 x 8 CPUs and 1 GPUs``."""
    kinds = Counter((it.cpus, it.gpus) for it in nodes if it.cpus or it.gpus)
    words = [
        f"{count} x {amount(cpus, 'CPU')}" + (f" and {amount(gpus, 'GPU')}" if gpus else "")
        for (cpus, gpus), count in kinds.items()
    ]
    return f"there are {', '.join(words) or 'none with CPUs'}"
