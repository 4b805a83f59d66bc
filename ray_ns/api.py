"""The same from Python: ``run``, ``predict``, ``load_labels``. The verbs of the command line call the same functions.

In a notebook progress is printed below the cell. An interrupt ends the work and gives the run back; the same call goes
on from what is committed. A run needs Ray for itself: disconnect first (``ray.shutdown()``) where this process uses it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ray_ns.config.read import as_overrides
from ray_ns.methods.outcome import Outcome
from ray_ns.observe import Mode

if TYPE_CHECKING:
    import pyarrow as pa

    from ray_ns.export.verdicts import Judged

Source = str | Path | Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What a run has come to. ``url``: its directory. ``seconds``: of each of ``outcome.all``, of all its stages.

    ``judged``: how its networks compare on the same images; empty where ``until`` ended it early. ``calibrated``: the
    temperatures that were found, with their figures, by the folder of the network's turn.
    """

    url: str
    outcome: Outcome
    seconds: Sequence[float]
    judged: "Sequence[Judged]"
    calibrated: Mapping[str, Mapping[str, Any]]

    @property
    def complete(self) -> bool:
        """Whether it came to its end; False where ``until`` ended it early."""
        return self.outcome.complete

    @cached_property
    def report(self) -> Mapping[str, Any]:
        """The report and the verdicts, as ``ray-ns run --json`` prints it."""
        found = self.outcome.as_json() | {"verdicts": [it.as_json() for it in self.judged]}
        return found | ({"calibrations": self.calibrated} if self.calibrated else {})

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """A row per round, the teacher's first, then the control: model, labels kept, top-1 (0..1), whether best."""
        return list(self.report["rounds"])

    @property
    def best(self) -> str:
        """The folder of the best network: ``timm.create_model(f"local-dir:{result.best}", pretrained=True)``."""
        return f"{self.url}/best"

    def labels(self, **options: Any) -> "pa.Table":
        """The pool's labels, see ``load_labels``."""
        return load_labels(self.url, **options)


def run(
    config: Source,
    *,
    until: str | None = None,
    grow: bool = False,
    fork: str | Path | None = None,
    **overrides: Any,
) -> Result:
    """Run the loop, or resume it: ``ray_ns.run("my.yaml", pool="pictures/", select={"threshold": 0.5})``.

    Args:
        config: a YAML file, or the settings as nested mappings.
        until: end after this stage of round 1 (label, select, train, ...).
        grow: take in shards that the pool has gained.
        fork: a run from which a new one takes what it has made from equal inputs.
        overrides: sections with the settings to lay over the config, or labelled, validation, test, pool.

    Raises:
        InputError: what cannot run, before Ray starts and anything is written; its text says how to mend it.
        ResumableError: the work was ended; the same call goes on.
    """
    return run_loop(config, as_overrides(overrides), "auto", until=until, grow=grow, fork=fork)


def run_loop(
    config: Source,
    overrides: Sequence[str],
    mode: Mode,
    *,
    until: str | None = None,
    grow: bool = False,
    fork: str | Path | None = None,
) -> Result:
    """``run`` with overrides as the command line has them; ``mode``: how progress is printed."""
    from ray_ns.artifacts.calibration import calibrations
    from ray_ns.engine.opening import drive
    from ray_ns.engine.sorting import advised
    from ray_ns.engine.turns import carry_out
    from ray_ns.export.verdicts import verdicts

    with drive(config, overrides, mode, grow, until, None if fork is None else str(fork)) as opened:
        outcome = carry_out(opened)
        rows, method = outcome.as_json()["rounds"], opened.config.run.method
        judged = advised(opened, verdicts(opened.store, rows, method) if outcome.complete else ())
        seconds = [opened.seconds_of(it.name) for it in outcome.all]
        calibrated = calibrations(opened.store, [it.name for it in outcome.all])
        return Result(opened.store.url, outcome, seconds, judged, calibrated)


def load_labels(
    run: str | Path,
    *,
    number: int | None = None,
    network: Literal["best"] | None = None,
    minimum: float | None = None,
    selected: bool = False,
    pool: str | Path | None = None,
) -> "pa.Table":
    """Which image got which label, as ``ray-ns labels`` writes it: a row per image of the pool, by ``image_id``.

    Args:
        run: the directory of a run or of a prediction.
        number: whose labels, by the number of the round; None: the last round that labelled the whole pool.
        network: ``best``: those of the best network.
        minimum: only labels at least so confident, 0..1.
        selected: only labels that the selection kept.
        pool: where the pool lies now, if elsewhere.

    Returns:
        The columns of ``export.columns.SCHEMA``: path, label, label_name, confidence, margin, selected, copies, ...

    Raises:
        InputError: no such run or labels, or the pool is not there.
    """
    from ray_ns.export.labels import Labelled, Wanted, in_memory
    from ray_ns.observe import Reporter

    lies = None if pool is None else str(pool)
    return in_memory(Labelled.of_run(str(run), number, network == "best", lies, Reporter()), Wanted(minimum, selected))


def predict(
    network: str | Path,
    source: str | Path,
    output: str | Path | None = None,
    *,
    keep: str | Path | None = None,
    **overrides: Any,
) -> "pa.Table":
    """Label new images with a trained network: ``ray_ns.predict("runs/mine", "new/")``. Few of them without Ray.

    Args:
        network: a run, whose best network labels; or a folder with ``model.safetensors`` and ``config.json``.
        source: a corpus; labels are not needed.
        output: also write the table there (.csv, .jsonl, .parquet).
        keep: where the prediction's run goes, from which the same call goes on; default: beside ``output``
            (``FILE.run``), and without one a temporary folder.
        overrides: ``label={"actors": 4}``, ``cluster={...}``, some of ``data``.

    Returns:
        The columns of ``export.columns.SCHEMA``, a row per image.

    Raises:
        InputError: what cannot be labelled, before anything is written.
    """
    from ray_ns.engine.prediction import predict_corpus, predict_to
    from ray_ns.export.labels import Wanted, in_memory

    settings, place = as_overrides(overrides), None if keep is None else str(keep)
    if output is not None:
        return in_memory(predict_to(str(network), str(source), str(output), place, settings), Wanted())
    with tempfile.TemporaryDirectory(prefix="ray_ns-") as temporary:
        return in_memory(predict_corpus(str(network), str(source), place or temporary, settings), Wanted())
