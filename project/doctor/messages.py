"""The result of a diagnosis in words: for the terminal, and for doctor.json."""

from typing import Any, NamedTuple

from project import __version__
from project.doctor.causes import ALARM, CAUSES, Finding, diagnose, excluded, unknown
from project.doctor.symptoms import RANGES, Range, symptoms

Facts = dict[str, Any]


class Message(NamedTuple):
    """What a cause means, and what to change: an option with a value, or else a text; with facts in braces."""

    says: str
    why: str
    text: str | None = None
    option: str | None = None
    value: str | None = None


NEEDED = {"data", "gradients", "trial", "examination"}  # steps without which nothing is called healthy
LR, DECAY = "model.optimizer.lr", "model.optimizer.weight_decay"
FILES = "Compare the files and transforms of train and val, for example with `python -m project preview`."
MESSAGES = {
    "constant_images": Message(
        "Some training images have only one colour.",
        "Nothing can be learned from them but a wrong label.",
        "Look for broken files, or for a transform that clears images.",
    ),
    "leak": Message(
        "Many validation images are almost the same as training images.",
        "Accuracy on val then measures memory, not what happens on new images.",
        "Split by group: all images of one scene, person or video into one split (index files train.txt, val.txt).",
    ),
    "shifted_split": Message(
        "Validation images differ from training images.",
        "A linear classifier finds out from 8x8 pixels of which split an image is.",
        "If this is not intended, split all images at random, for example by --data.fractions '[0.8,0.1,0.1]'.",
    ),
    "conflicting_labels": Message(
        "Identical images have different labels.",
        "No network can get both right.",
        "Give each image one label, or remove the copies.",
    ),
    "permuted_labels": Message(
        "The labels of val do not mean the same classes as those of train.",
        "A linear classifier of train is right on val once its classes are renamed.",
        "Correct the mapping from class to label in val.txt or the DataModule: one order of classes for both.",
    ),
    "nan_images": Message(
        "Images contain NaN or infinite values when they reach the network.",
        "One of them makes all weights NaN.",
        "Find the transform that divides by zero or takes a logarithm.",
    ),
    "swapped_channels": Message(
        "Validation images have red and blue exchanged.",
        "The mean colours of val are those of train in reverse order.",
        "Read both splits as RGB, with one reader.",
    ),
    "val_normalization": Message(
        "Validation images reach the network on another scale than training images.",
        "The network is validated on inputs that it was not trained on.",
        "Normalise both splits alike: --data.normalize true, and no scaling in train_transforms or eval_transforms.",
    ),
    "val_brightness": Message(
        "Validation images are darker or brighter than training images.",
        "The network is validated on inputs that it was not trained on.",
        FILES,
    ),
    "augmented_normalization": Message(
        "Augmentation changes the scale of the training images.",
        "The network is validated on inputs that it was not trained on.",
        "Remove scaling and normalising from batch_transforms and train_transforms: it is done after them.",
    ),
    "large_inputs": Message(
        "The values that reach the network are too large.",
        "They are not normalised, or normalised twice.",
        "Set --data.normalize true, and remove scaling and Normalize from the transforms and from the network.",
    ),
    "small_inputs": Message(
        "The values that reach the network are too small.",
        "They were probably divided by 255 twice.",
        "Set --data.normalize true, and remove scaling from the transforms and from the network.",
    ),
    "loss_detached": Message(
        "The loss has no gradient, so nothing can be trained.",
        "Something between parameters and loss detaches: detach(), no_grad(), item(), argmax() or NumPy.",
        "Remove it from the network's forward or from the loss.",
    ),
    "unregistered_layers": Message(
        "The network uses {unregistered_values:,} values that receive gradients, but are no parameters of it.",
        "Layers in a plain list or dict, or tensors, are neither trained, nor saved, nor moved to the GPU.",
        "Use nn.ModuleList, nn.ModuleDict, nn.ParameterList or nn.Parameter.",
    ),
    "not_optimized": Message(
        "The optimizer does not get all parameters of the network.",
        "The others stay as they are.",
        "Give all parameters to the optimizer in configure_optimizers.",
    ),
    "frozen_by_accident": Message(
        "Much of the network is frozen at random values.",
        "The frozen weights are distributed as an initializer leaves them; pretrained ones have heavier tails.",
        "Remove freeze from --model.param_groups and requires_grad_(False) from the network, or load weights with "
        "--model.pretrained FILE.",
    ),
    "detached_layers": Message(
        "Layers get no gradient: {no_gradient_names}.",
        "They are used, but their gradient is zero after 5 steps of Adam, too.",
        "Look for detach(), no_grad(), argmax() or a factor of 0 after them in forward.",
    ),
    "ignores_input": Message(
        "The outputs do not depend on the image.",
        "They are the same for all images, also after 5 steps of Adam.",
        "Check in forward that each layer gets the output of the one before, and that nothing overwrites it.",
    ),
    "ignores_pixels": Message(
        "The outputs depend on a part of the pixels only.",
        "The gradient of the other pixels is zero for all images.",
        "Check slices, strides and padding in forward. If it crops on purpose, silence this.",
    ),
    "mixes_images": Message(
        "The output for an image depends on the other images of the batch, in eval mode.",
        "Usually a reshape or view that takes from the batch dimension.",
        "Use flatten(1), and permute instead of reshape to exchange dimensions, in forward.",
    ),
    "no_activation": Message(
        "The network has no activation function: it is one linear layer in effect.",
        "Without max-pooling, the output for the sum of two images is the sum of their outputs.",
        "Put an activation such as nn.ReLU between the layers.",
    ),
    "symmetric_init": Message(
        "All units of a layer have the same weights: {symmetric_names}.",
        "They then get the same gradient, and stay the same after 5 steps of Adam.",
        None,
        "model.initializers",
        "[{{method: kaiming_normal, layer: Conv2d}}, {{method: kaiming_normal, layer: Linear}}]",
    ),
    "init_too_large": Message(
        "The initial weights are too large.",
        "The first loss is far above that of guessing, although the inputs are normalised.",
        None,
        "model.initializers",
        "[{{method: kaiming_normal, layer: Conv2d}}, {{method: kaiming_normal, layer: Linear}}]",
    ),
    "init_too_small": Message(
        "The initial weights are too small.",
        "What distinguishes two images fades from the first to the last layer.",
        None,
        "model.initializers",
        "[{{method: kaiming_normal, layer: Conv2d}}, {{method: kaiming_normal, layer: Linear}}]",
    ),
    "loss_not_finite": Message(
        "The first loss is NaN or infinite.",
        "Images and outputs are finite, so it comes from the loss or the network.",
        "Look for a logarithm or a division without a lower bound.",
    ),
    "softmax_twice": Message(
        "The network returns probabilities, but the loss expects logits.",
        "The loss applies a softmax again, so that right outputs keep {simplex_floor:.0%} of the loss of guessing.",
        "Remove the softmax from the end of the network.",
    ),
    "bounded_outputs": Message(
        "The outputs are limited to 0..1, but the loss expects logits.",
        "Right outputs keep {simplex_floor:.0%} of the loss of guessing.",
        "Remove the sigmoid from the end of the network.",
    ),
    "rectified_outputs": Message(
        "A ReLU follows the last layer.",
        "Logits that it sets to 0 get no gradient.",
        "Remove the ReLU from the end of the network.",
    ),
    "rewards_errors": Message(
        "The loss is lower for wrong classes than for the right one.",
        "It has the wrong sign, or compares with other targets.",
        "Correct sign and targets in the loss.",
    ),
    "wrong_objective": Message(
        "The loss falls, but accuracy does not rise, on the same {trial_images} images.",
        "The loss compares outputs with something else than the labels, or pairs them in another order.",
        "Check which targets the loss gets in training_step and in the loss itself.",
    ),
    "smoothing_too_high": Message(
        "The loss hardly distinguishes right from wrong outputs.",
        "Training can remove only {loss_range:.0%} of the loss of guessing.",
        None,
        "model.loss.label_smoothing",
        "0.1",
    ),
    "loss_is_sum": Message(
        "The loss is a sum over the batch, and the learning rate is too high for it.",
        "It doubles with the batch, and its gradient too; with a lower rate, the trial learns.",
        None,
        "model.loss.reduction",
        "mean",
    ),
    "clip_too_tight": Message(
        "Gradients are clipped so much that nothing is learned.",
        "Without clipping, the trial learns.",
        None,
        "trainer.gradient_clip_val",
        "1.0",
    ),
    "weight_decay_too_strong": Message(
        "Weight decay is too strong.",
        "Without it, the trial learns.",
        None,
        DECAY,
        "0.0005",
    ),
    "weights_forgotten": Message(
        "Weight decay times learning rate is too large.",
        "A weight is forgotten after {memory:.0f} steps.",
        None,
        DECAY,
        "0.0005",
    ),
    "momentum_too_high": Message(
        "Momentum is too high.",
        "The optimizer averages over {averaged:.0f} steps, so it overshoots by as many.",
        "Set --model.optimizer.momentum 0.9, or for Adam --model.optimizer.betas '[0.9,0.999]'.",
    ),
    "eps_too_large": Message(
        "eps of the optimizer is larger than the gradients.",
        "Steps then shrink with the gradients; with 1e-8, the trial learns.",
        None,
        "model.optimizer.eps",
        "1e-8",
    ),
    "lr_too_high": Message(
        "The learning rate is too high.",
        "The loss of the same {trial_images} images does not fall; with {repair_factor_down:g} times the rate it does.",
        None,
        LR,
        "{lower_lr:.2g}",
    ),
    "lr_too_low": Message(
        "The learning rate is too low for the length of the training.",
        "The loss of {trial_images} images does not fall; with {repair_factor_up:g} times the rate it does.",
        None,
        LR,
        "{higher_lr:.2g}",
    ),
    "cannot_memorize": Message(
        "The network cannot memorise {trial_images} images.",
        "Neither its optimizer nor Adam with two learning rates reduces the loss.",
        "Look at forward and loss, layer by layer; `fit --config configs/debug.yaml` shows the loss of one batch.",
    ),
    "lr_zero_early": Message(
        "The learning rate is almost zero for most of the first half.",
        "The schedule ends long before the training, or begins after it.",
        "Set the length of the schedule to that of the training; --model.lr_interval epoch if it counts epochs.",
    ),
    "peak_too_late": Message(
        "The learning rate reaches its peak late in the training.",
        "Little time is left to train at the peak and to settle.",
        "Shorten the warm-up: WarmupCosine's warmup, OneCycle's pct_start, or its total_steps.",
    ),
    "batch_too_small": Message(
        "Batch norm computes its statistics over few images.",
        "They are noisy, and differ from those of evaluation.",
        None,
        "data.batch_size",
        "32",
    ),
    "eval_without_effect": Message(
        "Parts of the network stay in training mode after eval().",
        "Dropout and batch norm then disturb validation and prediction.",
        "Do not override train() or eval(), and do not set training in forward.",
    ),
    "norms_use_batches": Message(
        "Batch norms have no running statistics.",
        "The output for an image depends on the other images of the batch, also in eval mode.",
        "Remove track_running_stats=False.",
    ),
    "noisy_evaluation": Message(
        "Two evaluations of the same images differ.",
        "Something random stays on in eval mode.",
        "Use nn.Dropout, or pass training=self.training to F.dropout.",
    ),
}


def report(facts: Facts, failed: dict[str, str], silenced: frozenset[str]) -> dict[str, Any]:
    """Return the content of doctor.json: one alarm at most, and two alternatives."""
    found = symptoms(facts)
    entries = [_entry(each, facts, found) for each in diagnose(found, silenced)]
    not_checked = [*unknown(found), *(f"{name} ({reason[:100]})" for name, reason in failed.items())]
    unexplained = NEEDED & failed.keys() or (found.get("trial_fails", 0.0) >= ALARM and not silenced)
    return {
        "verdict": "alarm" if entries else "too_early" if unexplained else "healthy",
        "alarms": entries[:1],
        "alternatives": entries[1:3],
        "notes": notes(facts) + [f"{name} is silenced." for name in sorted(silenced)],
        "not_checked": [*not_checked, "all that only training shows, such as overfitting"],
        "version": __version__,
    }


def _entry(finding: Finding, facts: Facts, found: dict[str, float]) -> dict[str, Any]:
    cause, message = CAUSES[finding.cause], MESSAGES[finding.cause]
    words = _words(facts)
    ranges = [RANGES[name] for name in cause.needs]
    remedy: dict[str, Any] = {"text": message.text}
    if message.option is not None:
        remedy = {"option": message.option, "value": str(message.value).format(**words)}
    return {
        "cause": finding.cause,
        "family": cause.family,
        "confidence": finding.confidence,
        "says": message.says.format(**words),
        "why": message.why.format(**words),
        "evidence": {each.fact: facts[each.fact] for each in ranges},
        "healthy": {each.fact: healthy(each) for each in ranges},
        "remedy": remedy,
        "ruled_out": [name for name in excluded(found, cause.stage) if name != finding.cause],
        "tried": None,
    }


def _words(facts: Facts) -> dict[str, Any]:
    """Return the facts as they are named in messages."""
    words = {key: ", ".join(value[:3]) if isinstance(value, list) else value for key, value in facts.items()}
    lr = facts.get("lr") or 0.0
    words["lower_lr"] = lr * (facts.get("repair_factor_down") or 1.0)
    # the trial with this factor amounts to the whole training
    words["higher_lr"] = lr * max((facts.get("repair_factor_up") or 1.0) / 3, 3)
    words["memory"] = 1 / max(facts.get("decay_per_step") or 1.0, 1e-9)
    words["averaged"] = 1 / max(1 - (facts.get("momentum") or 0.0), 1e-9)
    return words


def healthy(limits: Range) -> str:
    """Return the healthy range of a fact in words."""
    return f"at {'most' if limits.healthy < limits.sick else 'least'} {limits.healthy:g}"


def notes(facts: Facts) -> list[str]:
    """Return what is worth knowing, but no alarm."""
    lines = []
    if facts.get("imbalance", 1.0) > 10:
        ratio = f"{facts['imbalance']:.0f}"
        lines.append(f"The largest class has {ratio} times the images of the smallest; see --data.sampler balanced.")
    if (images := facts.get("val_images")) and 98 / images**0.5 > 3:
        lines.append(
            f"{images} validation images: accuracy is known to about {98 / images**0.5:.0f} points; see --data.folds."
        )
    if facts.get("linear_z", 9.0) < 3:
        lines.append("A linear classifier learns nothing from 8x8 pixels: check that labels belong to their images.")
    if facts.get("layers", 2) < 2:
        lines.append("The network is one linear layer (softmax regression).")
    if facts.get("unused_names"):
        lines.append(f"Layers that forward does not use: {', '.join(facts['unused_names'][:3])}.")
    if facts.get("is_constant") and facts.get("planned_steps", 0) > 100:
        lines.append("The learning rate is constant; a schedule that falls to 0 usually gives better results.")
    elif facts.get("end_of_peak", 0.0) > 0.5:
        lines.append(f"The learning rate ends at {facts['end_of_peak']:.0%} of its peak.")
    return lines


def terminal(result: dict[str, Any], checked: int) -> list[str]:
    """Return at most 15 lines about a result."""
    lines = []
    for alarm in result["alarms"]:
        remedy = alarm["remedy"]
        change = remedy.get("text") or f"--{remedy['option']} {_quoted(remedy['value'])}"
        numbers = ", ".join(
            f"{name} {_number(value)} (healthy: {alarm['healthy'][name]})" for name, value in alarm["evidence"].items()
        )
        lines += [
            f"Alarm ({alarm['confidence']}): {alarm['cause']}",
            f"  {alarm['says']}",
            f"  Found      {numbers}",
            f"  Why        {alarm['why']}",
            f"  Change     {change}",
            f"  Ruled out  {', '.join(alarm['ruled_out'][:6]) or 'nothing'}",
            f"  Silence    --silence {alarm['cause']}",
        ]
    if not lines:
        healthy = f"Healthy: none of {checked} causes was found."
        early = "Too early to tell: no cause was found, but checks failed, or the trial learned nothing."
        lines.append(healthy if result["verdict"] == "healthy" else early)
    for other in result["alternatives"]:
        lines.append(f"Or ({other['confidence']}): {other['cause']}. {other['says']}")
    lines += [f"Note: {note}" for note in result["notes"][:3]]
    lines.append(f"Not checked: {', '.join(result['not_checked'])}."[:240])
    return lines


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def _quoted(value: str) -> str:
    return f"'{value}'" if " " in value else value
