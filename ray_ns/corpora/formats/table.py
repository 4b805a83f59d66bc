"""Labels of image files in a CSV beside them: ``labels.csv``, ``metadata.csv``, ...

A CSV is used if its first line names a column of files and one of labels. Hugging Face's ``metadata.csv`` has
``file_name``; Kaggle's ``train.csv`` has an ``id`` without a suffix; Excel in Europe separates with ``;``.
"""

import csv
import io
import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ray_ns.corpora.formats.place import Place
from ray_ns.errors import InputError

SUFFIXES = (".csv", ".tsv")
CALLED = ("labels", "metadata")  # tables that are used even if the images lie in class folders
IMAGE, LABEL = "image", "label"  # the settings' defaults: any of the usual names will do
FILES = ("file", "file_name", "filename", "image", "image_id", "img", "id", "path", "image_path", "filepath")
LABELS = ("label", "labels", "class", "class_name", "category", "target")
DELIMITERS = ",;\t|"
LABEL_DIGITS = 9


@dataclass(frozen=True)
class Table:
    """A CSV that has labels: its path, the columns of files and of labels, and (line, file, label) of its rows."""

    path: str
    file: str
    label: str
    rows: tuple[tuple[int, str, str], ...]


def find(
    place: Place, files: Iterable[str], images: Sequence[str], image_column: str, label_column: str
) -> Table | None:
    """The table that holds the labels of ``images``; None if their folders are the classes.

    Raises ``InputError`` if no table has the columns that are asked for, or several have.
    """
    paths = sorted(path for path in files if "/" not in path and path.lower().endswith(SUFFIXES))
    in_classes = all("/" in path for path in images) and len({path.split("/")[0] for path in images}) > 1
    if in_classes:
        paths = [path for path in paths if path.rpartition(".")[0].lower() in CALLED]
    found: list[Table] = []
    headers = []
    for path in paths:
        columns, rows = _read(place, path)
        file = _column(columns, image_column, IMAGE, FILES)
        label = _column(columns, label_column, LABEL, LABELS)
        if file is None or label is None or file == label:
            headers.append(f"{place.name(path)}: found the columns {', '.join(columns) or 'none'}")
            continue
        at = columns.index(file), columns.index(label)
        cells = ((line, [row[it].strip() if it < len(row) else "" for it in at]) for line, row in rows)
        found.append(Table(path, file, label, tuple((line, name, text) for line, (name, text) in cells)))
    if len(found) > 1:
        called = [it for it in found if it.path.rpartition(".")[0].lower() == CALLED[0]]
        if len(called) != 1:
            raise InputError(
                f"{place.root}: {', '.join(it.path for it in found)} each have a column of files and one of labels. "
                f"Keep one of them there, or call it labels.csv."
            )
        found = called
    if not found and headers and not in_classes:
        raise InputError(
            f"{headers[0]}; expected one of files ({', '.join(FILES[:3])}, ...) and one of labels "
            f"({', '.join(LABELS[:3])}, ...) in its first line. Name them (data.image_column, data.label_column), or "
            f"write that line where it is missing."
        )
    return found[0] if found else None


def labels_of(place: Place, table: Table, files: Iterable[str]) -> dict[str, str]:
    """The label of every file that the table lists: numbers, or names.

    Raises ``InputError`` with the line if a file is missing, ambiguous or listed twice, or a label is no class.
    """
    where = place.name(table.path)
    index = _Index(files, place.base.rpartition("/")[2])
    labels: dict[str, str] = {}
    for line, name, label in table.rows:
        path = index.find(name, f"{where} line {line}", place.root)
        label = unicodedata.normalize("NFC", label)
        if path in labels:
            raise InputError(
                f"{where} line {line}: {path} is listed twice, as {labels[path]!r} and as {label!r}. Keep one line."
            )
        if not label.isprintable() or not label or (label.isdecimal() and len(label) > LABEL_DIGITS):
            raise InputError(f"{where} line {line}: the label of {path} is {label!r}; expected a class")
        labels[path] = label
    named = next((label for label in labels.values() if not label.isdecimal()), None)
    numbered = next((label for label in labels.values() if label.isdecimal()), None)
    if named is not None and numbered is not None:
        raise InputError(
            f"{where}: some labels are numbers ({numbered}), some are names ({named}); expected one or other"
        )
    if not labels:
        raise InputError(f"{where}: lists no file")
    return labels


class _Index:
    """Files by the names that a table may use: the path, with or without its suffix, in one Unicode form."""

    def __init__(self, files: Iterable[str], folder: str) -> None:
        self._folder = folder  # the root's own name: paths in a table made above it begin with it
        self._exact: dict[str, str] = {}
        self._stems: dict[str, list[str]] = {}
        self._names: dict[str, list[str]] = {}  # file names without folders, with and without suffix
        for file in files:
            path = unicodedata.normalize("NFC", file)
            name = posixpath.basename(path)
            self._exact[path] = file
            self._stems.setdefault(posixpath.splitext(path)[0], []).append(file)
            for key in {name, posixpath.splitext(name)[0]}:
                self._names.setdefault(key, []).append(file)

    def find(self, name: str, where: str, root: str) -> str:
        """The file that ``name`` means. ``InputError`` if there is none, or several."""
        path = unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")
        parts = path.split("/")
        found: list[str] = []
        # First the whole path, then without its first folders. The file name alone counts after the root's name only.
        for begin in range(len(parts) if path and ".." not in parts else 0):
            rest = "/".join(parts[begin:])
            if begin and len(parts) - begin == 1 and parts[begin - 1] != self._folder:
                break
            found = [self._exact[rest]] if rest in self._exact else self._stems.get(rest, [])
            if found:
                break
        if not found and len(parts) == 1:
            found = self._names.get(path, [])  # in any folder
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{where}: {name!r} may be {', '.join(sorted(found)[:3])}. Give the whole path, with suffix."
            )
        raise InputError(f"{where}: no file {name!r} below {root}")


def _column(columns: Sequence[str], asked: str, default: str, usual: Sequence[str]) -> str | None:
    """The column to use: the one asked for, or the first usual name if that is only the default."""
    lower = {column.lower(): column for column in reversed(columns)}
    wanted = usual if asked == default else (asked.lower(),)
    return next((lower[name] for name in wanted if name in lower), None)


def _read(place: Place, path: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The columns of a CSV, and (line, cells) of its rows that are not blank."""
    name = place.name(path)
    try:
        with place.open(path) as file:
            data: bytes = file.read()
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16" if wide else "utf-8-sig")
        told, _, rest = text.partition("\n")
        if told.lower().startswith("sep="):  # Excel's first line
            delimiter, text, skipped = told[4:5], rest, 1
        else:
            delimiter, skipped = max(DELIMITERS, key=told.count), 0
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or ",", strict=True)
        rows = [(reader.line_num + skipped, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeError as error:
        raise InputError(
            f"{name}: cannot be read as CSV ({error}). It is neither UTF-8 nor UTF-16: save it as CSV UTF-8."
        ) from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{name}: cannot be read as CSV ({error}).") from error
    return ([cell.strip() for cell in rows[0][1]], rows[1:]) if rows else ([], [])
