"""Tables at every width: whole words, every figure, and nothing beyond the terminal's edge."""

import re

import pytest
from rich.cells import cell_len

from ray_ns.report.terminal import columns
from ray_ns.report.terminal.run import TITLES
from ray_ns.report.terminal.selection import COLUMNS

ROUNDS = [
    ["0: teacher", "tf_efficientnet_b7.ns_jft_in1k", columns.count(66_347_960), "-", "-", "86.9", "85.1", "864,000"],
    ["10: student *", "tf_efficientnet_l2.ns_jft_in1k_475", columns.count(480_309_308), columns.count(130_000_000)],
    ["control: labels only", "vit_large_patch14_clip_336.laion2b", columns.count(304_530_408), "-"],
]
ROUNDS[1] += [columns.count(999_999), "100.0", "88.4", columns.count(12_345_678)]
ROUNDS[2] += ["-", "100.0", "100.0", "604,800"]
SHARK = "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias"
CLASSES = [
    [SHARK, *(columns.count(number) for number in (1_300_000, 999_999, 130_000, 130_000)), *["0.998"] * 4],
    ["\u5199\u771f \u732b", "0", "0", "0", "0", "-", "-", "-", "-"],
]
CLASS_TITLES = ["class", *(title for title in COLUMNS if title != "limit"), "q10", "q50", "q90"]
SIZES = [["heights", *[f"{123_456:,}"] * 5]]
TABLES = {
    "rounds": (TITLES, ROUNDS, 2),
    "classes": (CLASS_TITLES, CLASSES, 1),
    "sizes": (("", "least", "5 %", "median", "95 %", "most"), SIZES, 1),
}


def printed(width: int, table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    columns.show(*TABLES[table])
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 100, 120, 300])
def test_a_table_fits_and_chops_no_word(
    width: int, table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(width, table, monkeypatch, capsys)
    assert max(map(cell_len, lines)) <= width
    text = " ".join(lines)
    for row in TABLES[table][1]:
        for cell in row:
            for word in re.findall(r"[^ _./-]+[_./-]?", cell):
                assert word in text


@pytest.mark.parametrize("table", TABLES)
def test_eighty_columns_hold_a_table_and_no_paragraphs(
    table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(80, table, monkeypatch, capsys)
    assert any(set(line) == {columns.RULE} for line in lines)
    assert not any(": " in line and line.startswith("  ") for line in lines)


def test_a_row_that_fits_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    columns.show(("a", "b\nc"), [["one", "1"], ["\u732b", "12"]])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "      b",
        "a     c",
        columns.RULE * 7,
        "one   1",
        "\u732b   12",
    ]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        *((0, "0"), (999_999, "999,999"), (1_000_000, "1.00 M"), (9_999_999, "10.00 M"), (25_557_032, "25.6 M")),
        *((480_309_308, "480 M"), (130_000_000, "130 M"), (1_234_567_890, "1.23 G"), (10**12, "1.00 T")),
    ],
)
def test_a_count_has_at_most_seven_characters(number: int, said: str) -> None:
    assert columns.count(number) == said
    assert len(said) <= 7
