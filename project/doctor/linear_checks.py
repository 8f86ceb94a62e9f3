"""Facts from linear classifiers of reduced images, which hardly memorise."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from project.doctor.symptoms import deviation

RIDGE, FOLDS = 0.1, 5  # the penalty is in units of the number of images


def linear_skill(images: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the accuracy of a linear classifier on held-out images, and its distance from guessing in deviations."""
    x, y = standardized(images), F.one_hot(targets).double()
    predicted = torch.zeros_like(y)
    for rows, weights in classifiers(x, y):
        predicted[rows] = F.one_hot((x[rows] @ weights).argmax(1), y.shape[1]).double()
    accuracy, guessed = (y * predicted).sum(1).mean(), (y.mean(0) * predicted.mean(0)).sum()
    deviation = (guessed * (1 - guessed) / len(y)).sqrt().clamp_min(1e-9)
    return float(accuracy), float((accuracy - guessed) / deviation)


def label_facts(train: Tensor, targets: Tensor, val: Tensor, val_targets: Tensor) -> dict[str, Any]:
    """Return whether linear classifiers are as good on val as on images of train that they have not seen.

    They are better on val if labels of train are wrong, and much worse if images of train show their class by a mark.
    """
    classes = max(int(torch.cat([targets, val_targets]).max()) + 1, 2)
    x, of_val = standardized(train), standardized(val)  # each by its own mean and scale
    own, on_val = [], []
    for rows, weights in classifiers(x, F.one_hot(targets, classes).double()):
        own.append((x[rows] @ weights).argmax(1) == targets[rows])
        on_val.append((of_val @ weights).argmax(1) == val_targets)
    accs = [float(torch.cat(each).double().mean()) for each in (own, on_val)]
    noise = deviation(accs[0], accs[1], [1 / len(train), 1 / len(val)])
    skills = [max(acc - 1 / classes, 0.0) / (1 - 1 / classes) for acc in accs]
    return {"linear_gap_z": (accs[0] - accs[1]) / noise, "linear_skills": skills}


def standardized(images: Tensor) -> Tensor:
    """Return images as standardised rows, with a column of ones."""
    rows = images.flatten(1).double()
    return torch.cat([(rows - rows.mean(0)) / (rows.std(0) + 1e-9), torch.ones(len(rows), 1)], 1)


def classifiers(rows: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield which rows a linear classifier has not seen, and its weights in closed form, for each of five parts."""
    part = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)) % FOLDS
    for number in range(FOLDS):
        known, targets = rows[part != number], labels[part != number]
        penalty = RIDGE * len(known) * torch.eye(rows.shape[1], dtype=rows.dtype)
        yield part == number, torch.linalg.solve(known.T @ known + penalty, known.T @ targets)
