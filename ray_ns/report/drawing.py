"""Small drawings, the same as SVG and as PNG, without a plotting library. Lengths are in pixels, y goes down."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, width, height
FINER = 2  # the PNG is drawn so much larger, then made smaller: edges without steps
INK, PALE = "#222222", "#888888"


@dataclass(frozen=True)
class _Boxes:
    boxes: Sequence[Box]
    colour: str

    def svg(self) -> str:
        path = "".join(f"M{_n(x)} {_n(y)}h{_n(w)}v{_n(h)}h{_n(-w)}z" for x, y, w, h in self.boxes)
        return f'<path d="{path}" fill="{self.colour}"/>'

    def paint(self, brush: ImageDraw.ImageDraw) -> None:
        for x, y, w, h in self.boxes:
            left, top, right, bottom = (round(it * FINER) for it in (x, y, x + w, y + h))
            brush.rectangle((left, top, right - 1, bottom - 1), fill=self.colour)


@dataclass(frozen=True)
class _Dots:
    points: Sequence[Point]
    radius: float
    colour: str

    def svg(self) -> str:
        path = "".join(f"M{_n(x)} {_n(y)}h0" for x, y in self.points)
        return f'<path d="{path}" stroke="{self.colour}" stroke-width="{_n(2 * self.radius)}" stroke-linecap="round"/>'

    def paint(self, brush: ImageDraw.ImageDraw) -> None:
        for x, y in self.points:
            brush.circle((x * FINER, y * FINER), self.radius * FINER, fill=self.colour)


@dataclass(frozen=True)
class _Line:
    points: Sequence[Point]
    width: float
    colour: str

    def svg(self) -> str:
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in self.points)
        return f'<polyline points="{path}" fill="none" stroke="{self.colour}" stroke-width="{_n(self.width)}"/>'

    def paint(self, brush: ImageDraw.ImageDraw) -> None:
        points = [(x * FINER, y * FINER) for x, y in self.points]
        brush.line(points, fill=self.colour, width=round(self.width * FINER), joint="curve")


@dataclass(frozen=True)
class _Text:
    at: Point
    words: str
    size: float
    colour: str
    to_left: bool

    def svg(self) -> str:
        x, y = self.at
        anchor = ' text-anchor="end"' if self.to_left else ""
        return (
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(self.size)}" fill="{self.colour}"{anchor}>'
            f"{escape(self.words)}</text>"
        )

    def paint(self, brush: ImageDraw.ImageDraw) -> None:
        x, y = self.at
        font = ImageFont.load_default(self.size * FINER)
        brush.text((x * FINER, y * FINER), self.words, self.colour, font, "rs" if self.to_left else "ls")


@dataclass
class Drawing:
    """What is drawn lies over what was drawn before, on white."""

    width: int
    height: int
    _parts: list[_Boxes | _Dots | _Line | _Text] = field(default_factory=list)

    def boxes(self, boxes: Sequence[Box], colour: str) -> None:
        self._parts.append(_Boxes(boxes, colour))

    def dots(self, points: Sequence[Point], radius: float, colour: str) -> None:
        self._parts.append(_Dots(points, radius, colour))

    def line(self, points: Sequence[Point], width: float = 1, colour: str = INK) -> None:
        self._parts.append(_Line(points, width, colour))

    def text(self, at: Point, words: str, size: float = 12, colour: str = INK, to_left: bool = False) -> None:
        """``at``: where the line's foot begins; where it ends, if ``to_left``."""
        self._parts.append(_Text(at, words, size, colour, to_left))

    def svg(self) -> str:
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">',
            f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>',
            *(it.svg() for it in self._parts),
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def png(self) -> bytes:
        image = Image.new("RGB", (self.width * FINER, self.height * FINER), "#ffffff")
        brush = ImageDraw.Draw(image)
        for part in self._parts:
            part.paint(brush)
        written = io.BytesIO()
        image.resize((self.width, self.height), Image.Resampling.BOX).save(written, "PNG")
        return written.getvalue()


def _n(number: float) -> str:
    """A number with at most one decimal."""
    return f"{number:.1f}".removesuffix(".0")
