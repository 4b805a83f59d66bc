"""Names of class folders and of the images in them, whatever classes and files are called."""

import pytest

from ray_ns.export import class_folders

HOSTILE = [
    *(
        "cat",
        "a/b",
        "..",
        ".hidden",
        "",
        "   ",
        "new\nline",
        "Cat",
        "CON",
        "con.png",
        "x" * 300,
        "é" * 150,
        "trailing. ",
    ),
    *('<>:"|?*', "🐱", "__MACOSX", "ok-1"),
]


def test_every_class_has_a_folder_of_its_own_on_any_file_system() -> None:
    found = class_folders.folders(HOSTILE, len(HOSTILE))
    assert found[0] == "cat-0"
    assert found[HOSTILE.index("🐱")] == "🐱"
    assert len({it.casefold() for it in found}) == len(HOSTILE), "where upper and lower case are the same"
    for name in found:
        assert 0 < len(name.encode()) <= 255
        assert not set(name) & set('/\\<>:"|?*\n\0')
        assert name[0] not in ". "
        assert name[-1] not in ". "
        assert name.lower() not in {"con", "__macosx"}


def test_folders_of_classes_without_names_sort_as_their_numbers() -> None:
    found = class_folders.folders(None, 12)
    assert found[:2] == ["00", "01"]
    assert found == sorted(found)
    assert class_folders.folders(None, 10) == list("0123456789")


@pytest.mark.parametrize(
    ("name", "begin", "wanted"),
    [
        ("a.jpg", b"", "a-7.jpg"),
        ("a.b.PNG", b"", "a.b-7.PNG"),
        ("photo.jpg?w=1200", b"\x89PNG\r\n", "photo.jpg_w=1200-7.png"),
        ("noext", b"\xff\xd8\xff\xe0", "noext-7.jpg"),
        ("x.jfif", b"\xff\xd8\xff\xe0", "x.jfif-7.jpg"),
        (".png", b"\x89PNG", "image-7.png"),
        ("", b"GIF89a", "image-7.gif"),
        ("w" * 251 + ".png", b"", "w" * 200 + "-7.png"),
        ("line\nend.webp", b"", "line_end-7.webp"),
    ],
)
def test_an_image_keeps_its_name_with_its_id_and_the_suffix_of_an_image(name: str, begin: bytes, wanted: str) -> None:
    assert class_folders.file(name, 7, begin) == wanted
