"""Tables as wide as the terminal; 80 columns without one."""

import re
import shutil
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from ray_ns.printed import plain, say

GAP = "  "
RULE = "\u2500"
_PIECE = re.compile(r"[^ _./-]*[ _./-]?")  # a long name is broken after one of these, never within a word


def show(titles: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> None:
    """Print a table. The first ``names`` columns are aligned to the left, and wrapped where they are too wide.

    A title may have several lines. On a terminal that is too narrow even so, each row is printed as a paragraph.
    """
    heads = [list(map(plain, title.split("\n"))) for title in titles]
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, [*head, *(row[at] for row in cells)])) for at, head in enumerate(heads)]
    room = shutil.get_terminal_size().columns - sum(widths[names:]) - len(GAP) * (len(widths) - 1)
    least = [
        max(map(cell_len, [*head, *(piece.rstrip() for row in cells for piece in _PIECE.findall(row[at]))]))
        for at, head in enumerate(heads[:names])
    ]
    if room < sum(least):
        _paragraphs(titles, cells)
        return
    while sum(widths[:names]) > room:
        widest = max(range(names), key=lambda at: widths[at] - least[at])
        widths[widest] -= 1
    height = max(map(len, heads))
    head = [["" for _ in range(height - len(words))] + words for words in heads]
    say("")
    for line in _lines(head, widths, names):
        say(line)
    say(RULE * (sum(widths) + len(GAP) * (len(widths) - 1)))
    for row in cells:
        for line in _lines([*map(folded, row[:names], widths), *([cell] for cell in row[names:])], widths, names):
            say(line)


def folded(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` cells, broken after spaces and marks; a longer word has its own line."""
    lines = [""]
    for piece in _PIECE.findall(text):
        if lines[-1] and cell_len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _lines(cells: Sequence[Sequence[str]], widths: Sequence[int], names: int) -> Iterator[str]:
    """A row's lines; ``cells``: the lines of each cell."""
    for number in range(max(map(len, cells))):
        words = [cell[number] if number < len(cell) else "" for cell in cells]
        blanks = [" " * (width - cell_len(word)) for word, width in zip(words, widths, strict=True)]
        pairs = zip(words, blanks, strict=True)
        yield GAP.join(word + blank if at < names else blank + word for at, (word, blank) in enumerate(pairs)).rstrip()


def _paragraphs(titles: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    width = shutil.get_terminal_size().columns
    for row in cells:
        say("")
        for at, (title, cell) in enumerate(zip(titles, row, strict=True)):
            indent = GAP if at else ""
            words = f"{' '.join(title.split())}: {cell}" if at else cell
            for line in folded(words, width - len(indent)):
                say(indent + line)


def count(number: int) -> str:
    """A count in at most seven characters: ``999,999``, ``1.23 M``, ``480 M``, ``1.20 G``."""
    if number < 1_000_000:
        return f"{number:,}"
    scale, letter = next(it for it in ((10**12, "T"), (10**9, "G"), (10**6, "M")) if number >= it[0])
    value = number / scale
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {letter}"


def percent(share: float | None) -> str:
    """A share, 0..1, as ``83.4``; ``-`` for one that is not measured."""
    return "-" if share is None else f"{100 * share:.1f}"
