"""Names that class folders and the images in them can have on any file system, each once."""

import re
import unicodedata
from collections.abc import Sequence

MAX_BYTES = 200  # of a folder's name, or of the part of a file's name that is the image's own
SUFFIXES = frozenset(("jpg", "jpeg", "png", "webp", "gif", "bmp"))  # that other programs take for an image's
_FORMATS = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"RIFF", "webp"), (b"BM", "bmp"))
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\<>:"|?*]')
_ONLY_DOTS_AND_MARKS = re.compile(r"^[._ ]+$")
# Names that Windows keeps for its devices, whatever the suffix, and that of a folder that readers pass over.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|__macosx)(\..*)?", re.IGNORECASE)


def folders(names: Sequence[str] | None, classes: int) -> list[str]:
    """A folder's name for each class, by number; classes without ``names`` are their numbers, all equally long.

    Other programs sort folders as texts, so numbers keep their order. Names that would be one folder where upper and
    lower case are the same get their number too.
    """
    if names is None:
        width = len(str(classes - 1))
        return [f"{number:0{width}d}" for number in range(classes)]
    found = [safe(name) or f"class {number}" for number, name in enumerate(names)]
    seen: dict[str, int] = {}
    for name in found:
        seen[name.casefold()] = seen.get(name.casefold(), 0) + 1
    taken = {name.casefold() for name in found}
    for number, name in enumerate(found):
        if seen[name.casefold()] > 1:
            own = f"{name}-{number}"
            while own.casefold() in taken:
                own += "_"
            taken.add(own.casefold())
            found[number] = own
    return found


def safe(name: str) -> str:
    """``name`` as a part of a path on any file system, not hidden, of ``MAX_BYTES`` at most. Empty if none is left."""
    text = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).rstrip(". ")
    text = "_" + text[1:] if text.startswith(".") else text
    if _ONLY_DOTS_AND_MARKS.match(text):
        return ""
    text = f"{text}_" if _DEVICES.fullmatch(text) else text
    return text.encode()[:MAX_BYTES].decode(errors="ignore").rstrip(". ")


def file(name: str, image_id: int, begin: bytes) -> str:
    """An image's name in its class folder: its own, made unique by its id. ``begin``: its first bytes.

    Where other programs would not see by its suffix that it is an image, it gets that of its format.
    """
    stem, dot, suffix = name.rpartition(".")
    if not dot or suffix.lower() not in SUFFIXES:
        stem, suffix = name, next((it for magic, it in _FORMATS if begin.startswith(magic)), "jpg")
    return f"{safe(stem) or 'image'}-{image_id}.{suffix}"
