"""The shape of the house, read from the syntax tree of every source file. The layers below are this test's data."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minimind

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "minimind"
MAX_LINES = 400

# A module imports from lower rows only. A folder counts as one module; inside it, imports are free.
LAYERS = [
    ["errors", "interfaces", "suggestions"],
    ["model", "config", "lora"],
    ["variants"],
    ["text", "tools"],
    ["terminal", "storage"],
    ["generation"],
    ["remote", "builtin"],
    ["training"],
    ["data", "objectives"],
    ["rl", "evals"],
    ["interop", "serve", "report"],
    ["stages"],
    ["cli"],
    ["__main__"],
]

# Inference installs and runs without the training loop.
APART = {"serve": {"training"}, "interop": {"training"}, "evals": {"training"}}

# README's dozen: the codebase that a learner reads. Beside one another and BASICS they may import what stands here, and
# nothing that distrusts files or clients. The doors are storage/verify, without which a weight could be used before its
# hash was compared, and text/foreign and text/template_turns, by which a model from elsewhere keeps its own ways.
BOOK = {
    "model": "",
    "interfaces": "",
    "training/trainer": "training/distributed training/gradient_norm training/schedule training/settings "
    "training/step_sums",
    "training/fit": "storage/run terminal/progress training/device training/distributed training/job training/opening "
    "training/rising_loss training/running_job training/stop_signal",
    "training/optimizer": "training/distributed training/settings",
    "objectives/next_token": "",
    "objectives/cross_entropy": "",
    "data/loader": "training/epoch_source",
    "text/tokenizer": "text/vocabulary text/foreign text/foreign_template text/template_ids",
    "text/conversation": "text/answers text/chat_template text/messages text/template_turns",
    "generation/generate": "generation/cache generation/packed_weights generation/request generation/sampler "
    "generation/sampling generation/text_stream",
    "storage/checkpoint": "storage/adapters storage/config_json storage/folder storage/tensor_files storage/verify "
    "text/chat_template",
}
BASICS = {"errors", "lora"}
MAX_BOOK_LINES = 3200

# What runs what is in data, or may. torch.load is for the importer of .pth files, which looks at them before.
RUNS = {"eval", "exec", "torch.load", "__import__"}
ALLOWED_TO_RUN = {"interop/pth_file.py": {"torch.load"}}

# Test files about no single source file.
OVERALL = {"architecture", "recipes", "docs", "readme", "examples"}
# Source files that only declare: names, types, options, words. They are tested where they are used.
DECLARATIONS = {"builtin/words.py", "training/job.py"}

FILES = sorted(path for path in SOURCE.rglob("*.py"))
ROWS = {name: row for row, names in enumerate(LAYERS) for name in names}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in FILES:
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(encoding="utf-8"), str(path))


def unit(file: str) -> str:
    """`data/loader.py` -> data, `model.py` -> model."""
    return file.partition("/")[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted names of all imports, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_units(tree: ast.AST) -> set[str]:
    return {parts[1] for name in imported(tree) if (parts := name.split("."))[0] == "minimind" and len(parts) > 1} - {
        "__version__"
    }


def dotted(node: ast.AST) -> str:
    """`torch.distributed.init_process_group` as it is written; "" for anything but names and dots."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_every_module_has_a_row() -> None:
    assert {unit(file) for file, _ in trees()} - {"__init__"} <= set(ROWS)


def test_modules_import_from_lower_rows_only() -> None:
    wrong = [
        f"{file} (row {ROWS[unit(file)]}) imports {other} (row {ROWS[other]})"
        for file, tree in trees()
        if unit(file) != "__init__"
        for other in own_units(tree) - {unit(file)}
        if ROWS[other] >= ROWS[unit(file)] or other in APART.get(unit(file), ())
    ]
    assert not wrong, "\n".join(wrong)


def test_the_model_can_be_copied_into_a_notebook() -> None:
    allowed = {"torch", *sys.stdlib_module_names}
    tree = dict(trees())["model.py"]
    assert {name.partition(".")[0] for name in imported(tree)} <= allowed


@pytest.mark.parametrize("name", BOOK)
def test_the_dozen_files_that_are_read_first_stand_apart_from_what_distrusts(name: str) -> None:
    tree = dict(trees())[f"{name}.py"]
    modules = {path.relative_to(SOURCE).with_suffix("").as_posix() for path in FILES}
    parts = (dotted_name.split(".")[1:] for dotted_name in imported(tree) if dotted_name.startswith("minimind."))
    used = {path for words in parts for path in ("/".join(words), "/".join(words[:-1])) if path in modules}
    assert used <= {*BOOK, *BASICS, *BOOK[name].split()}


def test_the_dozen_files_are_short_and_the_readme_names_them() -> None:
    assert sum(len((SOURCE / f"{name}.py").read_text().splitlines()) for name in BOOK) <= MAX_BOOK_LINES
    for readme in ("README.md", "README_zh.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        assert [name for name in BOOK if Path(name).name not in text] == []


def test_no_file_is_long() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    assert {file: length for file, length in lengths.items() if length > MAX_LINES} == {}


def test_all_lists_the_public_names() -> None:
    """Every public function and class, and nothing that is not there. Constants are listed when others use them."""
    wrong = []
    for file, tree in trees():
        definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        defined = {node.name for node in tree.body if isinstance(node, definitions) and not node.name.startswith("_")}
        listed = next((_strings(node) for node in ast.walk(tree) if _assigned(node) == {"__all__"}), None)
        if listed is None:
            wrong += [f"{file}: no __all__"] if len(tree.body) > 1 and file != "__main__.py" else []
            continue
        named = defined | {name for node in ast.walk(tree) for name in _assigned(node) | _bound(node)}
        wrong += [f"{file}: {name} is public but not in __all__" for name in sorted(defined - listed)]
        wrong += [f"{file}: {name} is in __all__ but not there" for name in sorted(listed - named)]
    assert not wrong, "\n".join(wrong)


def test_no_two_public_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for file, tree in trees():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(file)
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_the_public_names_can_be_used() -> None:
    assert all(callable(getattr(minimind, name)) for name in minimind.__all__)


def _assigned(node: ast.AST) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _bound(node: ast.AST) -> set[str]:
    names = node.names if isinstance(node, ast.Import | ast.ImportFrom) else []
    return {alias.asname or alias.name for alias in names}


def _strings(node: ast.AST) -> set[str]:
    return {item.value for item in ast.walk(node) if isinstance(item, ast.Constant) and isinstance(item.value, str)}


def test_only_one_file_knows_torch_distributed() -> None:
    wrong = []
    for file, tree in trees():
        names = {dotted(node) for node in ast.walk(tree)} | set(imported(tree))
        if file != "training/distributed.py" and any(name.startswith("torch.distributed") for name in names):
            wrong.append(file)
    assert not wrong, "\n".join(wrong)


def test_nothing_runs_code_from_data() -> None:
    wrong = []
    for file, tree in trees():
        wrong += [f"{file}: {name}" for name in imported(tree) if name.split(".")[0] in {"pickle", "dill", "marshal"}]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and dotted(node.func) in RUNS - ALLOWED_TO_RUN.get(file, set()):
                wrong.append(f"{file}:{node.lineno}: {dotted(node.func)}")
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                wrong.append(f"{file}:{node.value.lineno}: trust_remote_code")
            if isinstance(node, ast.Call) and dotted(node.func) == "torch.load":
                settings = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                wrong += [f"{file}:{node.lineno}: without weights_only"] * (settings.get("weights_only") != "True")
    assert not wrong, "\n".join(wrong)


def test_only_the_terminal_prints() -> None:
    """What is said goes through `terminal/notes.py`; rooms below it return or raise."""
    wrong = [
        f"{file}:{node.lineno}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and dotted(node.func) == "print" and not file.startswith("terminal/")
    ]
    assert not wrong, "\n".join(wrong)


def test_weights_are_never_loaded_in_part() -> None:
    wrong = [
        f"{file}:{node.lineno}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and dotted(node.func) != "zip"
        for keyword in node.keywords
        if keyword.arg == "strict" and ast.unparse(keyword.value) == "False"
    ]
    assert not wrong, "\n".join(wrong)


def test_tests_mirror_the_source() -> None:
    sources = {file for file, _ in trees() if not Path(file).name.startswith("__")} - DECLARATIONS
    tests = {path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    mirrored = {test: test.replace("test_", "", 1) for test in tests}
    untested = sources - set(mirrored.values())
    homeless = [test for test, file in mirrored.items() if file not in sources and not _is_overall(test)]
    assert not untested, f"no test file for {', '.join(sorted(untested))}"
    assert not homeless, f"no source file for {', '.join(homeless)}"


def _is_overall(test: str) -> bool:
    # The page's own files are no Python; a browser tests them.
    return (
        test.startswith(("equalities/", "benchmarks/", "serve/test_page_"))
        or Path(test).stem.removeprefix("test_") in OVERALL
    )
