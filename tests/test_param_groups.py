import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console

from lightning_modules import ParamGroup
from lightning_modules.networks import LeNet
from lightning_modules.param_groups import build_param_groups, freeze, param_group_table


def names_by_group(network: torch.nn.Module, groups: list[dict]) -> dict[str, list[str]]:
    name_of = {id(parameter): name for name, parameter in network.named_parameters()}
    return {group["name"]: [name_of[id(parameter)] for parameter in group["params"]] for group in groups}


def test_first_matching_pattern_wins() -> None:
    network = LeNet(10)
    rules = [ParamGroup("fc3.bias", lr_scale=2), ParamGroup("fc3.*", lr_scale=10), ParamGroup("*.bias", weight_decay=0)]
    groups = build_param_groups(network, rules, lr=0.1)
    assert names_by_group(network, groups) == {
        "fc3.bias": ["fc3.bias"],
        "fc3": ["fc3.weight"],
        "bias": ["conv1.bias", "conv2.bias", "fc1.bias", "fc2.bias"],
        "default": ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"],
    }


def test_every_parameter_is_in_exactly_one_group() -> None:
    network = LeNet(10)
    groups = build_param_groups(network, [ParamGroup("conv*"), ParamGroup("*.weight"), ParamGroup("fc?.bias")], lr=0.1)
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(parameter) for parameter in network.parameters())


def test_scale_absolute_lr_and_weight_decay_reach_the_optimizer() -> None:
    rules = [ParamGroup("fc3.*", lr_scale=10), ParamGroup("fc2.*", lr=0.5), ParamGroup("*.bias", weight_decay=0.0)]
    groups = build_param_groups(LeNet(10), rules, lr=0.01)
    optimizer = torch.optim.SGD(groups, lr=0.01, weight_decay=0.1)
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found == {
        "fc3": (pytest.approx(0.1), 0.1),
        "fc2": (0.5, 0.1),
        "bias": (0.01, 0.0),
        "default": (0.01, 0.1),
    }


def test_scale_of_zero_stands_still() -> None:
    assert build_param_groups(LeNet(10), [ParamGroup("fc3.*", lr_scale=0)], lr=0.01)[0]["lr"] == 0


def test_frozen_parameters_are_in_no_group_and_have_no_gradient() -> None:
    network = LeNet(10)
    rules = [ParamGroup("conv*", freeze=True)]
    freeze(network, rules)
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == [
        *("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"),
    ]
    groups = build_param_groups(network, rules, lr=0.1)
    assert {name.split(".")[0] for name in names_by_group(network, groups)["default"]} == {"fc1", "fc2", "fc3"}


def test_what_the_network_froze_itself_stays_frozen() -> None:
    network = LeNet(10)
    network.conv1.requires_grad_(False)
    rules = [ParamGroup("*.bias", weight_decay=0)]
    freeze(network, rules)
    groups = names_by_group(network, build_param_groups(network, rules, lr=0.1))
    assert not network.conv1.bias.requires_grad
    assert not [name for names in groups.values() for name in names if name.startswith("conv1")]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([ParamGroup("fc4.*")], r"'fc4\.\*'.*it matches none.*fc"),
        ([ParamGroup("fc3.*"), ParamGroup("fc3.bias")], r"'fc3\.bias'.*taken by patterns above"),
        ([ParamGroup("fc3.weight", name="a"), ParamGroup("fc3.bias", name="a")], "distinct names"),
        ([ParamGroup("fc3.*", name="default")], "distinct names"),
        ([ParamGroup("*", freeze=True)], "nothing is left to train"),
    ],
)
def test_rule_without_effect_is_an_error(rules: list[ParamGroup], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        build_param_groups(LeNet(10), rules, lr=0.1)


def test_contradictions_within_a_rule_are_errors() -> None:
    with pytest.raises(MisconfigurationException, match="got both"):
        ParamGroup("fc3.*", lr=0.1, lr_scale=2)
    with pytest.raises(MisconfigurationException, match="lr >= 0"):
        ParamGroup("fc3.*", lr=-1)
    with pytest.raises(MisconfigurationException, match="frozen"):
        ParamGroup("fc3.*", lr=0.1, freeze=True)


def test_table_shows_every_group_and_what_is_frozen() -> None:
    network = LeNet(10)
    rules = [ParamGroup("conv*", freeze=True), ParamGroup("fc3.*", lr_scale=10)]
    freeze(network, rules)
    optimizer = torch.optim.SGD(build_param_groups(network, rules, lr=0.01), lr=0.01, weight_decay=0.1)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(param_group_table(network, rules, optimizer.param_groups))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    assert rows == [
        ["fc3", "fc3.*", "2", "850", "0.1", "0.1"],
        ["default", "(all others)", "4", "58,284", "0.01", "0.1"],
        ["conv", "conv*", "4", "2,872", "frozen", "-"],
    ]
