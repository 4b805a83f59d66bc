"""``ray-ns status``: where a run stands."""

from ray_ns import printed
from ray_ns.cli.program import AsJson, RunDirectory, app


@app.command()
def status(run: RunDirectory, as_json: AsJson = False) -> None:
    """Say where a run stands. Which stage, how far, how fast, and how long it will take."""
    from ray_ns.engine import ingest, stages
    from ray_ns.report.terminal import status as report
    from ray_ns.store.status import read_status

    found = read_status(run, [*(it.name for it in ingest.STAGES), *stages.names()])
    if as_json:
        printed.give(found)
    else:
        report.show(found)
