"""What the records of a run say of its best network: the values of its model card. No path of a machine is in them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray_ns import __version__
from ray_ns.artifacts.labels import Labels
from ray_ns.artifacts.network import Network
from ray_ns.artifacts.report import Report
from ray_ns.corpora.known import IN
from ray_ns.errors import IntegrityError
from ray_ns.export.model_card import Card, Origin, Selected, Trained
from ray_ns.export.network import data_of_run
from ray_ns.export.verdicts import of_turns
from ray_ns.methods.outcome import ONE_STUDENT, is_control, title
from ray_ns.seals import digest
from ray_ns.store import layout
from ray_ns.store.commit import Commit, find_commit, planned_inputs
from ray_ns.store.objects import ObjectStore


def card_of(store: ObjectStore, report: Report, network: Network) -> Card:
    """The values of the card of ``network``, which ``report`` names as the best."""
    value, classes = report.value(store), layout.classes(store)
    rows = [row for row in value["rounds"] if not is_control(row["round"])]
    control = [row for row in value["rounds"] if is_control(row["round"])]
    best = next(number for number, row in enumerate(rows) if row["best"])
    record = layout.record(store)
    assert record is not None, "a run with a report has begun"
    method = record["config"]["run"].get("method", "noisy_student")
    beside = rows[-1]["round"] if method in ONE_STUDENT else value["best"]
    over = {title(row["round"]): of_turns(store, beside, row["round"]) for row in control}
    scores = _commit(store, f"{value['best']}/evaluate").summary
    images = {name: int(of["images"]) for name, of in scores.items()}
    of_pool = [row for row in rows if row["kept"]]
    labels = Labels(_commit(store, f"{of_pool[0]['round']}/label")) if of_pool else None
    return Card(
        rounds=[_trained(row) for row in rows],
        best=best,
        controls=[_trained(row) for row in control],
        method=method,
        over_teacher=of_turns(store, value["best"], rows[0]["round"]) if best else None,
        over_control=over.pop(title(control[0]["round"])) if control else None,
        over_others={name: found for name, found in over.items() if found is not None},
        data=data_of_run(store, network),
        names=classes.names,
        images=images,
        unreadable={name: int(of["unreadable"]) for name, of in scores.items()},
        calibration=scores["test"]["calibration_error"],
        why=value.get("why"),
        top5=scores["test"].get("top5"),
        origins=_origins(store, labels, images),
        quarantine=labels.quarantine if labels else {},
        left_out=labels.left_out if labels else {},
        selected=_selected(_selection(store, rows[1 : best + 1]).summary) if rows[best]["kept"] else None,
        facts={
            "Seed": record["config"]["run"].get("seed", 0),
            "sha256 of model.safetensors": network.weights_sha256,
            "digest of the run's report": report.digest,
            "format of the run": record["format"],
            "card by ray_ns": __version__,
        },
    )


def _commit(store: ObjectStore, place: str) -> Commit:
    commit = find_commit(store, place)
    if commit is None:
        raise IntegrityError(
            f"{store.url}: {place} has no commit, and the report builds on it. Restore it from a backup."
        )
    return commit


def _selection(store: ObjectStore, rounds: Sequence[Mapping[str, Any]]) -> Commit:
    """The selection that the last of ``rounds`` learned from: its own, or an earlier one of the same teacher."""
    wanted = (planned_inputs(store, f"{rounds[-1]['round']}/train") or {}).get("selection")
    places = [f"{row['round']}/select" for row in reversed(rounds)]
    found = (find_commit(store, place) for place in places)
    commit = next((it for it in found if it is not None and it.digest == wanted), None)
    return _commit(store, places[0]) if commit is None else commit


def _trained(row: Mapping[str, Any]) -> Trained:
    """A row of the report. Only those that learned from a pool have figures of it."""
    name = str(row["round"])
    control = is_control(name)
    given = bool(row.get("given"))
    called = f"{title(name)}, given" if given else title(name)
    of_pool = {"kept": row["kept"], "copies": row["kept"] + row["duplicates"]} if row["kept"] and not control else {}
    figures = {"validation": row["validation_top1"], "test": row["test_top1"]}
    return Trained(called, row["model"], row["parameters"], **figures, **of_pool, given=given)


def _origins(store: ObjectStore, labels: Labels | None, evaluated: Mapping[str, int]) -> dict[str, Origin]:
    """Of each corpus as the newest generation has it."""
    corpora, known = layout.generations(store)[-1], find_commit(store, "digests")
    found = {}
    for name in (*IN, "pool"):
        images, content = evaluated.get(name), None
        if name == "pool" and labels is not None:
            images, content = int(labels.commit.summary["rows"]), labels.content
        elif known is not None and name in IN:
            images, content = int(known.summary[name]), known.parts[0].objects[name].sha256
        found[name] = Origin(images, digest(corpora[name]), content)
    return found


def _selected(summary: Mapping[str, Any]) -> Selected:
    per_class = summary["per_class"]
    copies = [count for count in per_class["with_copies"] if count] or [0]
    thresholds = per_class["threshold"]
    return Selected(summary["rule"], (min(thresholds), max(thresholds)), (min(copies), max(copies)))
