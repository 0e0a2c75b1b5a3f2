"""The arrows of docs/architecture.md are those in the code: which part imports which, one way."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
LIBRARY = "paligemma_lib"

Graph = Mapping[str, set[str]]


def code_of(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees, functions' own imports among them."""
    for node in ast.iter_child_nodes(tree):
        yield node
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        yield from () if is_for_types else code_of(node)


def modules_in(source: str) -> Iterator[str]:
    """Dotted names of what a file imports, and what it takes from `import paligemma_lib as pg`."""
    for node in code_of(ast.parse(source)):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(str(module), names, 0):
                yield from (f"{module}.{name.name}" for name in names)
            case ast.Attribute(ast.Name("pg"), attribute):
                yield f"{LIBRARY}.{attribute}"


def part_of(module: str) -> str | None:
    """The box a module belongs to."""
    first, _, rest = module.partition(".")
    if first == LIBRARY:
        name = rest.partition(".")[0]
        return {"load": "captioner", "Captioner": "captioner", "__version__": None}.get(name, name)
    own = {path.stem for path in (ROOT / "examples").iterdir()}
    return {"flickr8k_tfds": "flickr8k_tfds"}.get(first, "examples" if first in own else None)


def in_code() -> Graph:
    """Part -> the parts that it imports."""
    graph: dict[str, set[str]] = {}
    for top in (LIBRARY, "flickr8k_tfds", "examples"):
        for path in (ROOT / top).rglob("*.py"):
            if path.parent == ROOT / LIBRARY and path.stem.startswith("__"):
                continue  # the front door, and the command
            inner = path.relative_to(ROOT / top).parts[0].removesuffix(".py")
            part = inner if top == LIBRARY else top
            found = set(map(part_of, modules_in(path.read_text("utf-8")))) - {None, "", part}
            graph.setdefault(part, set()).update(found)
    return graph


def files() -> dict[str, Path]:
    """Modules of the library and of the data set, by dotted name."""
    found = {}
    for top in (LIBRARY, "flickr8k_tfds"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def modules() -> Graph:
    """Module -> what Python runs to import it: modules of ours, and the packages of others."""
    known = files()
    homes = {}  # what packages take from their modules when it is touched
    for name, path in known.items():
        stub = path.with_suffix(".pyi")
        text = stub.read_text("utf-8") if stub.is_file() else ""
        for home, touched in re.findall(r"^from \.(\w+) import (\w+)", text, re.M):
            homes[f"{name}.{touched}"] = f"{name}.{home}"
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        graph[name] = set()
        for dotted in modules_in(path.read_text("utf-8")):
            dotted = homes.get(dotted, dotted)
            while dotted not in known and "." in dotted:
                dotted = dotted.rpartition(".")[0]
            graph[name].add(dotted)
            while (dotted := dotted.rpartition(".")[0]) in known:
                graph[name].add(dotted)
    others = {each for found in graph.values() for each in found} - graph.keys()
    return graph | {other: set() for other in others}


def reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def without_shortcuts(graph: Graph) -> Graph:
    """Without an arrow where a longer way leads to the same part."""
    beyond = {part: reachable(graph, part) for part in graph}
    return {
        part: {t for t in targets if not any(t in beyond[other] for other in targets - {t})}
        for part, targets in graph.items()
    }


def drawn() -> Graph:
    """Part -> where its arrows point on the page."""
    (image,) = re.findall(r"```mermaid\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    graph: dict[str, set[str]] = {}
    for line in image.splitlines():
        if " --> " in line:
            part, targets = line.split(" --> ")
            graph[part.strip()] = set(targets.strip().split(" & "))
    return graph


@pytest.fixture(scope="module")
def graph() -> Graph:
    return in_code()


def test_no_part_imports_itself_by_way_of_others(graph):
    assert [part for part in graph if part in reachable(graph, part)] == []


def test_nothing_imports_the_examples_and_the_data_set_stands_alone(graph):
    assert not any("examples" in targets for targets in graph.values())
    assert graph["flickr8k_tfds"] == set()


def test_the_page_draws_the_arrows_of_the_code(graph):
    expected = {part: found for part, found in without_shortcuts(graph).items() if found}
    lines = [f"  {part} --> {' & '.join(sorted(expected[part]))}" for part in sorted(expected)]
    assert drawn() == expected, "the image should say\n" + "\n".join(lines)


@pytest.mark.parametrize("colour, other", [("arrays", "tensorflow"), ("images", "jax")])
def test_colours_keep_the_two_sides_apart(colour, other):
    (listed,) = re.findall(rf"class ([\w,]+) {colour}$", PAGE.read_text("utf-8"), re.MULTILINE)
    graph = modules()
    for module in graph:
        if part_of(module) in listed.split(","):
            needed = {each.partition(".")[0] for each in reachable(graph, module)}
            assert other not in needed, f"{module} is imported with {other}"


def test_no_module_imports_itself_by_way_of_others():
    graph = modules()
    packages = {each for each in graph if any(m.startswith(f"{each}.") for m in graph)}
    # A package and its modules run together; what counts is modules among each other.
    inner = {m: found - packages for m, found in graph.items() if m not in packages}
    assert [module for module in inner if module in reachable(inner, module)] == []


def test_a_file_name_is_one_place():
    named: dict[str, list[str]] = {}
    for top in (LIBRARY, "flickr8k_tfds", "benchmarks", "examples/app"):
        for path in (ROOT / top).rglob("*.py"):
            if not path.stem.startswith("__"):
                named.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    assert [paths for paths in named.values() if len(paths) > 1] == []


def test_modules_are_short():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for top in (LIBRARY, "flickr8k_tfds", "examples", "benchmarks")
        for path in (ROOT / top).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > 250} == {}
    assert lengths["examples/finetune.py"] <= 60
    assert lengths["examples/own_loop.py"] <= 60


def test_what_is_private_stays_in_its_module():
    found = []
    for top in (LIBRARY, "flickr8k_tfds", "examples", "benchmarks"):
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module != "__future__":
                    ours = (node.module or "").partition(".")[0] in (LIBRARY, "flickr8k_tfds")
                    names = [each.name for each in node.names if each.name.startswith("_")]
                    found += [f"{path}: {name}" for name in names if ours and name[1] != "_"]
    assert found == []


def test_the_page_tells_of_every_part(graph):
    told = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert told == set(graph)


def test_the_reading_of_imports_sees_each_kind():
    source = (
        "import paligemma_lib as pg\nfrom paligemma_lib import hub\n"
        "from paligemma_lib.data.text import pack\n"
        "if TYPE_CHECKING:\n    from paligemma_lib.tokenizer import Tokenizer\n"
        "def later():\n    import paligemma_lib.report\n    return pg.metrics.score\n"
    )
    parts = set(map(part_of, modules_in(source))) - {None, ""}
    assert parts == {"hub", "data", "report", "metrics"}


def test_shortcuts_are_left_out():
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert without_shortcuts(graph) == {"a": {"b"}, "b": {"c"}, "c": set()}
