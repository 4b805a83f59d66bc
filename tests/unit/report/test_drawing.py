"""Drawings: the same on both kinds of paper."""

import io
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ray_ns.report.drawing import Drawing


def drawn() -> Drawing:
    drawing = Drawing(60, 40)
    drawing.boxes([(0, 0, 20, 10), (30, 20, 10, 10)], "#ff0000")
    drawing.dots([(50, 10)], 4, "#0000ff")
    drawing.line([(0, 38), (60, 38)], 2, "#00ff00")
    drawing.text((2, 34), "a < b & c", 10)
    return drawing


def test_the_png_has_the_colours_where_they_were_drawn() -> None:
    image = Image.open(io.BytesIO(drawn().png()))
    assert image.size == (60, 40)
    pixels = np.asarray(image.convert("RGB"))
    for (x, y), colour in {
        (0, 0): (255, 0, 0), (19, 9): (255, 0, 0), (20, 9): (255, 255, 255), (35, 25): (255, 0, 0),
        (50, 10): (0, 0, 255), (30, 38): (0, 255, 0), (59, 0): (255, 255, 255),
    }.items():  # fmt: skip
        assert tuple(pixels[y, x]) == colour, (x, y)
    assert (pixels[25:36, 2:40].sum(-1) < 300).any()  # the words


def test_the_svg_is_xml_with_the_same_parts() -> None:
    root = ElementTree.fromstring(drawn().svg())
    kinds = [it.tag.split("}")[1] for it in root]
    assert (root.get("width"), root.get("height")) == ("60", "40")
    assert kinds == ["rect", "path", "path", "polyline", "text"]
    assert root[4].text == "a < b & c"
    assert root[1].get("d") == "M0 0h20v10h-20zM30 20h10v10h-10z"
    assert root[2].get("stroke-width") == "8"
