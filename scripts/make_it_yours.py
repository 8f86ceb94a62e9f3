"""Turn a clone of this template into your own project: its names, README and licence, without parts you do not need.

    python scripts/make_it_yours.py bird-classifier --package birds --without airbench,sweep

It needs a working tree without changes, git, and `make .venv/installed-dev`. It stages what it changes, commits
nothing, and removes itself; `git reset --hard && git clean -fd` undoes everything. scripts/parts.toml lists the parts.
"""

import argparse
import importlib.util
import keyword
import re
import subprocess
import sys
import tomllib
from datetime import date
from difflib import get_close_matches
from importlib import metadata

from parts import CHOICES, PARTS, ROOT, files, mentions, read, remove, write

OLD = "project"  # the package
# where the word is the package: not the English word, `[project]` of pyproject.toml, or an argument of this name
PACKAGE = re.compile(
    r"(?<![\w.\[{-])project(?=\.[a-z_]|\\\.)|(?<![\w.{-])project(?=/)"  # project.cli, project/cli
    r"|(?<=from )project(?= import)|(?<=import )project\b|(?<=-m )project\b|(?<=-m -- )project\b"
    r"|(?<=[^\[][\"'`])project(?=\*?[\"'`])|(?<=\[[\"'])project(?=[\"'][^]])"  # a string that is the name
    r"|(?<=f\")project(?= \{__version__)|(?<=\.\*)project(?= )"
)
README = """\
# {name}

Write here what the images show, what the classes mean, and who uses the result.

**Results**: not yet measured. State mean and standard deviation over seeds, the data, and the hardware.

## Quick start

You need Python 3.11 or newer, make and git. In a clone of this repository:

```bash
make fit
source .venv/bin/activate
python -m {package} fit --config configs/lenet.yaml
```

`make fit` trains on scikit-learn's handwritten digits, the last command on CIFAR-10. Write here how to get your images,
and how to train on them.

"""
MEASURED = r"\d ?%|\d minutes|not yet measured"  # in a paragraph of a recipe's header
RESULTS = r"^((?:\| [^|\n]+ ){4})(?:\|[^|\n]*){5}\|$"  # a row of configs/README.md
PICTURE = r"^!\[[^]]*\]\([^)]*(?:results/|report\.png)[^)]*\)\n\n\*[^*]+\*\n+"  # with its caption


def main(args: list[str] | None = None) -> None:
    """Check the arguments, change the files, and print what was done.

    Raises:
        SystemExit: After one line: an argument is wrong, or the working tree has changes.
    """
    parser = argparse.ArgumentParser(description="Make a clone of this template your own project.", allow_abbrev=False)
    parser.add_argument("name", help="Name of the project, such as bird-classifier.")
    parser.add_argument("--package", help=f"Name of the package {OLD}. Default: the name, with underscores.")
    parser.add_argument("--without", default="", help=f"Parts to remove: all, or some of {','.join(CHOICES)}.")
    parser.add_argument("--holder", help="Holder of the copyright, for LICENSE.")
    parser.add_argument("--security-contact", help="Where to report vulnerabilities: an address or a URL.")
    options = parser.parse_args(args)
    package = options.package or re.sub(r"\W+", "_", options.name.lower())
    parts = parts_of(options.without)
    check(options.name, package)
    holder = options.holder or ask("Holder of the copyright") or f"the authors of {options.name}"
    contact = options.security_contact or ask("Where to report vulnerabilities (an address or a URL)")

    before = size(OLD)
    clear_results()
    words = remove(parts)
    rename(package)
    write_identity(options.name, package, holder, contact)
    for command in ("check --fix-only --select I,F401,RUF022", "format"):
        subprocess.run([sys.executable, "-m", "ruff", *command.split(), "--quiet", "."], cwd=ROOT, check=True)
    if (schema := ROOT / "configs/schema.json").is_file():  # it names classes that may be gone
        command = [sys.executable, "-m", package, "schema"]
        write(schema, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    git("add", "--all")

    print(f"Name         {options.name}; python -m {package} --help")
    print(f"Removed      {', '.join(parts) or 'no part'}")
    print(f"Source       {size(package):,} lines of Python in 4 packages, {before:,} before")
    print(f"Licence      {holder}")
    print(f"Security     {contact or 'no address: write one to SECURITY.md'}")
    if lines := list(mentions(words)):
        print(f"To edit      {len(lines)} lines mention what was removed:")
        print("\n".join(f"             {line}" for line in lines))
    print("Next         make fit && make check && make test; write README.md; git commit")


def parts_of(text: str) -> list[str]:
    """Return the parts to remove."""
    parts = CHOICES if text == "all" else [part for part in re.split(r"[ ,]+", text) if part]
    for part in parts:
        if part not in CHOICES:
            near = get_close_matches(part, CHOICES, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            stop(f"Expected parts in --without ({', '.join(CHOICES)}), but got {part!r}.{hint}")
    for part in parts:
        for other in PARTS[part].get("needed_by", []):
            if other not in parts:
                stop(f"Expected --without {','.join([*parts, other])}, because {other} needs {part}.")
    return [part for part in CHOICES if part in parts]


def check(name: str, package: str) -> None:
    """Stop unless both names can be used, and the working tree has no changes."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        stop(f"Expected a name of letters, digits, '-', '_' and '.', but got {name!r}.")
    if name != tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["name"] and [*metadata.distributions(name=name)]:
        stop(f"Expected a name that is free, but a package {name} is installed.")
    if keyword.iskeyword(package) or not re.fullmatch(r"[a-z][a-z0-9_]*", package):
        why = "is a keyword of Python" if keyword.iskeyword(package) else "is no lower-case identifier"
        stop(f"Expected a package name such as my_project, but {package!r} {why}. Set --package.")
    own = {path.stem for path in files(".py")} | {path.relative_to(ROOT).parts[0] for path in files()}
    if package != OLD and (package in own | sys.stdlib_module_names or importlib.util.find_spec(package)):
        stop(
            f"Expected a package name that is free, but {package!r} is a module of Python, of an installed package or "
            "of this template. Set --package."
        )
    ignored = ["git", "check-ignore", "--quiet", f"{package}/__init__.py"]
    if subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0:
        stop(f"Expected a package name that .gitignore does not list, but got {package!r}. Set --package.")
    if importlib.util.find_spec("ruff") is None:
        stop("Expected ruff, but it is not installed: make .venv/installed-dev, then use .venv/bin/python.")
    if changes := git("status", "--porcelain").splitlines():
        stop(f"Expected no uncommitted changes, but got {len(changes)}, such as {changes[0][3:]}. Commit them first.")


def stop(message: str) -> None:
    """Exit with code 2 after one line."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def ask(question: str) -> str:
    """Return an answer from the terminal; "" without one."""
    return input(f"{question}: ").strip() if sys.stdin.isatty() else ""


def git(*args: str) -> str:
    """Return the output of git."""
    result = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        stop(f"Expected a git repository, but `git {args[0]}` failed: {result.stderr.strip()}")
    return result.stdout


def size(package: str) -> int:
    """Return the number of lines of Python in the four packages."""
    packages = (package, "lightning_modules", "datamodules", "callbacks")
    return sum(len(read(path).splitlines()) for path in files(".py") if path.relative_to(ROOT).parts[0] in packages)


def clear_results() -> None:
    """Replace the results of this template by "not yet measured", and remove its pictures."""
    for path in (ROOT / "configs").glob("*.yaml"):
        text = read(path)
        header = re.match(r"(#.*\n)*", text)[0]
        for paragraph in header.rstrip("\n").split("\n#\n")[2:]:
            if re.search(MEASURED, paragraph):
                text = text.replace(paragraph, "# Minutes and accuracy: not yet measured.", 1)
        write(path, text)
    for path in files(".md"):
        write(path, re.sub(PICTURE, "", read(path), flags=re.MULTILINE))
    page = ROOT / "configs/README.md"
    head, line, rows = read(page).partition("|---|---|---|---|---|---|---|---|---|\n")
    rows = re.sub(RESULTS, r"\1| | not yet measured | | | |", rows, flags=re.MULTILINE)
    write(page, head + line + rows.replace(", JPEG copy", ""))


def rename(package: str) -> None:
    """Rename the package, the folder of its tests, and its environment variable."""
    if package == OLD:
        return
    for path in files():
        write(path, PACKAGE.sub(package, read(path)).replace("PROJECT_DEBUG", f"{package.upper()}_DEBUG"))
    for folder in (ROOT, ROOT / "tests"):
        (folder / OLD).rename(folder / package)


def write_identity(name: str, package: str, holder: str, contact: str) -> None:
    """Write names, licence and address, a README to complete, and an empty changelog."""
    _, title, sections = read(ROOT / "README.md").partition("## What a run leaves")
    write(ROOT / "README.md", README.format(name=name, package=package) + title + sections)
    write(ROOT / "CHANGELOG.md", "# Changelog\n\n## 0.1.0 (unreleased)\n")
    replacements = {
        "LICENSE": {r"(?<=Copyright \(c\) ).*": f"{date.today().year} {holder}"},
        "pyproject.toml": {r'(?<=^name = ").*(?=")': name, r'(?<=^description = ").*(?=")': name},
    }
    if contact:
        report = f"**To report a vulnerability**, write to {contact}. Describe"
        replacements["SECURITY.md"] = {
            r"\*\*To report a vulnerability\*\*[^*]*?Describe": report,
            r" If you publish a clone,\s+put\s+your own address here\.": "",
        }
    if (longer := 2 * (len(package) - len(OLD))) > 0:  # comments and strings are not wrapped again
        limit = f"[tool.ruff.lint.pycodestyle]\nmax-line-length = {120 + longer}\n\n"
        replacements["pyproject.toml"][r"(?=^\[tool\.ruff\.lint\.pydocstyle\])"] = limit
    for file, patterns in replacements.items():
        text = read(ROOT / file)
        for pattern, new in patterns.items():
            text = re.sub(pattern, lambda _, new=new: new, text, flags=re.MULTILINE)
        write(ROOT / file, text)


if __name__ == "__main__":
    main()
