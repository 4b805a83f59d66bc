"""The best network of a run that has no report yet."""

import re

from ray_ns.artifacts.fixed import TUNED
from ray_ns.artifacts.network import Network
from ray_ns.artifacts.scores import Scores
from ray_ns.config import Config, Settings
from ray_ns.config.run import Promote, Run
from ray_ns.evaluate.promotion import decisions
from ray_ns.store import layout
from ray_ns.store.commit import find_commit, planned_inputs
from ray_ns.store.objects import ObjectStore

_EVALUATED = re.compile(r"((?:pool-(\d+)/)?rounds/(\d+))/evaluate", re.ASCII)


def best_so_far(store: ObjectStore) -> tuple[str, Network] | None:
    """The round whose network would be the teacher now, by the run's own rule (``run.promote``), and that network.

    Of a pool that has grown the newest rounds are asked, where there are any; by ``validation`` all. None where no
    round is evaluated yet.
    """
    rule = promote_of(store)
    made = sorted(
        (int(found[2] or 1), int(found[3]), found[1])
        for stage in layout.stages(store)
        if (found := _EVALUATED.fullmatch(stage))
    )
    rounds: list[tuple[str, Network, Scores]] = []
    for _, number, turn in made:
        commit, network = find_commit(store, f"{turn}/evaluate"), evaluated(store, turn)
        if commit is None or network is None:
            continue
        if rule != "validation" and number == 1:  # the students of another pool are no teachers of these
            rounds = rounds[:1]
        rounds.append((turn, network, Scores(commit, store)))
    if not rounds:
        return None
    exact = (layout.record(store) or {"format": layout.FORMAT})["format"] >= layout.EXACT
    turn, network, _ = rounds[decisions(rule, [scores for *_, scores in rounds], exact)[1]]
    return turn, network


def evaluated(store: ObjectStore, turn: str) -> Network | None:
    """The network of a turn that its evaluation looked at: of its last training, or one given. None: no such."""
    wanted = (planned_inputs(store, f"{turn}/evaluate") or {}).get("network")
    commits = (find_commit(store, f"{turn}/{stage}") for stage in ("network", "train", "finetune", TUNED))
    return next((Network(it) for it in commits if it is not None and it.digest == wanted), None)


def promote_of(store: ObjectStore) -> Promote:
    """The run's rule, by which a student becomes the teacher."""
    named = (layout.settings(store) or {}).get("run", {})
    found: Promote = Settings.of_run(layout.record(store), Config).with_defaults(named, Run)["promote"]
    return found
