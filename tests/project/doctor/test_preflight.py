from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from doctor_cases import FAULTS, HEALTHY, NETWORKS, Case, applies, data_of
from lightning.pytorch import Callback
from torch.optim.lr_scheduler import ExponentialLR

from project.cli.trial import TimeLapse
from project.doctor.data_checks import copies_facts, linear_facts, linear_skill, name_facts, patterns
from project.doctor.messages import report
from project.doctor.training_checks import batch_norm_images

QUICK = (  # one or two of each stage
    *("conflicting_labels", "val_bgr", "normalized_twice", "val_not_normalized", "detached", "in_a_list"),
    *("first_image", "mixes_wrongly", "divided_twice", "other_places", "normalizes_in_eval"),
    *("mixes_by_reshape", "zero_init", "softmax_twice", "shuffled_targets", "lr_too_high", "schedule_by_step"),
)
QUICK_HEALTHY = ("plain", "zero_head", "softmax_regression", "bce", "mixes_in_its_step")


@pytest.fixture(scope="session")
def where(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the digits, in which the shapes are drawn when they are first used."""
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "digits").symlink_to(sample_root)
    return folder


def alarm(case: str, where: Path, network: str = "lenet", data: str = "shapes") -> str | None:
    """Return the alarm of a planted fault or of a healthy run."""
    training = Case(NETWORKS[network], data_of(data, where))
    (FAULTS[case][1] if case in FAULTS else HEALTHY[case])(training)
    doctor = training.preflight()
    alarms = report(doctor.facts, doctor.failed, frozenset())["alarms"]
    return alarms[0]["cause"] if alarms else None


def expected(case: str) -> tuple[str, ...]:
    """Return the causes that are right for a planted fault."""
    cause = FAULTS[case][0]
    return (cause,) if isinstance(cause, str) else cause


@pytest.mark.parametrize("case", QUICK)
def test_a_planted_fault_is_named(case: str, where: Path) -> None:
    assert alarm(case, where) in expected(case)


@pytest.mark.parametrize("case", QUICK_HEALTHY)
def test_a_healthy_training_gives_no_alarm(case: str, where: Path) -> None:
    assert alarm(case, where) is None


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name in FAULTS if name not in QUICK])
def test_a_rarer_planted_fault_is_named(case: str, where: Path) -> None:
    network = next(name for name in NETWORKS if applies(case, name, "shapes"))
    assert alarm(case, where, network) in expected(case)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "shapes"])
@pytest.mark.parametrize("case", HEALTHY)
def test_a_healthy_training_of_any_kind_gives_no_alarm(case: str, data: str, where: Path) -> None:
    assert alarm(case, where, "lenet", data) is None


def test_linear_classifiers_show_wrong_labels_and_marks() -> None:
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(5, 3, 64, generator=generator)

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        targets = torch.arange(count) % 5
        return centers[targets] + torch.randn(count, 3, 64, generator=generator), targets

    (images, targets), val = split(500), split(300)
    assert abs(linear_facts(images, targets, *val)["linear_gap_z"]) < 2
    wrong = torch.where(torch.rand(500, generator=generator) < 0.4, (targets + 2) % 5, targets)
    assert linear_facts(images, wrong, *val)["linear_gap_z"] < -3
    marked = torch.randn(500, 3, 64, generator=generator)
    marked[torch.arange(500), 0, targets] += 20
    facts = linear_facts(marked, targets, *val)
    assert facts["linear_gap_z"] > 6
    assert facts["linear_skills"][1] < 0.3 * facts["linear_skills"][0]


def test_local_patterns_show_what_pixels_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(2, (400,), generator=generator)
    bars = torch.zeros(2, 1, 32, 32)
    bars[0, :, :2, :12] = bars[1, :, :12, :2] = 1  # each anywhere, so that all pixels have the same mean
    shifts = torch.randint(32, (400, 2), generator=generator).tolist()
    images = torch.stack([bars[each].roll(shift, (1, 2)) for each, shift in zip(targets, shifts, strict=True)])
    assert linear_skill(images, targets)[1] < 4
    assert linear_skill(patterns(images), targets)[1] > 8
    assert linear_skill(patterns(images), targets[torch.randperm(400, generator=generator)])[1] < 3


def test_copies_are_counted_by_their_pixels_and_labels() -> None:
    def split(rows: list[int], labels: list[int]) -> SimpleNamespace:
        images = torch.arange(90, dtype=torch.uint8).view(10, 1, 3, 3)[rows]
        targets = torch.tensor(labels)
        return SimpleNamespace(pixels=images, targets=targets, load=lambda each: (images[each], targets[each]))

    train, val = split([0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 0, 0]), split([2, 5], [0, 0])
    facts = copies_facts(train, val)
    assert facts["distinct_images"] == 3
    assert (facts["copies"], facts["most_copies"]) == (0.5, 3)
    assert facts["conflicting_duplicates"] == pytest.approx(2 / 6)
    assert facts["val_copies"] == 0.5


def test_names_of_classes_that_differ_only_in_form_are_found() -> None:
    assert name_facts(["ship", "Ships", "t-shirt", "tshirt"])["similar_pair"] == "ship and Ships, t-shirt and tshirt"
    assert name_facts(["1", "10", "glass", "glasses", "man", "woman", "C", "C#"])["similar_names"] == 0


def test_an_examination_changes_no_weight_mode_or_random_state(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from project.doctor import preflight

    states = []

    class Spy(preflight.PreFlight):
        def on_train_start(self, trainer, pl_module) -> None:
            def state() -> list:
                weights = [each.clone() for each in pl_module.state_dict().values()]
                rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
                return [*weights, [each.training for each in pl_module.modules()], torch.get_rng_state(), rates]

            states.append(state())
            super().on_train_start(trainer, pl_module)
            states.append(state())

    monkeypatch.setattr("doctor_cases.PreFlight", Spy)
    doctor = Case(NETWORKS["wide_resnet"], data_of("shapes", where)).preflight()
    assert not doctor.failed
    before, after = states
    for first, second in zip(before, after, strict=True):
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def test_a_short_training_takes_the_learning_rates_of_the_whole_schedule(where: Path) -> None:
    rates = []

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    training = Case(NETWORKS["lenet"], data_of("digits", where), callbacks=[TimeLapse(8), Rates()])
    training.settings = {"lr_scheduler": partial(ExponentialLR, gamma=0.1), "lr_interval": "epoch"}
    training.fit(epochs=4)
    assert rates == pytest.approx([0.05, 0.05, 5e-3, 5e-3, 5e-4, 5e-4, 5e-5, 5e-5])


@pytest.mark.parametrize("kind", [torch.nn.BatchNorm2d, torch.nn.SyncBatchNorm])
def test_few_images_harm_only_batch_norm_that_sees_no_others(kind: type) -> None:
    expected = 2 if kind is torch.nn.BatchNorm2d else float("inf")
    assert batch_norm_images(torch.nn.Sequential(kind(3)), 2) == expected
