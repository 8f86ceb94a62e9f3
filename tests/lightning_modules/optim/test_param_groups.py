from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from lightning_modules import ParamGroup
from lightning_modules.networks import LeNet, ResNet
from lightning_modules.optim.build import build_optimizer, param_group_table
from lightning_modules.optim.param_groups import assign_groups
from lightning_modules.optim.parameter_rules import layers
from lightning_modules.optim.schedules import Triangle


def groups_of(rules: list[ParamGroup], options: dict[str, Any] | None = None, **sgd: Any) -> dict[str, dict[str, Any]]:
    """Return the groups of an SGD optimizer for LeNet."""
    network = LeNet(10)
    groups = assign_groups(network, rules, **options or {})
    return {group["name"]: group for group in build_optimizer(partial(SGD, **sgd), network, groups).param_groups}


def test_first_matching_pattern_wins() -> None:
    rules = [ParamGroup("fc3.bias", lr_scale=2), ParamGroup("fc3.*", freeze=True), ParamGroup("*.bias", weight_decay=0)]
    assert [(group.name, group.parameters) for group in assign_groups(LeNet(10), rules)] == [
        ("fc3.bias", ["fc3.bias"]),
        ("fc3", ["fc3.weight"]),
        ("bias", ["conv1.bias", "conv2.bias", "fc1.bias", "fc2.bias"]),
        ("default", ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]),
    ]


PATTERNS = ["conv*", "*.weight", "fc?.bias", "fc3.*", "conv1.weight", "*.bias", "*2.*"]


@given(
    patterns=st.lists(st.sampled_from(PATTERNS), unique=True, max_size=4),
    frozen=st.sets(st.integers(0, 3)),
    own=st.sets(st.sampled_from(["conv1.bias", "fc2.weight"])),
    lr=st.sets(st.integers(0, 3)),
    no_decay=st.booleans(),
    layer_decay=st.sampled_from([None, 0.5, 1.0]),
)
@settings(max_examples=100, deadline=None)
def test_every_parameter_is_in_exactly_one_group_and_names_are_distinct(
    patterns: list[str], frozen: set[int], own: set[str], lr: set[int], no_decay: bool, layer_decay: float | None
) -> None:
    network = LeNet(10)
    for name in own:
        network.get_parameter(name).requires_grad_(False)
    rules = [
        ParamGroup(pattern, freeze=True) if i in frozen else ParamGroup(pattern, lr=0.5 if i in lr else None)
        for i, pattern in enumerate(patterns)
    ]
    try:
        groups = assign_groups(network, rules, no_decay, layer_decay)
    except MisconfigurationException:  # earlier rules match or freeze all parameters of a pattern, or all parameters
        reject()
    names = [name for group in groups for name in group.parameters]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())
    trained = [group.name for group in groups if not group.frozen]
    assert len(set(trained)) == len(trained)
    assert not own & {name for group in groups for name in group.parameters if not group.frozen}


def test_settings_of_rules_reach_the_optimizer() -> None:
    rules = [
        ParamGroup("fc3.*", lr_scale=10),
        ParamGroup("fc2.*", lr=0.5, momentum=0.5, options={"nesterov": True}),
        ParamGroup("conv1.*", lr_scale=0),
        ParamGroup("*.bias", weight_decay=0.0),
    ]
    groups = groups_of(rules, lr=0.01, weight_decay=0.1, momentum=0.9)
    keys = ("lr", "weight_decay", "momentum", "nesterov")
    assert {name: tuple(group[key] for key in keys) for name, group in groups.items()} == {
        "fc3": (pytest.approx(0.1), 0.1, 0.9, False),
        "fc2": (0.5, 0.1, 0.5, True),
        "conv1": (0, 0.1, 0.9, False),
        "bias": (0.01, 0.0, 0.9, False),
        "default": (0.01, 0.1, 0.9, False),
    }


def test_norms_and_biases_take_no_decay_unless_a_rule_sets_it() -> None:
    network = ResNet(10, 20)
    rules = [ParamGroup("stem.*"), ParamGroup("stages.0.*", weight_decay=0.3)]
    groups = {group.name: group for group in assign_groups(network, rules, no_decay=True)}
    dims = {name: {network.get_parameter(each).ndim for each in group.parameters} for name, group in groups.items()}
    assert list(dims) == ["stem", "stem/no_decay", "stages.0", "default", "default/no_decay"]
    assert dims["stages.0"] == {1, 4}
    assert dims["stem/no_decay"] == dims["default/no_decay"] == {1}
    assert 1 not in dims["stem"] | dims["default"]
    decays = {name: group.options.get("weight_decay") for name, group in groups.items()}
    assert decays == {"stem": None, "stem/no_decay": 0, "stages.0": 0.3, "default": None, "default/no_decay": 0}


def test_a_layer_is_a_module_with_a_weight_and_the_norms_after_it() -> None:
    network = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)))
    weights = {name: layer for name, layer in layers(network).items() if name.endswith("weight")}
    assert weights == {"0.weight": "0", "1.weight": "1", "2.0.weight": "1", "2.1.weight": "2.1"}


def test_lr_decays_from_the_last_layer_down_unless_a_rule_sets_it() -> None:
    rules = [ParamGroup("fc2.*", lr=0.7), ParamGroup("conv2.*", lr_scale=3)]
    groups = groups_of(rules, {"layer_decay": 0.5}, lr=1.0)
    assert {name: group["lr"] for name, group in groups.items()} == {
        "fc2": 0.7,
        "conv2/conv2": 3 * 0.5**3,
        "default/conv1": 0.5**4,
        "default/fc1": 0.5**2,
        "default/fc3": 1.0,
    }
    groups = groups_of([], {"layer_decay": 0.5, "no_decay": True}, lr=1.0, weight_decay=0.1)
    assert len(groups) == 10
    assert (groups["default/fc2/no_decay"]["lr"], groups["default/fc2/no_decay"]["weight_decay"]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("make", "rules", "options", "message"),
    [
        (SGD, [ParamGroup("fc4.*")], {}, r"rule 1 of --model.param_groups, pattern 'fc4\.\*'.*it matches none.*fc"),
        (SGD, [ParamGroup("fc3.*"), ParamGroup("fc3.bias")], {}, r"'fc3\.bias'.*earlier rules match all"),
        (SGD, [ParamGroup("fc3.weight", name="a"), ParamGroup("fc3.bias", name="a")], {}, "distinct names"),
        (SGD, [ParamGroup("fc3.*", name="default")], {}, "distinct names"),
        (SGD, [ParamGroup("fc3.*", options={"nesterof": True})], {}, r"SGD for param group 'fc3', .*nesterov"),
        (Adam, [ParamGroup("*", momentum=0.9)], {}, "Adam for param group 'all', but got momentum"),
        (torch.optim.Rprop, [], {"no_decay": True}, "Rprop for param group 'default/no_decay', but got weight_decay"),
        (SGD, [], {"layer_decay": 1.5}, r"0 < --model\.layer_decay <= 1, but got 1.5"),
    ],
)
def test_rule_without_effect_is_an_error(
    make: type[Optimizer], rules: list[ParamGroup], options: dict[str, Any], message: str
) -> None:
    network = LeNet(10)
    with pytest.raises(MisconfigurationException, match=message):
        build_optimizer(make, network, assign_groups(network, rules, **options))


def test_parameters_that_the_network_got_later_are_an_error() -> None:
    network = LeNet(10)
    groups = assign_groups(network, [])
    network.extra = nn.Linear(2, 2)
    with pytest.raises(MisconfigurationException, match=r"also has extra\.weight, extra\.bias"):
        build_optimizer(SGD, network, groups)


def rows(rules: list[ParamGroup], width: int = 200, cycle: bool = False) -> list[list[str]]:
    network = LeNet(10)
    groups = assign_groups(network, rules, no_decay=True)
    optimizer = build_optimizer(partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.2), network, groups)
    if cycle:
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=10)
    console = Console(width=width)
    with console.capture() as capture:
        console.print(param_group_table(network, groups, optimizer))
    lines = [line.replace("┃", "│") for line in capture.get().splitlines()]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


def test_table_shows_the_settings_of_every_group_and_what_is_frozen() -> None:
    rules = [
        ParamGroup("fc3.weight", schedule=Triangle(1, 0, 0, 0.5), momentum=0.8, lr_scale=10),
        ParamGroup("fc3.bias", options={"nesterov": True}),
        ParamGroup("conv1.*", freeze=True),
        ParamGroup("conv2.weight", unfreeze_epoch=3),
    ]
    shape = "Triangle(start=1, peak_at=0, end=0, until=0.5)"
    assert rows(rules) == [
        ["group", "pattern", "parameters", "lr", "weight decay", "more"],
        ["fc3.weight", "fc3.weight", "840", "1", "0.2", f"momentum=0.8, {shape}"],
        ["fc3.bias/no_decay", "fc3.bias", "10", "0.1", "0", "nesterov=True"],
        ["conv1", "conv1.*", "456", "frozen", "-", ""],
        ["conv2.weight", "conv2.weight", "2,400", "0.1", "0.2", "frozen until epoch 3"],
        ["default/no_decay", "(all others)", "220", "0.1", "0", ""],
        ["default", "(all others)", "58,080", "0.1", "0.2", ""],
    ]
    cycled = [(row[3], row[5].split(",")[0]) for row in rows(rules[:1], cycle=True)[1:]]
    assert cycled == [("1", "momentum=0.95"), ("0.3", ""), ("0.3", "")]
    assert "…" not in str(rows(rules, width=60))
