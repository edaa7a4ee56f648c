"""Imports only go down, and rooms on one floor do not import each other, except for plain data."""

import ast
from pathlib import Path

import pytest

import secateur

SOURCE = Path(secateur.__file__).parent

HOUSE = (  # from the ground up; a room imports only from rows above it here
    {"errors"},
    {"records"},
    {"graph", "cost", "metrics", "nets", "data", "roles"},
    {"prune", "train", "deploy", "report"},
    {"store", "tasks"},
    {"recipes"},
    {"opening"},
    {"rounds", "without_data", "health"},
    {"sparsify", "session"},
    {"measures"},
    {"pipeline", "inspection"},
    {"sweeps"},
    {"cli"},
)
FLOORS = {room: floor for floor, rooms in enumerate(HOUSE) for room in rooms}

PLAIN_DATA = {"secateur.graph.records", "secateur.prune.plan"}


def imports(path, source):
    """Every module that the file at ``path`` imports from the package, wherever in the file, TYPE_CHECKING included."""
    package = ["secateur", *path.relative_to(source).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "secateur")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module.split(".")[0] == "secateur":
                # a name may be a module itself: from secateur.graph import records
                below = source.joinpath(*module.split(".")[1:])
                for alias in node.names:
                    is_module = (below / alias.name).is_dir() or (below / f"{alias.name}.py").is_file()
                    yield f"{module}.{alias.name}" if is_module else module


def room(module):
    """The room of a module: the first name below the package; the package itself is the front door."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "secateur"


def wrong_arrows(source):
    """Every import that goes up, sideways or through the front door, as text."""
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        if parts == ("__init__",):
            continue  # re-exports the public names
        own = parts[0]
        for module in imports(path, source):
            other = room(module)
            up = FLOORS.get(other, len(HOUSE)) - FLOORS.get(own, -1)
            if other != own and (up > 0 or (up == 0 and module not in PLAIN_DATA)):
                yield f"{'/'.join(parts)} -> {module}"


def test_every_room_has_a_floor():
    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__"} <= FLOORS.keys()


def test_imports_go_down():
    assert list(wrong_arrows(SOURCE)) == []


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("graph/trace.py", "from secateur.prune.plan import PruningPlan", True),
        ("graph/trace.py", "import secateur.cli", True),
        ("graph/trace.py", "from secateur.cost.macs import graph_macs", True),
        ("graph/trace.py", "from secateur import trace", True),
        ("graph/rules/add.py", "from ...prune import allocate", True),
        ("train/loop.py", "def f():\n    from secateur.prune import surgery", True),
        ("train/loop.py", "if TYPE_CHECKING:\n    from secateur.prune.surgery import remove", True),
        ("errors.py", "from secateur.graph.records import Kept", True),
        ("pipeline.py", "from secateur import cli", True),
        ("cost/macs.py", "from secateur.graph.records import ChannelGraph", False),
        ("cost/macs.py", "from secateur.graph import records", False),
        ("cost/macs.py", "from secateur.graph import trace", True),
        ("deploy/onnx.py", "from secateur.graph.copying import safe_copy", False),
        ("graph/rules/add.py", "from ..labels import Channels", False),
        ("report/runs/page.py", "from secateur.prune.plan import PruningPlan", False),
        ("records.py", "from secateur.errors import RecordError", False),
        ("cli/prune.py", "from secateur.pipeline import prune", False),
        ("__init__.py", "from secateur.prune.surgery import remove", False),
    ],
)
def test_a_planted_import_is_judged(tmp_path, file, line, wrong):
    for name in ("graph/records.py", "graph/trace.py", "prune/surgery.py", "prune/allocate.py", "cli.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert len(list(wrong_arrows(tmp_path))) == wrong


def test_importing_is_quick():
    """No module imports a heavy library at its top."""
    heavy = {"monai", "onnx", "onnxruntime", "openvino", "plotly", "accelerate"}
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.name}: {name}" for name in names if name.split(".")[0] in heavy]
    assert found == []
