"""The house keeps its shape: imports point down the layers, no shell, libvirt stays in host/."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "virtsnap"

# A room may import from rooms of a lower number, and from itself.
LAYERS = {
    "errors": 0,
    "command_line": 1, "domain_xml": 1, "host": 1,
    "convert": 2, "snapshots": 2, "verify": 2,
    "cli": 3, "runners": 3, "bench": 3,
}
# Rooms of one number do not know each other, but for these: XML is read where
# it is fetched, verify and snapshots work on what convert gives, and cli is bench's door.
ALLOWED = {("host", "domain_xml"), ("verify", "convert"), ("cli", "bench")}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "virtsnap" and len(parts) > 1 and parts[1] in LAYERS else None


def ids(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_imports_point_down_the_layers(file: Path) -> None:
    here = room_of("virtsnap." + file.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."))
    if here is None:
        return  # the package's own door
    for module in imports_of(file):
        there = room_of(module)
        if there is None or there == here or (here, there) in ALLOWED:
            continue
        assert LAYERS[there] < LAYERS[here], f"{here} imports {module}"


def test_every_room_has_a_layer() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= LAYERS.keys()


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_only_the_host_room_talks_to_libvirt_and_starts_programs(file: Path) -> None:
    outside = {"libvirt", "libvirt_qemu", "subprocess", "qemu"}
    found = {module.split(".")[0] for module in imports_of(file)} & outside
    if found:
        assert room_of("virtsnap." + file.relative_to(PACKAGE).as_posix().replace("/", ".")) == "host", found


@pytest.mark.parametrize("file", sorted(ROOT.joinpath("tests").rglob("*.py")) + MODULES, ids=ids)
def test_nothing_runs_through_a_shell(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            assert isinstance(node.value, ast.Constant), f"line {node.value.lineno}"
            assert node.value.value is False, f"line {node.value.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in {"system", "popen"}:
            assert not (isinstance(node.value, ast.Name) and node.value.id == "os"), f"line {node.lineno}"


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_module_opens_by_saying_what_it_is(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text())), "no opening docstring"


def test_version_stands_in_one_value() -> None:
    from virtsnap import __version__

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__


def test_modules_import_each_other_in_no_circle() -> None:
    # a package's own door gathers what is inside, and is no module of its own
    files = [file for file in MODULES if file.name != "__init__.py"]
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files}
    known = set(names.values())
    waiting = {name: known.intersection(imports_of(file)) - {name} for file, name in names.items()}
    while free := {name for name, needs in waiting.items() if not needs}:
        waiting = {name: needs - free for name, needs in waiting.items() if name not in free}
    assert not waiting, f"a circle among {', '.join(sorted(waiting))}"
