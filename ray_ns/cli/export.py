"""``ray-ns export``: a network as ONNX and torch.export."""

from pathlib import Path
from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command()
def export(
    network: Annotated[
        str,
        typer.Argument(
            help="A run that has ended; a folder like RUN/best; or a name of timm's.", metavar="RUN|NETWORK"
        ),
    ],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx.")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="Write model.pt2 (torch.export).")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where; default: beside the network.", metavar="FOLDER")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a network as ONNX or torch.export. Each is compared with torch first."""
    from ray_ns.errors import InputError
    from ray_ns.export.graphs import FILES, Kind, check, graphs
    from ray_ns.export.network import folder_for, given, write

    kinds: list[Kind] = [*(("onnx",) if onnx else ()), *(("torch",) if torch else ())]
    if not kinds:
        raise InputError("export: into which form? Give --onnx, --torch or both.")
    check(kinds)
    found = given(network)
    folder = folder_for(found, output)
    for graph in graphs(found, kinds):
        path = write(folder, FILES[graph.kind], graph.file)
        if as_json:
            printed.give({"file": str(path), "difference": graph.difference, "images": graph.images})
        else:
            printed.say(f"{path}: {graph.in_words()}")
