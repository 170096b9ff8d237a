"""Contract under test: the architecture page names every room, in the order that imports go."""

from __future__ import annotations

import tomllib

from pages import DOCS, ROOT, table_rows, text_of

PAGE = text_of(DOCS / "architecture.md")
ROOMS = [row[0].strip("`") for row in table_rows(PAGE, "| room |")]
SOURCE = ROOT / "src" / "layercast"
# No rooms: what Python or packaging asks for.
PLUMBING = {"__init__", "__main__", "version"}


def test_rooms_are_those_of_the_package():
    folders = {file.parent.name for file in SOURCE.glob("*/__init__.py")}
    modules = {file.stem for file in SOURCE.glob("*.py")}
    assert set(ROOMS) == (folders | modules) - PLUMBING


def test_rooms_come_in_the_order_of_the_layers():
    settings = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    assert [f"layercast.{room}" for room in ROOMS] == contract["layers"]


def test_backends_and_integrations_named_are_those_there_are():
    for room in ("kernels", "integrations"):
        (row,) = (row for row in table_rows(PAGE, "| room |") if row[0] == f"`{room}`")
        there = {file.parent.name for file in (SOURCE / room).glob("*/__init__.py")}
        assert there == {name for name in there if f"`{name}`" in row[1]}
        assert there


def test_picture_names_every_room():
    picture = text_of(DOCS / "images" / "architecture.svg")
    assert [room for room in ROOMS if room not in picture] == []
