from typing import Any

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch import nn

from lightning_modules import ParamGroup
from lightning_modules.networks import LeNet, ResNet
from lightning_modules.optim.param_groups import build_param_groups, freeze, layers, param_group_table
from lightning_modules.optim.schedules import Triangle


def sgd(**options: Any) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], **({"lr": 0.1} | options))


def names_by_group(network: nn.Module, groups: list[dict]) -> dict[str, list[str]]:
    name_of = {id(parameter): name for name, parameter in network.named_parameters()}
    return {group["name"]: [name_of[id(parameter)] for parameter in group["params"]] for group in groups}


def rows(network: nn.Module, rules: list[ParamGroup], optimizer: torch.optim.Optimizer) -> list[list[str]]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(param_group_table(network, rules, optimizer.param_groups))
    lines = [line.replace("┃", "│") for line in capture.get().splitlines()]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


def test_first_matching_pattern_wins() -> None:
    network = LeNet(10)
    rules = [ParamGroup("fc3.bias", lr_scale=2), ParamGroup("fc3.*", lr_scale=10), ParamGroup("*.bias", weight_decay=0)]
    groups = build_param_groups(network, rules, sgd())
    assert names_by_group(network, groups) == {
        "fc3.bias": ["fc3.bias"],
        "fc3": ["fc3.weight"],
        "bias": ["conv1.bias", "conv2.bias", "fc1.bias", "fc2.bias"],
        "default": ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"],
    }


PATTERNS = ["conv*", "*.weight", "fc?.bias", "fc3.*", "conv1.weight", "*.bias", "*2.*"]


@given(
    patterns=st.lists(st.sampled_from(PATTERNS), unique=True, max_size=4),
    frozen=st.sets(st.integers(0, 3)),
    own=st.sets(st.sampled_from(["conv1.bias", "fc2.weight"])),
    lr=st.sets(st.integers(0, 3)),
    no_decay=st.booleans(),
    layer_decay=st.sampled_from([None, 0.5, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_every_parameter_that_trains_is_in_exactly_one_group_of_a_name_of_its_own(
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
        freeze(network, rules)
        groups = build_param_groups(network, rules, sgd(), no_decay, layer_decay)
    except MisconfigurationException:  # earlier rules match or freeze all parameters of a pattern, or all parameters
        reject()
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(parameter) for parameter in network.parameters() if parameter.requires_grad)
    assert len({group["name"] for group in groups}) == len(groups)
    torch.optim.SGD(groups, lr=0.1)


def test_scale_absolute_lr_weight_decay_and_momentum_reach_the_optimizer() -> None:
    rules = [
        ParamGroup("fc3.*", lr_scale=10),
        ParamGroup("fc2.*", lr=0.5, momentum=0.5, options={"nesterov": True}),
        ParamGroup("*.bias", weight_decay=0.0),
    ]
    options = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9}
    groups = build_param_groups(LeNet(10), rules, sgd(**options))
    optimizer = torch.optim.SGD(groups, **options)
    keys = ("lr", "weight_decay", "momentum", "nesterov")
    assert {group["name"]: tuple(group[key] for key in keys) for group in optimizer.param_groups} == {
        "fc3": (pytest.approx(0.1), 0.1, 0.9, False),
        "fc2": (0.5, 0.1, 0.5, True),
        "bias": (0.01, 0.0, 0.9, False),
        "default": (0.01, 0.1, 0.9, False),
    }


def test_scale_of_zero_keeps_the_parameters() -> None:
    assert build_param_groups(LeNet(10), [ParamGroup("fc3.*", lr_scale=0)], sgd(lr=0.01))[0]["lr"] == 0


def test_norms_and_biases_take_no_decay_unless_a_rule_sets_it() -> None:
    network = ResNet(10, 20)
    rules = [ParamGroup("stem.*"), ParamGroup("stages.0.*", weight_decay=0.3)]
    groups = build_param_groups(network, rules, sgd(weight_decay=0.1), no_decay=True)
    assert [group["name"] for group in groups] == [
        *("stem", "stem/no_decay", "stages.0", "default", "default/no_decay"),
    ]
    for group in groups:
        dims = {parameter.ndim for parameter in group["params"]}
        if group["name"] == "stages.0":
            assert dims == {1, 4}
            assert group["weight_decay"] == 0.3
        elif group["name"].endswith("/no_decay"):
            assert dims == {1}
            assert group["weight_decay"] == 0
        else:
            assert 1 not in dims
            assert "weight_decay" not in group


def test_a_layer_is_a_module_with_a_weight_and_the_norms_after_it() -> None:
    network = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)))
    assert layers(network) == {
        "0.weight": "0",
        "0.bias": "0",
        "1.weight": "1",
        "1.bias": "1",
        "2.0.weight": "1",
        "2.0.bias": "1",
        "2.1.weight": "2.1",
        "2.1.bias": "2.1",
    }


def test_lr_decays_from_the_last_layer_down_unless_a_rule_sets_it() -> None:
    rules = [ParamGroup("fc2.*", lr=0.7), ParamGroup("conv2.*", lr_scale=3)]
    groups = build_param_groups(LeNet(10), rules, sgd(lr=1.0), layer_decay=0.5)
    assert {group["name"]: group["lr"] for group in groups} == {
        "fc2": 0.7,
        "conv2/conv2": 3 * 0.5**3,
        "default/conv1": 0.5**4,
        "default/fc1": 0.5**2,
        "default/fc3": 1.0,
    }


def test_decay_by_layer_and_none_for_biases_go_together() -> None:
    groups = build_param_groups(LeNet(10), [], sgd(lr=1.0), no_decay=True, layer_decay=0.5)
    assert len(groups) == 10
    settings = {group["name"]: (group["lr"], group.get("weight_decay")) for group in groups}
    assert settings["default/fc2"] == (0.5, None)
    assert settings["default/fc2/no_decay"] == (0.5, 0.0)


def test_frozen_parameters_are_in_no_group_and_have_no_gradient() -> None:
    network = LeNet(10)
    rules = [ParamGroup("conv*", freeze=True)]
    assert freeze(network, rules) == {}
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == [
        *("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"),
    ]
    groups = build_param_groups(network, rules, sgd())
    assert {name.split(".")[0] for name in names_by_group(network, groups)["default"]} == {"fc1", "fc2", "fc3"}


def test_what_the_network_froze_itself_stays_frozen() -> None:
    network = LeNet(10)
    network.conv1.requires_grad_(False)
    rules = [ParamGroup("*.bias", weight_decay=0, unfreeze_epoch=2)]
    assert freeze(network, rules) == {f"{layer}.bias": 2 for layer in ("conv2", "fc1", "fc2", "fc3")}
    groups = names_by_group(network, build_param_groups(network, rules, sgd()))
    assert not network.conv1.bias.requires_grad
    assert not [name for names in groups.values() for name in names if name.startswith("conv1")]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([ParamGroup("fc4.*")], r"'fc4\.\*'.*it matches none.*fc"),
        ([ParamGroup("fc3.*"), ParamGroup("fc3.bias")], r"'fc3\.bias'.*earlier rules match all"),
        ([ParamGroup("fc3.weight", name="a"), ParamGroup("fc3.bias", name="a")], "distinct names"),
        ([ParamGroup("fc3.*", name="default")], "distinct names"),
        ([ParamGroup("fc3.*", options={"nesterof": True})], r"options of SGD for param group 'fc3\.\*'.*nesterov"),
        ([ParamGroup("fc3.*", options={"momentum": 0.9})], "momentum of param group 'fc3.*' as a field"),
    ],
)
def test_rule_without_effect_is_an_error(rules: list[ParamGroup], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        build_param_groups(LeNet(10), rules, sgd())


def test_nothing_left_to_train_is_an_error() -> None:
    network, rules = LeNet(10), [ParamGroup("*", freeze=True)]
    freeze(network, rules)
    with pytest.raises(MisconfigurationException, match="nothing is left to train"):
        build_param_groups(network, rules, sgd())


def test_options_that_the_optimizer_has_not_are_errors_that_name_it() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    with pytest.raises(MisconfigurationException, match=r"Adam for param group.*no momentum"):
        build_param_groups(LeNet(10), [ParamGroup("*", momentum=0.9)], torch.optim.Adam(parameters))
    with pytest.raises(MisconfigurationException, match=r"Rprop for --model\.no_decay.*no weight_decay"):
        build_param_groups(LeNet(10), [], torch.optim.Rprop(parameters), no_decay=True)
    with pytest.raises(MisconfigurationException, match=r"0 < --model\.layer_decay <= 1, but got 1.5"):
        build_param_groups(LeNet(10), [], sgd(), layer_decay=1.5)


def test_contradictions_within_a_rule_are_errors() -> None:
    with pytest.raises(MisconfigurationException, match="got both"):
        ParamGroup("fc3.*", lr=0.1, lr_scale=2)
    with pytest.raises(MisconfigurationException, match="lr >= 0"):
        ParamGroup("fc3.*", lr=-1)
    with pytest.raises(MisconfigurationException, match="unfreeze_epoch >= 0"):
        ParamGroup("fc3.*", unfreeze_epoch=-1)
    for changes in ({"lr": 0.1}, {"momentum": 0.0}, {"schedule": Triangle()}, {"options": {"nesterov": True}}):
        with pytest.raises(MisconfigurationException, match="frozen"):
            ParamGroup("fc3.*", freeze=True, **changes)
    with pytest.raises(MisconfigurationException, match="without '/'"):
        ParamGroup("fc3.*", name="a/b")


def test_table_shows_every_group_and_what_is_frozen() -> None:
    network = LeNet(10)
    rules = [ParamGroup("conv*", freeze=True), ParamGroup("fc3.*", lr_scale=10)]
    freeze(network, rules)
    optimizer = torch.optim.SGD(build_param_groups(network, rules, sgd(lr=0.01)), lr=0.01, weight_decay=0.1)
    assert rows(network, rules, optimizer) == [
        ["group", "pattern", "parameters", "lr", "weight decay"],
        ["fc3", "fc3.*", "850", "0.1", "0.1"],
        ["default", "(all others)", "58,284", "0.01", "0.1"],
        ["conv", "conv*", "2,872", "frozen", "-"],
    ]


def test_table_shows_all_other_settings_of_a_rule() -> None:
    network = LeNet(10)
    rules = [
        ParamGroup("fc3.weight", schedule=Triangle(1, 0, 0, 0.5), momentum=0.8),
        ParamGroup("fc3.bias", options={"nesterov": True}),
        ParamGroup("conv*", unfreeze_epoch=3),
    ]
    optimizer = torch.optim.SGD(build_param_groups(network, rules, sgd(), no_decay=True), lr=0.1, momentum=0.9)
    shape = "Triangle(start=1, peak_at=0, end=0, until=0.5)"
    assert [[row[0], *row[3:]] for row in rows(network, rules, optimizer)] == [
        ["group", "lr", "weight decay", "more"],
        ["fc3.weight", "0.1", "0", f"momentum 0.8, {shape}"],
        ["fc3.bias/no_decay", "0.1", "0", "nesterov=True, momentum 0.9"],
        ["conv", "0.1", "0", "momentum 0.9, frozen until epoch 3"],
        ["conv/no_decay", "0.1", "0", "momentum 0.9, frozen until epoch 3"],
        ["default", "0.1", "0", "momentum 0.9"],
        ["default/no_decay", "0.1", "0", "momentum 0.9"],
    ]
    torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.3] * 6, total_steps=10)
    assert rows(network, rules, optimizer)[-1][3:] == ["0.3", "0", "momentum 0.85 to 0.95"]


def test_table_shows_what_a_groups_own_schedule_is_a_factor_on() -> None:
    network, rules = LeNet(10), [ParamGroup("fc3.*", schedule=Triangle(1, 0, 0))]
    optimizer = torch.optim.SGD(build_param_groups(network, rules, sgd()), lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.3] * 2, total_steps=10)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(param_group_table(network, rules, optimizer.param_groups, {"fc3": 0.1}))
    cells = [line.split("│") for line in capture.get().splitlines() if line.startswith("│")]
    assert [row[4].strip() for row in cells] == ["0.1", "0.3"]


def test_table_loses_nothing_in_a_narrow_terminal() -> None:
    network = LeNet(10)
    rules = [ParamGroup("fc3.*", schedule=Triangle(1, 0, 0, 0.5), options={"nesterov": True})]
    optimizer = torch.optim.SGD(build_param_groups(network, rules, sgd(), no_decay=True), lr=0.1, momentum=0.9)
    console = Console(width=60)
    with console.capture() as capture:
        console.print(param_group_table(network, rules, optimizer.param_groups))
    assert "…" not in capture.get()
