"""``ray-ns verify``: is everything as it was written."""

from ray_ns import printed
from ray_ns.cli.program import AsJson, RunDirectory, app
from ray_ns.errors import IntegrityError


@app.command()
def verify(run: RunDirectory, as_json: AsJson = False) -> None:
    """Re-hash everything that the run's commits name. Exit 0: all as written; 4: something is not."""
    from ray_ns.store.fork import open_run
    from ray_ns.store.verify import verify as verified

    checked, faults = 0, {}
    for key, fault in verified(open_run(run)):
        checked += 1
        if fault is not None:
            faults[key] = fault
    if as_json:
        printed.give({"checked": checked, "faults": faults})
    for key in list(faults)[:20]:
        printed.tell(f"damaged: {key}", "damaged")
    if faults:
        raise IntegrityError(
            f"{len(faults)} of {checked} objects are not as they were written: {next(iter(faults.values()))}"
        )
    if not as_json:
        printed.say(f"{checked} objects checked, all as they were written")
