import re
from enum import IntEnum, StrEnum
from pathlib import Path

import pytest
import yaml
from jsonargparse._loaders_dumpers import get_yaml_default_loader

from project.errors import RunError
from project.runs.config import differences, load_config, read_yaml, setting, write_yaml


def test_settings_that_differ_are_listed_by_key_and_index() -> None:
    x, y = "{class_path: X, init_args: {n: 1}}", "{class_path: Y}"
    one = yaml.safe_load(f"a: {{b: 1, c: [1, 2]}}\ntrainer: {{callbacks: [{x}]}}\ne: {{}}")
    other = yaml.safe_load(f"a: {{b: 2, c: [1, 2]}}\ntrainer: {{callbacks: [{x}, {y}]}}\nd: null\ne: {{}}")
    assert differences(one, other) == [
        ("a.b", "1", "2"),
        ("trainer.callbacks.1.class_path", "(not in this config)", "Y"),
        ("d", "(not in this config)", "None"),
    ]
    assert differences(one, one) == []


def test_setting_is_found_by_its_dotted_key() -> None:
    config = {"a": {"b": 1}, "c": "d"}
    assert setting(config, "a.b") == 1
    assert setting(config, "a.x") is setting(config, "c.d.e") is None


STRINGS = ["1e-3", "1E5", "1.5e3", "1_000", "0x10", "010", "1:30", "on", "null", "~x", "2026-11-21"]
STRINGS += ["", " x", "a: b", "é"]


def test_strings_are_read_back_as_strings() -> None:
    data = {"a": STRINGS, "b": {text: text for text in STRINGS}, "c": [1e-05, 1e300, True, None, 0]}
    assert read_yaml(write_yaml(data)) == data


def test_yaml_is_read_as_jsonargparse_reads_it() -> None:
    numbers = ["1e3", "-1.", ".5", "+1e3", "1e", "1.5e-3", ".inf", ".nan", "0b1"]
    for text in [*STRINGS, *numbers, "2026-11-21 10:00:00", "off"]:
        assert repr(read_yaml(text)) == repr(yaml.load(text, get_yaml_default_loader())), text


def test_enums_are_written_as_their_values() -> None:
    class Word(StrEnum):
        STEP = "step"

    class Number(IntEnum):
        TWO = 2

    assert write_yaml({"a": Word.STEP, "b": Number.TWO}) == "a: step\nb: 2\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' in lines 1 and 3"),
        ("x:\n  y:\n    - a: 1\n      b: {c: 1,\n         c: 2}\n", "'x.y.0.b.c' in lines 4 and 5"),
        ('{"a": 1, "a": 2}', "'a' in lines 1 and 1"),
        ("a: 1\n'a': 2\n", "'a' in lines 1 and 2"),
        ("a.b: 1\na: {c: 2}\n", "'a' in lines 1 and 2"),
        ("a: {b: 2}\na.b: 1\n", "'a.b' in lines 1 and 2"),
        ("base: &base {a: 1}\nb:\n  <<: *base\n  c: 1\n  c: 2\n", "'b.c' in lines 4 and 5"),
    ],
)
def test_a_duplicate_key_is_an_error_with_both_lines(text: str, expected: str) -> None:
    with pytest.raises(RunError, match=re.escape(f"once, but my.yaml has {expected}")):
        read_yaml(text, "my.yaml")


def test_merged_keys_are_not_duplicates() -> None:
    text = (
        "a: &a {x: 1, y: 1}\nb: &b {z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\nd: {<<: *a, y: 4}\ne: [*a, *a]\na.f: 1\na.g: 2\n"
    )
    with pytest.raises(RunError, match=r"'a\.f'"):
        read_yaml(text + "a.f: 3\n")
    content = read_yaml(text)
    assert content["c"] == {"x": 3, "y": 1, "z": 2}
    assert content["d"] == {"x": 1, "y": 4}
    assert read_yaml("a: &a\n  - *a\n")["a"]  # contains itself


def test_a_leading_tilde_is_expanded_in_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read_yaml("a: ~/x\nb: [~/y, ~, '~']\nc~: {d: a~}") == {
        "a": "/home/me/x",
        "b": ["/home/me/y", None, "/home/me"],
        "c~": {"d": "a~"},
    }


def test_a_duplicate_key_in_the_config_of_a_run_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("trainer: {max_epochs: 1}\ntrainer: {max_epochs: 2}\n")
    with pytest.raises(RunError, match=rf"{tmp_path}/config.yaml has 'trainer' in lines 1 and 2"):
        load_config(tmp_path)
