"""Every file is listed once, whatever links lead where; hidden ones never are."""

import os
from pathlib import Path

import pytest

from ray_ns.corpora.formats.listing import Listing, listing
from ray_ns.corpora.formats.place import Place
from ray_ns.errors import InputError


def listed(root: Path, *names: str, links: dict[str, str] | None = None) -> Listing:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    for name, target in (links or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    return listing(Place.of(str(root)))


@pytest.mark.parametrize(
    ("links", "files", "followed", "repeats", "broken"),
    [
        ({}, ["a/1", "b/2"], [], [], []),
        ({"a/up": ".."}, ["a/1", "b/2"], [], ["a/up"], []),
        ({"a/self": "."}, ["a/1", "b/2"], [], ["a/self"], []),
        ({"c": "a"}, ["a/1", "b/2"], [], ["c"], []),
        ({"c": "a/1"}, ["a/1", "b/2"], [], ["c"], []),
        ({"x": "y", "y": "x"}, ["a/1", "b/2"], [], [], ["x", "y"]),
        ({"gone": "nowhere"}, ["a/1", "b/2"], [], [], ["gone"]),
        ({"c": "../out"}, ["a/1", "b/2", "c/3", "c/4/5"], ["c"], [], []),
        ({"c": "../out", "d": "../out"}, ["a/1", "b/2", "c/3", "c/4/5"], ["c"], ["d"], []),
        ({"c": "../out", "d": "../out/4"}, ["a/1", "b/2", "c/3", "c/4/5"], ["c"], ["d"], []),
        ({"c": "../out/3", "d": "../out/3"}, ["a/1", "b/2", "c"], ["c"], ["d"], []),
        ({"c": "../out/3", "d": "../out"}, ["a/1", "b/2", "c", "d/3", "d/4/5"], ["c", "d"], [], []),
        ({"c": "../whole"}, ["a/1", "b/2"], ["c"], ["c/back"], []),
    ],
)
def test_links_are_followed_once(
    tmp_path: Path, links: dict[str, str], files: list[str], followed: list[str], repeats: list[str], broken: list[str]
) -> None:
    listed(tmp_path / "out", "3", "4/5")
    listed(tmp_path / "whole", links={"back": "../root"})
    found = listed(tmp_path / "root", "a/1", "b/2", links=links)
    assert list(found.files) == files
    assert (found.links, found.repeats, found.broken) == (followed, repeats, broken)


def test_a_file_behind_a_link_is_known_by_what_it_is(tmp_path: Path) -> None:
    found = listed(tmp_path / "root", links={"1": "../1"}) if (tmp_path / "1").write_text("abc") else None
    assert found is not None
    state = (tmp_path / "1").stat()
    assert vars(found.files["1"]) == {"size": 3, "stamp": state.st_mtime_ns}


def test_hidden_files_and_folders_are_not_listed(tmp_path: Path) -> None:
    found = listed(tmp_path, "a/1.jpg", ".git/x.jpg", "a/._1.jpg", "__MACOSX/a/1.jpg", ".DS_Store", links={".l": "a"})
    assert list(found.files) == ["a/1.jpg"]
    assert found.folders == {"a"}
    assert not found.repeats


def test_folders_are_listed_empty_ones_too(tmp_path: Path) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    assert listed(tmp_path, "a/1").folders == {"a", "b", "b/c"}


def test_a_folder_that_the_system_refuses_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputError, match=r"secret: cannot be listed \(Permission denied\)"):
        listed(tmp_path, "a/1", "secret/2")


def test_many_links_take_no_square_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Sets of links to a store of images are common; each link costs a few looks, however many there are.
    (tmp_path / "out").mkdir()
    for number in range(300):
        (tmp_path / f"out/{number}").write_text("x")
    looks = 0
    stat = Path.stat

    def counting(path: Path, **settings: bool) -> os.stat_result:
        nonlocal looks
        looks += 1
        return stat(path, **settings)

    monkeypatch.setattr(Path, "stat", counting)
    found = listed(tmp_path / "root", links={f"{number}.jpg": f"../out/{number}" for number in range(300)})
    assert len(found.files) == len(found.links) == 300
    assert looks < 4 * 300
