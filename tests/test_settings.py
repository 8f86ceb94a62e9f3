import yaml

from project.settings import differences, setting


def test_configs_differ_by_class_and_key_not_by_place() -> None:
    one = yaml.safe_load("a: {b: 1, c: [1, 2]}\ncallbacks: [{class_path: X, init_args: {n: 1}}, {class_path: Y}]")
    other = yaml.safe_load(
        "a: {b: 2, c: [1, 2]}\ncallbacks: [{class_path: Y}, {class_path: X, init_args: {n: 1}}]\nd: null"
    )
    assert differences(one, other) == [("a.b", "1", "2"), ("d", "(not in this config)", "None")]
    assert differences(one, one) == []


def test_setting_is_found_by_its_dotted_key() -> None:
    config = {"a": {"b": 1}, "c": "d"}
    assert setting(config, "a.b") == 1
    assert setting(config, "a.x") is setting(config, "c.d.e") is None
