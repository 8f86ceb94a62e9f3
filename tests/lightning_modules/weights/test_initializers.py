import math
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch import Tensor, nn

from lightning_modules.networks import LeNet, ResNet
from lightning_modules.weights.initializers import Initializer, initialize, initializer_table

RULES = """
- {pattern: "*.bias", method: constant, arguments: {val: 0}}
- {layer: Conv2d, method: xavier_normal}
- {layer: BatchNorm2d, method: constant, arguments: {val: 1}}
- {layer: Linear, method: normal, arguments: {std: 0.01}}
"""


def from_yaml(text: str) -> list[Initializer]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--initializers", type=list[Initializer] | None)
    return parser.instantiate(parser.parse_args(["--initializers", text])).initializers


@pytest.mark.parametrize(
    ("method", "arguments", "changes"),
    [
        ("xavier_normal", {}, {}),
        ("xavier_normal", {"gain": "tanh"}, {"gain": 5 / 3}),
        ("xavier_uniform", {"gain": "leaky_relu"}, {"gain": math.sqrt(2 / 1.0001)}),
        ("kaiming_normal", {"nonlinearity": "relu", "mode": "fan_out"}, {}),
        ("trunc_normal", {"std": 0.02, "a": -0.04, "b": 0.04}, {}),
        ("constant", {"val": 3}, {}),
        ("orthogonal", {"gain": 2}, {}),
        ("sparse", {"sparsity": 0.25, "std": 0.5}, {}),
    ],
)
def test_values_are_those_of_torchs_function(method: Any, arguments: dict[str, Any], changes: dict[str, Any]) -> None:
    layer, expected = nn.Linear(20, 50), torch.empty(50, 20)
    torch.manual_seed(0)
    initialize(layer, [Initializer(method, pattern="weight", arguments=arguments)])
    torch.manual_seed(0)
    getattr(nn.init, f"{method}_")(expected, **(arguments | changes))
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_rules_from_yaml_initialise_a_network() -> None:
    torch.manual_seed(0)
    network = ResNet(10, 20)
    initialize(network, from_yaml(RULES))
    assert not network.fc.bias.any()
    assert (network.stem[1].weight == 1).all()
    weight = network.stages[2][1].conv1.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (2 * weight[0].numel())), rel=0.05)
    assert network.fc.weight.std().item() == pytest.approx(0.01, rel=0.15)


def test_first_matching_rule_wins_and_the_rest_stay_bit_for_bit() -> None:
    class MyLinear(nn.Linear):
        pass

    network = LeNet(10)
    network.fc2 = MyLinear(120, 84)  # layers match by the classes that they inherit from, too
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rules = [
        Initializer("constant", pattern="fc3.bias", arguments={"val": 3}),
        Initializer("constant", layer="Linear", pattern="*.bias", arguments={"val": 2}),
        Initializer("constant", layer="Conv?d", arguments={"val": 1}),
    ]
    initialize(network, rules)
    for name, value in network.state_dict().items():
        expected = {"fc3.bias": 3, "fc2.bias": 2, "fc1.bias": 2}.get(name, 1 if name.startswith("conv") else None)
        assert torch.equal(value, before[name] if expected is None else torch.full_like(value, expected)), name


def test_values_depend_only_on_the_seed_and_not_on_memory_format_or_dtype() -> None:
    rules = [Initializer("orthogonal", layer="Conv2d", pattern="*.weight"), Initializer("normal", layer="Linear")]

    def weights(network: nn.Module, seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        initialize(network, rules)
        return [parameter.detach().clone() for parameter in network.parameters()]

    plain = weights(LeNet(10), 1)
    last = weights(LeNet(10).to(memory_format=torch.channels_last), 1)
    half = weights(LeNet(10).bfloat16(), 1)
    other = weights(LeNet(10), 2)
    for number in set(range(10)) - {1, 3}:  # no rule matches the convolutions' biases
        assert torch.equal(plain[number], last[number])
        assert torch.equal(plain[number].bfloat16(), half[number])
        assert not torch.equal(plain[number], other[number])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([Initializer("eye", layer="Conv2d")], r"fill conv1\.weight of shape \(6, 3, 5, 5\), but got eye\(\)"),
        ([Initializer("xavier_normal", pattern="fc1.bias")], r"fc1\.bias of shape \(120,\).*fewer than 2 dimensions"),
        ([Initializer("normal", arguments={"std": -1})], r"normal\(std=-1\).*std >= 0"),
        ([Initializer("xavier_normal", layer="Conv2d", arguments={"gain": "gelu"})], "nonlinearity gelu"),
        ([Initializer("xavier_normal", layer="Conv2d", arguments={"std": 1})], "unexpected keyword argument 'std'"),
        ([Initializer("constant")], "missing 1 required positional argument: 'val'"),
        ([Initializer("normal", layer="Conv3d")], r"rule 1 of .*it matches none.*are Conv2d, Linear"),
        ([Initializer("normal"), Initializer("normal", pattern="fc3.*")], r"'fc3\.\*'.*earlier rules match all"),
    ],
)
def test_invalid_rule_is_reported_in_one_line(rules: list[Initializer], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message) as caught:
        initialize(LeNet(10), rules)
    assert "\n" not in str(caught.value)


def test_table_lists_the_parameters_of_each_rule() -> None:
    network = LeNet(10)
    rules = [
        Initializer("constant", pattern="*.bias", arguments={"val": 0.5}),
        Initializer("eye", layer="Linear", pattern="fc[1-3].weight"),
    ]
    initialize(network, rules)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(initializer_table(network, rules))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    assert rows[0] == ["*", "*.bias", "constant(val=0.5)", "5", "236", "0.5", "0"]
    ones = (120 + 84 + 10) / 58_920
    mean_and_std = [f"{ones:.3g}", f"{math.sqrt(ones * (1 - ones)):.3g}"]
    assert rows[1] == ["Linear", "fc[1-3].weight", "eye()", "3", "58,920", *mean_and_std]
    assert rows[2][:5] == ["(all others)", "", "as built", "2", "2,850"]
