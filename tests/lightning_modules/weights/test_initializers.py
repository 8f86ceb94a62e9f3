import math

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch import Tensor, nn

from lightning_modules.networks import LeNet, ResNet
from lightning_modules.weights.initializers import Initializer, initialize, initializer_table

COURSE = """
- {pattern: "*.bias", method: constant, arguments: {val: 0}}
- {layer: Conv2d, method: xavier_normal}
- {layer: BatchNorm2d, method: constant, arguments: {val: 1}}
- {layer: Linear, method: normal, arguments: {std: 0.01}}
"""
FAN_IN, FAN_OUT = 32 * 9, 64 * 9


def filled(method, layer: nn.Module | None = None, **arguments: float | str) -> Tensor:
    """Return the weight, float64, of a layer initialised by a rule; by default a convolution of 32 to 64 channels."""
    torch.manual_seed(0)
    layer = layer or nn.Conv2d(32, 64, 3, bias=False)
    initialize(layer, [Initializer(method, pattern="weight", arguments=arguments)])
    return next(layer.parameters()).detach().double()


def from_yaml(text: str) -> list[Initializer]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--initializers", type=list[Initializer] | None)
    return parser.instantiate(parser.parse_args(["--initializers", text])).initializers


@pytest.mark.parametrize(
    ("method", "arguments", "std"),
    [
        ("xavier_normal", {}, math.sqrt(2 / (FAN_IN + FAN_OUT))),
        ("xavier_normal", {"gain": 3}, 3 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
        ("xavier_normal", {"gain": "relu"}, math.sqrt(2) * math.sqrt(2 / (FAN_IN + FAN_OUT))),
        ("xavier_normal", {"gain": "tanh"}, 5 / 3 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
        ("xavier_normal", {"gain": "leaky_relu"}, math.sqrt(2 / 1.0001) * math.sqrt(2 / (FAN_IN + FAN_OUT))),
        (
            "xavier_normal",
            {"gain": "leaky_relu", "negative_slope": 1},
            math.sqrt(2 / (FAN_IN + FAN_OUT)),
        ),
        ("kaiming_normal", {"nonlinearity": "relu"}, math.sqrt(2 / FAN_IN)),
        ("kaiming_normal", {"nonlinearity": "relu", "mode": "fan_out"}, math.sqrt(2 / FAN_OUT)),
        ("kaiming_normal", {"a": math.sqrt(5)}, math.sqrt(1 / 3 / FAN_IN)),
        ("normal", {"mean": 2, "std": 0.01}, 0.01),
    ],
)
def test_normal_values_have_mean_and_std_of_the_formula(method, arguments: dict, std: float) -> None:
    values = filled(method, **arguments)
    n = values.numel()
    error = std / math.sqrt(n)  # standard error of the mean; that of the std is smaller by a factor of sqrt(2)
    assert values.mean().item() == pytest.approx(arguments.get("mean", 0), abs=4 * error)
    assert values.std().item() == pytest.approx(std, abs=4 * error / math.sqrt(2))
    assert (values - values.mean()).abs().max() > 3 * std  # and tails
    assert ((values - values.mean()).abs() < std).double().mean().item() == pytest.approx(0.6827, abs=0.015)


@pytest.mark.parametrize(
    ("method", "arguments", "low", "high"),
    [
        ("xavier_uniform", {}, None, math.sqrt(6 / (FAN_IN + FAN_OUT))),
        ("xavier_uniform", {"gain": "relu"}, None, math.sqrt(2) * math.sqrt(6 / (FAN_IN + FAN_OUT))),
        ("kaiming_uniform", {"nonlinearity": "relu"}, None, math.sqrt(6 / FAN_IN)),
        ("kaiming_uniform", {"nonlinearity": "relu", "mode": "fan_out"}, None, math.sqrt(6 / FAN_OUT)),
        ("uniform", {}, 0, 1),
        ("uniform", {"a": -0.5, "b": 0.25}, -0.5, 0.25),
    ],
)
def test_uniform_values_fill_their_bounds_evenly(method, arguments: dict, low: float | None, high: float) -> None:
    low = -high if low is None else low
    values = filled(method, **arguments)
    width = high - low
    rounding = 1e-6 * width  # of float32
    assert low - rounding <= values.min() < low + 0.001 * width
    assert high - 0.001 * width < values.max() <= high + rounding
    error = width / math.sqrt(12 * values.numel())
    assert values.mean().item() == pytest.approx((low + high) / 2, abs=4 * error)
    assert values.std().item() == pytest.approx(width / math.sqrt(12), abs=4 * error)


def test_truncated_normal_keeps_its_bounds() -> None:
    values = filled("trunc_normal", std=0.02, a=-0.04, b=0.04)
    assert 0.0399 < values.abs().max() <= 0.04
    assert values.std().item() == pytest.approx(0.02 * math.sqrt(1 - 4 * 0.05399 / 0.9545), rel=0.02)


@pytest.mark.parametrize("layer", [nn.Linear(20, 50), nn.Linear(50, 20), nn.Conv2d(3, 16, 5), nn.Conv2d(2, 64, 3)])
def test_orthogonal_weights_are_orthogonal_by_rows_or_columns(layer: nn.Module) -> None:
    weight = filled("orthogonal", layer, gain="relu").flatten(1)
    rows, columns = weight.shape
    product = weight @ weight.T if rows <= columns else weight.T @ weight
    torch.testing.assert_close(product, 2 * torch.eye(min(rows, columns), dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.9, 1.0])
def test_sparse_weights_have_that_share_of_zeros_in_every_column(sparsity: float) -> None:
    weight = filled("sparse", nn.Linear(300, 200), sparsity=sparsity, std=0.5)
    assert ((weight == 0).sum(0) == round(200 * sparsity)).all()
    if sparsity < 1:
        assert weight[weight != 0].std().item() == pytest.approx(0.5, rel=0.03)


def test_eye_passes_inputs_on() -> None:
    assert torch.equal(filled("eye", nn.Linear(3, 5)), torch.eye(5, 3, dtype=torch.float64))


@pytest.mark.parametrize(("groups", "channels"), [(1, 6), (2, 3)])
def test_dirac_convolution_is_the_identity(groups: int, channels: int) -> None:
    layer = nn.Conv2d(6, 6, 3, padding=1, groups=groups, bias=False)
    assert filled("dirac", layer, groups=groups).shape[1] == channels
    images = torch.randn(2, 6, 8, 8)
    assert torch.equal(layer(images), images)


def test_the_courses_initialisation_is_four_lines() -> None:
    torch.manual_seed(0)
    network = ResNet(10, 20)
    initialize(network, from_yaml(COURSE))
    for layer in network.modules():
        if getattr(layer, "bias", None) is not None:
            assert (layer.bias == 0).all()
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
        if isinstance(layer, nn.Conv2d):
            std = math.sqrt(2 / (layer.weight[0].numel() + layer.weight[:, 0].numel()))
            assert layer.weight.std().item() == pytest.approx(std, rel=0.15)
        if isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.15)


def test_first_matching_rule_wins_and_the_rest_stay_bit_for_bit() -> None:
    network = LeNet(10)
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


def test_layer_is_found_by_a_class_that_it_inherits_from() -> None:
    class MyConv(nn.Conv2d):
        pass

    network = nn.Sequential(MyConv(1, 1, 3), nn.Linear(1, 1))
    initialize(network, [Initializer("constant", layer="Conv2d", arguments={"val": 7})])
    assert (network[0].weight == 7).all()
    assert (network[1].weight != 7).all()


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
        ([Initializer("sparse", layer="Conv2d", arguments={"sparsity": 0.5})], r"conv1\.weight of .*sparse\(sparsity"),
        ([Initializer("xavier_normal", pattern="fc1.bias")], r"fc1\.bias of shape \(120,\).*fewer than 2 dimensions"),
        ([Initializer("kaiming_uniform", pattern="*.bias")], r"conv1\.bias of shape \(6,\)"),
        ([Initializer("orthogonal", pattern="fc2.bias")], r"fc2\.bias of shape \(84,\)"),
        ([Initializer("dirac", layer="Linear")], r"fc1\.weight of shape \(120, 400\)"),
        ([Initializer("dirac", pattern="conv1.weight", arguments={"groups": 4})], "divisible by groups"),
        ([Initializer("normal", arguments={"std": -1})], r"normal\(std=-1\).*std >= 0"),
        ([Initializer("sparse", layer="Linear", arguments={"sparsity": 1.5})], "fraction from 0 to 1"),
        ([Initializer("xavier_normal", layer="Conv2d", arguments={"gain": "gelu"})], "nonlinearity gelu"),
        ([Initializer("normal", arguments={"std": "wide"})], r"normal\(std=wide\)"),
        ([Initializer("normal", layer="Conv3d")], r"layer 'Conv3d' and .* it matches none.*are Conv2d, Linear"),
        ([Initializer("normal", pattern="fc4.*")], r"'fc4\.\*'.*it matches none.*fc"),
        ([Initializer("normal"), Initializer("normal", pattern="fc3.*")], r"'fc3\.\*'.*earlier rules match all"),
    ],
)
def test_invalid_rule_is_reported_in_one_line(rules: list[Initializer], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message) as caught:
        initialize(LeNet(10), rules)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("xavier_normal", {"std": 1}, r"xavier_normal .* \(gain\), but got an unexpected keyword argument 'std'"),
        ("constant", {}, r"\(val\), but missing a required argument: 'val'"),
        ("eye", {"gain": 1}, r"\(none\), but .*'gain'"),
        ("xavier_normal", {"gain": "relu", "negative_slope": 0.1}, "negative_slope"),
        ("normal", {"negative_slope": 0.1}, "negative_slope"),
    ],
)
def test_arguments_are_those_of_torchs_function(method, arguments: dict, message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        Initializer(method, arguments=arguments)


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


def test_rules_in_yaml_keep_whole_numbers_and_words() -> None:
    text = "[{method: dirac, arguments: {groups: 2}}, {method: xavier_normal, arguments: {gain: relu}}]"
    dirac, xavier = from_yaml(text)
    assert dirac.arguments == {"groups": 2}
    assert isinstance(dirac.arguments["groups"], int)
    assert xavier.arguments == {"gain": "relu"}


def test_table_has_a_std_even_of_a_single_value() -> None:
    assert list(initializer_table(nn.PReLU(), []).columns[-1].cells) == ["0"]
