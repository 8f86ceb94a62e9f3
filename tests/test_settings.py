import yaml

from project.settings import differences, setting


def test_configs_differ_by_class_and_key_not_by_place() -> None:
    x, y = "{class_path: X, init_args: {n: 1}}", "{class_path: Y}"
    one = yaml.safe_load(f"a: {{b: 1, c: [1, 2]}}\ntrainer: {{callbacks: [{x}, {y}]}}")
    other = yaml.safe_load(f"a: {{b: 2, c: [1, 2]}}\ntrainer: {{callbacks: [{y}, {x}]}}\nd: null")
    assert differences(one, other) == [("a.b", "1", "2"), ("d", "(not in this config)", "None")]
    assert differences(one, one) == []


def test_order_is_a_setting_of_all_but_callbacks() -> None:
    one = yaml.safe_load("data: {transforms: [{class_path: X, init_args: {n: 1}}, {class_path: Y}]}")
    other = yaml.safe_load("data: {transforms: [{class_path: Y}, {class_path: X, init_args: {n: 2}}]}")
    assert differences(one, other) == [
        ("data.transforms", "['X', 'Y']", "['Y', 'X']"),
        ("data.transforms.X.init_args.n", "1", "2"),
    ]
    rules = [{"pattern": "a", "lr": 1}, {"pattern": "b", "lr": 1}]
    found = differences({"rules": rules}, {"rules": rules[::-1]})
    assert found == [("rules.0.pattern", "a", "b"), ("rules.1.pattern", "b", "a")]


def test_setting_is_found_by_its_dotted_key() -> None:
    config = {"a": {"b": 1}, "c": "d"}
    assert setting(config, "a.b") == 1
    assert setting(config, "a.x") is setting(config, "c.d.e") is None
