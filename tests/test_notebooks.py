"""Lints of the notebooks: the house rules that a reader relies on, each checked on every notebook."""

import ast
import json
import pkgutil
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
RUN_FOLDERS = {"experiments", "guide", "tour"}
MODULES = [p for p in NOTEBOOKS if p.parent.name not in RUN_FOLDERS and p.name != "index.ipynb"]
RUNS = [p for p in NOTEBOOKS if p.parent.name == "experiments"]


def name(path: Path) -> str:
    return path.relative_to(ROOT / "nbs").as_posix()


@cache
def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@cache
def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [c for c in read(path).cells if c.cell_type == "code"]


def module_of(path: Path) -> str:
    found = re.findall(r"^#\| default_exp (\S+)$", "\n".join(c.source for c in code_cells(path)), re.M)
    assert len(found) == 1, f"{name(path)}: exactly one default_exp"
    return found[0]


def body(cell: nbformat.NotebookNode) -> str:
    return "\n".join(line for line in cell.source.splitlines() if not re.match(r"\s*[%!]", line))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_opens_with_a_title_and_its_summary(path: Path) -> None:
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# .+\n+> .+", first.source), "a title cell: H1, then a > line"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_is_of_one_idea(path: Path) -> None:
    assert len(read(path).cells) <= 65, "a longer notebook is two ideas"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_cell_ids_are_unique(path: Path) -> None:
    ids = [c["id"] for c in json.loads(path.read_text())["cells"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_import_cells_hold_imports_only(path: Path) -> None:
    for cell in code_cells(path):
        nodes = ast.parse(body(cell)).body
        imports = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
        if imports:
            assert len(imports) == len(nodes), cell.source[:80]
        for node in imports:
            assert not any(a.name == "*" for a in node.names), "no star imports"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_outputs_hold_no_paths_times_or_warnings(path: Path) -> None:
    for cell in code_cells(path):
        for output in cell.outputs:
            text = json.dumps(output)
            assert not re.search(r"/(home|Users|root|tmp|mnt)/", text), f"a path of this machine after: {cell.source[:60]}"
            assert output.get("name") != "stderr", f"a warning after: {cell.source[:60]}"
            assert output.output_type != "error", f"an error after: {cell.source[:60]}"
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_notebook_takes_no_parameters(path: Path) -> None:
    assert not any("parameters" in c.metadata.get("tags", []) for c in code_cells(path))


def test_every_module_has_one_notebook_and_the_other_way_round() -> None:
    modules = [module_of(p) for p in MODULES]
    assert len(modules) == len(set(modules)), "two notebooks with one default_exp overwrite each other"
    files = {
        p.relative_to(ROOT / "zsemo_kit").with_suffix("").as_posix().replace("/", ".")
        for p in (ROOT / "zsemo_kit").rglob("*.py") if p.name not in ("__init__.py", "_modidx.py")
    }
    assert files == set(modules)


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_a_run_notebook_has_one_parameters_cell_typed_and_commented(path: Path) -> None:
    cells = [c for c in code_cells(path) if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1
    for node, line in zip(ast.parse(cells[0].source).body, cells[0].source.splitlines(), strict=True):
        assert isinstance(node, ast.AnnAssign) and node.value is not None, line
        ast.literal_eval(node.value)
        assert "#" in line, f"say what it is: {line}"
    assert not any("#| export" in c.source or "nbdev_export" in c.source for c in code_cells(path))


LONG_RUNS = {"corpus_datasheet"}  # a page of a corpus, with a table or a figure a section


@pytest.mark.parametrize("path", [p for p in RUNS if p.stem not in LONG_RUNS], ids=name)
def test_a_run_notebook_shows_a_system_in_ten_cells(path: Path) -> None:
    assert len(read(path).cells) <= 10, "logic belongs into a module of nbs/systems"
    nodes = [node for cell in code_cells(path) for node in ast.walk(ast.parse(body(cell)))]
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in nodes)


def public_definitions() -> list[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    found = []
    for path in MODULES:
        for cell in code_cells(path):
            if "#| export" in cell.source:
                for node in ast.parse(body(cell)).body:
                    if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                        found.append((f"{module_of(path)}.{node.name}", node))
    return found


PUBLIC = public_definitions()


@pytest.mark.parametrize(("where", "node"), PUBLIC, ids=[w for w, _ in PUBLIC])
def test_public_names_have_a_docstring_and_full_types(where: str, node: ast.FunctionDef | ast.ClassDef) -> None:
    assert ast.get_docstring(node), f"{where} has no docstring"
    if isinstance(node, ast.FunctionDef):
        args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        assert all(a.annotation for a in args if a.arg not in ("self", "cls")), f"{where}: an untyped parameter"
        assert node.returns is not None, f"{where}: an untyped return"


@pytest.mark.parametrize(("where", "node"), PUBLIC, ids=[w for w, _ in PUBLIC])
def test_a_docstring_says_what_is_raised(where: str, node: ast.FunctionDef | ast.ClassDef) -> None:
    if any(".command(" in ast.unparse(d) for d in node.decorator_list):  # that is a help text
        return
    for function in [node] if isinstance(node, ast.FunctionDef) else node.body:
        if not isinstance(function, ast.FunctionDef) or function.name.startswith("_") or not ast.get_docstring(function):
            continue
        calls = [n.exc.func for n in ast.walk(function) if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call)]
        if any(isinstance(call, ast.Name) and call.id in ("InputError", "AudioError") for call in calls):
            told = (ast.get_docstring(function) or "").lower()
            assert "raise" in told or "refuse" in told, f"{where}.{function.name} does not say when it raises"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_each_public_name_is_used_by_a_lesson(path: Path) -> None:
    cells = code_cells(path)
    lessons = "\n".join(c.source for c in cells if "#| export" not in c.source)
    exported = "\n".join(c.source for c in cells if "#| export" in c.source)
    names = [w.rsplit(".", 1)[1] for w, _ in PUBLIC if w.startswith(module_of(path) + ".")]
    unused = [n for n in names if not re.search(rf"\b{n}\b", lessons) and len(re.findall(rf"\b{n}\b", exported)) < 2]
    assert not unused, f"no lesson shows {', '.join(unused)}"
    assert "assert" in lessons or "test_eq" in lessons


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_exported_cells_are_small(path: Path) -> None:
    sizes = sorted(len(c.source.splitlines()) for c in code_cells(path) if "#| export" in c.source)
    assert sizes[len(sizes) // 2] <= 25, f"median exported cell has {sizes[len(sizes) // 2]} lines"


SHOWN = ("synthesis", "systems", "training")  # folders whose notebooks must be seen or heard
TO_BE_SHOWN = [p for p in MODULES if p.parent.name in SHOWN]
MOST_IN_A_ROW = 4  # definitions before an example with something to see


def is_example(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and "#| export" not in cell.source and bool(cell.outputs)


@pytest.mark.parametrize("path", TO_BE_SHOWN, ids=name)
def test_something_is_seen_or_heard(path: Path) -> None:
    outputs = [o.get("data", {}) for cell in code_cells(path) for o in cell.outputs]
    assert any(kind.startswith("image/") for data in outputs for kind in data) or any(
        re.search(r"<(audio|svg|img)\b", data.get("text/html", "")) for data in outputs
    ), f"{name(path)} shows no picture and no player"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_few_definitions_stand_in_a_row(path: Path) -> None:
    waiting: list[str] = []
    for cell in code_cells(path):
        if is_example(cell):
            waiting = []
        elif "#| export" in cell.source:
            waiting += [n.name for n in ast.parse(body(cell)).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        assert len(waiting) <= MOST_IN_A_ROW, f"nothing to see after {', '.join(waiting)}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_examples_are_short_and_assert_apart(path: Path) -> None:
    examples = [cell for cell in code_cells(path) if is_example(cell)]
    check = re.compile(r"^\s*(assert|test_eq|test_close|test_fail)\b", re.M)
    mixed = [c.source.splitlines()[0] for c in examples if check.search(c.source)]
    assert not mixed, f"checks belong in the next cell: {mixed}"
    assert sorted(len(c.source.splitlines()) for c in examples)[len(examples) // 2] <= 5, "examples are of five lines or fewer"


ORDER = ["core", "corpora", "generation", "synthesis", "training", "analysis", "systems", "", "cli"]  # "": in no folder


def test_a_number_stands_once_in_its_folder() -> None:
    numbers = [(path.parent.name, path.name.split("_")[0]) for path in MODULES]
    assert len(numbers) == len(set(numbers))


def test_data_flows_one_way() -> None:
    "Folders in their order, notebooks by their numbers: nothing imports what comes later, and nothing imports in a circle."
    place = {module_of(path): (ORDER.index("" if path.parent.name == "nbs" else path.parent.name), path.name.split("_")[0])
             for path in MODULES}
    imports: dict[str, set[str]] = {}
    for path in MODULES:
        code = "\n".join(body(cell) for cell in code_cells(path) if "#| export" in cell.source)
        found = set(re.findall(r"(?:from|import) zsemo_kit\.([\w.]+)", code))
        imports[module_of(path)] = {other for other in found if other in place and other != module_of(path)}
        lost = found - set(place) - set(ORDER)
        assert not lost, f"{name(path)} imports {', '.join(lost)}, of which there is no notebook"
    for module, others in imports.items():
        later = [other for other in others if place[other] > place[module]]
        assert not later, f"{module} reaches back to {', '.join(later)}"
    list(TopologicalSorter(imports).static_order())  # raises CycleError


def test_exported_package_is_what_the_notebooks_say(tmp_path: Path) -> None:
    from nbdev.export import nb_export

    library = tmp_path / "zsemo_kit"  # the exporter turns imports of the library's own name into relative ones
    for path in MODULES:
        nb_export(path, lib_path=library)
        module = module_of(path).replace(".", "/") + ".py"
        made, kept = ((folder / module).read_text() for folder in (library, ROOT / "zsemo_kit"))
        strip = re.compile(r"^# (%%|AUTOGENERATED).*$", re.M)  # these lines name the notebook relative to the export folder
        assert strip.sub("", made) == strip.sub("", kept), f"zsemo_kit/{module} is stale: run nbdev_export"


def test_no_frame_carries_attributes() -> None:
    "`DataFrame.attrs` is lost by a copy, and nobody sees it: what belongs to a frame stands in a class beside it."
    files = [p for p in (ROOT / "zsemo_kit").rglob("*.py") if p.name != "_modidx.py"]
    used = [f"{p.relative_to(ROOT)}:{node.lineno}" for p in files for node in ast.walk(ast.parse(p.read_text()))
            if isinstance(node, ast.Attribute) and node.attr == "attrs"]
    assert not used, f"attrs in {', '.join(used)}"


def test_notebooks_are_clean() -> None:
    for path in NOTEBOOKS:
        raw = json.loads(path.read_text())
        for cell in raw["cells"]:
            assert set(cell["metadata"]) <= {"tags"}, f"{name(path)}: run nbdev_clean"
            assert cell.get("execution_count") is None, f"{name(path)}: run nbdev_clean"
        assert set(raw["metadata"]) <= {"kernelspec"}


def test_readme_is_the_index_notebook() -> None:
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    folded = Config(TagRemovePreprocessor={"enabled": True, "remove_input_tags": {"hide-input"}})  # README shows what they made
    made, _ = MarkdownExporter(config=folded).from_filename(str(ROOT / "nbs" / "index.ipynb"))
    assert made.replace("](../", "](").strip() == (ROOT / "README.md").read_text().strip(), "run make readme"


def test_readme_shows_figures_that_are_there() -> None:
    shown = re.findall(r"\]\((figures/[^)]+)\)", (ROOT / "README.md").read_text())
    assert shown and all((ROOT / path).is_file() for path in shown)


def test_every_public_name_stands_once() -> None:
    "A name that two modules had would be two things, or one thing twice; a command may be called as what it runs."
    homes: dict[str, list[str]] = {}
    for file in (ROOT / "zsemo_kit").rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            named = isinstance(node, ast.FunctionDef | ast.ClassDef)
            names = [node.name] if named else [t.id for t in targets if isinstance(t, ast.Name)]
            command = any(".command(" in ast.unparse(d) for d in getattr(node, "decorator_list", []))
            for found in names if not command else []:
                if not found.startswith("_"):
                    homes.setdefault(found, []).append(file.relative_to(ROOT / "zsemo_kit").as_posix())
    assert not {found: files for found, files in homes.items() if len(set(files)) > 1}


def test_modules_and_functions_are_short() -> None:
    modules, functions = set(), set()
    for file in (ROOT / "zsemo_kit").rglob("*.py"):
        where, text = file.relative_to(ROOT / "zsemo_kit").as_posix(), file.read_text(encoding="utf-8")
        if where != "_modidx.py" and len(text.splitlines()) > 600:
            modules.add(where)
        functions |= {f"{where}:{n.name}" for n in ast.walk(ast.parse(text))
                      if isinstance(n, ast.FunctionDef) and (n.end_lineno or 0) - n.lineno >= 45}
    assert not modules and not functions


OTHERS = {"zsemo_kit.recipes", "zsemo_kit.corpora", "zsemo_kit.encoders", "zsemo_kit.engines"}  # groups of entry points


PAGES = [*NOTEBOOKS, *(ROOT / f"{page}.md" for page in ("README", "CONTRIBUTING", "CHANGELOG"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_a_full_name_in_prose_is_one_of_the_kit(path: Path) -> None:
    "A module, or a name in one: renaming forgets prose."
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else "\n".join(c.source for c in read(path).cells)
    for found in sorted(set(re.findall(r"`(zsemo_kit(?:\.\w+)+)`", text)) - OTHERS):
        try:
            pkgutil.resolve_name(found)
        except (ImportError, AttributeError):
            pytest.fail(f"{found} is gone")


def test_settings_of_the_session_are_no_parameters() -> None:
    """Bars, processes and the cache folder are set by `core.settings` alone; objects of these names are another thing."""
    plain = {"progress": r"", "jobs": r"int", "cache": r"\b(Path|str)\b"}
    found = []
    for module in (ROOT / "zsemo_kit").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or (module.stem, node.name) == ("settings", "settings"):
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            kinds = {a.arg: ast.unparse(a.annotation) if a.annotation else "" for a in given}
            found += [f"{module.stem}.{node.name}({name})" for name, kind in plain.items()
                      if name in kinds and re.search(kind, kinds[name]) and not kinds[name].startswith("list[")]
    assert not found, "use `current()` of `core.settings`"
