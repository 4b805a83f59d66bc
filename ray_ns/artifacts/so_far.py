"""The best network of a run that has no report yet."""

import re

from ray_ns.artifacts.network import Network
from ray_ns.artifacts.scores import Scores
from ray_ns.store import layout
from ray_ns.store.commit import find_commit, planned_inputs
from ray_ns.store.objects import ObjectStore

_EVALUATED = re.compile(r"((?:pool-(\d+)/)?rounds/(\d+))/evaluate", re.ASCII)


def best_so_far(store: ObjectStore) -> tuple[str, Network] | None:
    """The round with the best top-1 on the validation images, the earlier of two equals, and its network.

    None where no round is evaluated yet.
    """
    rounds = [found for stage in layout.stages(store) if (found := _EVALUATED.fullmatch(stage))]
    best: tuple[float, str, Network] | None = None
    for found in sorted(rounds, key=lambda it: (int(it[2] or 1), int(it[3]))):
        commit = find_commit(store, found[0])
        network = evaluated(store, found[1]) if commit is not None else None
        if commit is None or network is None:
            continue
        score = Scores(commit).top1("validation")
        if best is None or score > best[0]:
            best = score, found[1], network
    return None if best is None else best[1:]


def evaluated(store: ObjectStore, turn: str) -> Network | None:
    """The network of a turn that its evaluation looked at: the fine-tuned one where there is one. None: no such."""
    wanted = (planned_inputs(store, f"{turn}/evaluate") or {}).get("network")
    commits = (find_commit(store, f"{turn}/{stage}") for stage in ("train", "finetune"))
    return next((Network(it) for it in commits if it is not None and it.digest == wanted), None)
