"""Remove parts of this template, which scripts/parts.toml lists: files, and what mentions them elsewhere."""

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "scripts/parts.toml").read_text(encoding="utf-8"))
TEMPLATE = PARTS.pop("template")  # what no copy needs
CHOICES = [name for name in PARTS if "+" not in name]  # "a+b" is removed if both are
TEXTS = (".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".json", ".ipynb", ".html", "")


def files(*suffixes: str) -> list[Path]:
    """Return the files of the repository with these suffixes; all texts by default."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    paths = sorted({ROOT / name for name in names if name})
    return [path for path in paths if path.is_file() and path.suffix in (suffixes or TEXTS)]


def read(path: Path) -> str:
    """Return the text of a file."""
    return path.read_text(encoding="utf-8")


def write(path: Path, text: str) -> None:
    """Write a text if it has changed."""
    if read(path) != text:
        path.write_text(text, encoding="utf-8", newline="\n")


def remove(names: Sequence[str]) -> str:
    """Remove parts, and what no copy needs; return a pattern of what mentions them."""
    parts = [TEMPLATE, *(PARTS[part] for part in PARTS if {*part.split("+")} <= {*names})]
    modules = {module for part in parts for pattern in part.get("files", []) for module in delete(pattern)}
    for name in {name for part in parts for name in part.get("cut", {})}:
        patterns = [pattern for part in parts for pattern in part.get("cut", {}).get(name, [])]
        for path in ROOT.glob(name):  # there is none if it is of another part
            write(path, without(read(path), patterns, name))
    lost = {path: cut_imports(path, modules) for path in sorted(files(".py"), key=lambda path: path.name[0] != "_")}
    exported = {name for path in lost if path.name == "__init__.py" for name in lost[path]}
    words = [word for part in parts for word in part.get("words", [])] + [rf"\b{name}\b" for name in sorted(exported)]
    for path in files(".py"):
        if path.name.startswith("test_"):
            cut_tests(path, "|".join([*words, *(rf"\b{name}\b" for name in lost[path])]))
    for path in files(".md"):
        if path.name not in ("SECURITY.md", "causes.md"):  # of which the doctor reads all rows
            write(path, without_items(read(path), "|".join(words)))
    write(ROOT / "SECURITY.md", without_missing_tests(read(ROOT / "SECURITY.md")))
    return "|".join(words)


def delete(pattern: str) -> Iterator[str]:
    """Delete the paths that match a pattern, and yield the names of their modules."""
    for path in list(ROOT.glob(pattern)):  # there is none if another part has it, too
        for file in [path, *path.rglob("*.py")]:
            yield ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def without(text: str, patterns: Sequence[str], name: str) -> str:
    """Return a text without what matches the patterns; print a pattern that matches nothing, as in an edited page."""
    rest = text
    for pattern in patterns:
        if not re.search(pattern, text, re.MULTILINE):
            print(f"Not found    {pattern!r} in {name}, which scripts/parts.toml cuts")
        rest = re.sub(pattern, "", rest, flags=re.MULTILINE)
    return rest


def cut_imports(path: Path, modules: set[str]) -> set[str]:
    """Cut imports of modules that are gone, and return the names that they imported.

    What an ``__init__.py`` exported is added to ``modules`` with its package: other files import it from there.
    """
    text, package, names = read(path), ".".join(path.relative_to(ROOT).parts[:-1]), set[str]()
    lines = text.splitlines(keepends=True)
    for node in reversed([node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]):
        gone = [each for each in node.names if node.module in modules or f"{node.module}.{each.name}" in modules]
        kept = [each for each in node.names if each not in gone]
        if gone:
            new = ast.unparse(ast.ImportFrom(node.module, kept, 0)) if kept else ""
            lines[node.lineno - 1 : node.end_lineno] = [f"{' ' * node.col_offset}{new}\n"] if new else []
            names |= {each.asname or each.name for each in gone}
    text = "".join(lines)
    if path.name == "__init__.py" and names:
        modules |= {f"{package}.{name}" for name in names}
        text = re.sub(rf'"({"|".join(sorted(names))})",? ?', "", text)  # in __all__
    write(path, text)
    return names


def cut_tests(path: Path, words: str) -> None:
    """Cut the tests of a file that mention what is gone, and delete the file if none is left."""
    text = read(path)
    lines = text.splitlines(keepends=True)
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"]
    spans = [slice(min(each.lineno for each in (node, *node.decorator_list)) - 1, node.end_lineno) for node in nodes]
    gone = [span for span in spans if re.search(words, "".join(lines[span]))]
    for span in reversed(gone):
        del lines[span]
    if gone:
        print(f"Tests        {len(gone)} of {len(spans)} cut from {path.relative_to(ROOT).as_posix()}")
    if gone and len(gone) == len(spans):
        path.unlink()
    else:
        write(path, "".join(lines))


def without_items(text: str, words: str) -> str:
    """Return Markdown without the table rows, list items and commands that mention what is gone."""
    items = re.compile(r"^(?:\| (?!-).*|- .*(?:\n  .*)*|(?:python|sbatch|torchrun) .*)\n", re.MULTILINE)
    text = items.sub(lambda item: "" if re.search(words, item[0]) else item[0], text)
    return re.sub(r"^```bash\n+```\n\n", "", text, flags=re.MULTILINE)


def without_missing_tests(text: str) -> str:
    """Return SECURITY.md without tests that are gone, and without rows that had no other ones."""
    rows = []
    for row in text.splitlines(keepends=True):
        tests = re.findall(r"`((tests/[\w/]+\.py)::(\w+))`", row)
        gone = [name for name, file, test in tests if not (ROOT / file).is_file() or test not in read(ROOT / file)]
        if not tests or len(gone) < len(tests):
            for name in gone:
                row = row.replace(f", `{name}`", "").replace(f"`{name}`, ", "")
            rows.append(row)
    return "".join(rows)


def mentions(words: str) -> Iterator[str]:
    """Yield the lines that match, except in tests, as "file:line: text"."""
    for path in [path for path in files() if path.relative_to(ROOT).parts[0] != "tests"]:
        for number, line in enumerate(read(path).splitlines(), 1):
            if re.search(words, line):
                yield f"{path.relative_to(ROOT).as_posix()}:{number}: {line.strip()[:90]}"
