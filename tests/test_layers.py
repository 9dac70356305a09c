"""The import direction of DESIGN 4, and where Hydra may be."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"

# Top to bottom. A module imports from lower lines, or from its own package.
LAYERS = [
    {"lm.__main__"},
    {"lm.cli"},
    {"lm.commands"},
    {"lm.loading"},
    {"lm.config"},
    {"lm.training"},
    {"lm.inspection"},
    {"lm.evaluation", "lm.sampling", "lm.scoring", "lm.export"},
    {"lm.reproduction", "lm.comparison", "lm.sweeping"},
    {"lm.run_directory"},
    {"lm.checkpoint", "lm.metrics"},
    {"lm.optim", "lm.models", "lm.data"},
    {"lm.runtime"},
    {"lm.checks"},
    {"lm.errors"},
]
RANKS = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
CONFIG = RANKS["lm.config"]


@cache
def modules() -> dict[str, ast.Module]:
    parsed = {}
    for path in sorted((SOURCE / "lm").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        parsed[name] = ast.parse(path.read_text(encoding="utf-8"))
    return parsed


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            if node.module == "lm":
                yield from (f"lm.{alias.name}" for alias in node.names)


def part_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def upward_imports(trees: dict[str, ast.Module]) -> list[str]:
    """`importer → imported` of each import that does not go down."""
    found = []
    for module, tree in trees.items():
        own = part_of(module)
        for target in map(part_of, imported(tree)):
            if target in RANKS and own != target and RANKS[own] >= RANKS[target]:
                found.append(f"{module} → {target}")
    return found


def test_every_module_has_a_layer() -> None:
    assert {part_of(module) for module in modules()} - {"lm"} <= set(RANKS)


def test_imports_go_down() -> None:
    assert upward_imports({n: tree for n, tree in modules().items() if n != "lm"}) == []


def test_an_upward_import_would_be_found() -> None:
    source = "def late():\n    from lm.training.loop import Trainer\n"
    assert upward_imports({"lm.models.lstm": ast.parse(source)}) == ["lm.models.lstm → lm.training"]
    assert upward_imports({"lm.data.store": ast.parse("import lm.models.base")})


def test_importing_lm_imports_nothing_heavy() -> None:
    assert set(imported(modules()["lm"])) == {"importlib", "typing"}


def test_hydra_stays_in_the_configuration_and_the_command_line() -> None:
    below = [
        module
        for module, tree in modules().items()
        if any(name.split(".")[0] in ("hydra", "omegaconf") for name in imported(tree))
        and RANKS[part_of(module)] > CONFIG
    ]
    assert below == []


def test_optuna_stays_in_its_package() -> None:
    users = {
        part_of(module)
        for module, tree in modules().items()
        if any(name.split(".")[0] in ("optuna", "sqlalchemy") for name in imported(tree))
    }
    assert users == {"lm.sweeping"}


def test_hydra_main_has_one_home() -> None:
    users = [
        module
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "hydra.main"
    ]
    assert users == ["lm.cli.launch"]
