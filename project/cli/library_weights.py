"""Networks of timm by name in configs, and the published weights that a config asks for."""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightning_modules.networks.build import library_function
from lightning_modules.networks.library import TIMM
from lightning_modules.weights.published import HUB, Published, published_weights
from project.errors import RunError, did_you_mean, shortened
from project.resume.resume import facts_of_weights

ZOO = "lightning_modules.networks.ZooNetwork"


def expand_timm(content: Any) -> Any:
    """Return the content of a config, or of an option, in which ``timm:NAME`` as a network is a ``ZooNetwork``."""
    if isinstance(content, str) and content.startswith(TIMM):
        return {"class_path": ZOO, "init_args": {"function": content}}
    for key, value in content.items() if isinstance(content, dict) else ():
        if key in ("model", "init_args", "network") and (isinstance(value, dict) or key == "network"):
            content[key] = expand_timm(value)
    return content


def find_published(config: Namespace) -> Published | None:
    """Return the published weights that a config loads; None if it loads a file, a checkpoint, or nothing.

    A network of the Hugging Face Hub is replaced by its architecture, so that its checkpoints do not need the Hub.

    Raises:
        MisconfigurationException: There are no weights with this name for the network.
        RunError: The file or the network does not exist, the description of one on the Hub cannot be downloaded, or the
            stem would be adapted to small images.
    """
    settings = config.model.get("init_args") or Namespace()
    network, name = settings.get("network"), settings.get("pretrained")
    function = _function(network) if network is not None else None
    if function is not None and function.startswith(f"{TIMM}{HUB}"):
        repository = function.removeprefix(TIMM)
        function, network.init_args.arguments = _of_hub(repository, network.init_args.get("arguments"))
        network.init_args.function = function
        if name == "DEFAULT":
            settings.pretrained = name = repository
    if function is not None and function.startswith(TIMM):
        _check_timm(function.removeprefix(TIMM))
    if name is None or config.ckpt_path is not None:
        return None
    if Path(name).is_file():
        if function is not None:
            _adapt_stem_as_before(settings, function, name)
        return None
    if function is None:
        raise RunError(f"Expected a file of weights at --model.pretrained, but {name} does not exist.")
    published = published_weights(function, name)
    if isinstance(network, Namespace) and network.get("init_args.adapt_stem"):
        raise RunError(
            f"Expected adapt_stem false for {published.name}, which match only the original stem, but got true. Train "
            "on larger images instead: --data.image_size."
        )
    return published


def normalization_of(config: Namespace, published: Published | None) -> dict[str, Any]:
    """Return mean and std of the weights from which ``--data.normalize pretrained`` starts, {} with another value.

    Raises:
        RunError: They are unknown.
    """
    if config.data.get("init_args.normalize") != "pretrained":
        return {}
    name = config.get("model.init_args.pretrained")
    known: dict[str, Any] = {}
    if published is not None:
        known = {"mean": published.mean, "std": published.std}
    elif name is not None:
        known = facts_of_weights(name).get("hyper_parameters") or {}
    if not all(isinstance(known.get(key), list) for key in ("mean", "std")):
        raise RunError(
            "Expected published weights, or a checkpoint of this project, at --model.pretrained for --data.normalize "
            f"pretrained, but got {name or 'none'}. Use --data.normalize true for mean and std of your images."
        )
    return {"class_names": None, "class_counts": None, "mean": known["mean"], "std": known["std"]}


def _adapt_stem_as_before(settings: Namespace, function: str, file: str) -> None:
    """Adapt the stem of a library's network if ``file`` is a checkpoint of this project, in which it was adapted."""
    before = facts_of_weights(file).get("hyper_parameters") or {}
    if not before or before.get("pretrained") is not None:
        return
    network = settings.network
    if not isinstance(network, Namespace) or network.class_path != ZOO:
        arguments = vars(network.get("init_args") or Namespace()) if isinstance(network, Namespace) else {}
        network = Namespace(class_path=ZOO, init_args=Namespace(function=function, arguments=dict(arguments)))
        settings.network = network
    if network.init_args.get("adapt_stem") is None:
        network.init_args.adapt_stem = True


def _function(network: Any) -> str | None:
    """Return the ``function`` with which ``ZooNetwork`` builds the network of a config, if it does."""
    if isinstance(network, Namespace):
        module, _, name = network.class_path.rpartition(".")
        network_class = getattr(importlib.import_module(module), name)
        network = partial(network_class, **vars(network.get("init_args") or Namespace()))
    return library_function(network)


def _of_hub(repository: str, arguments: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Return ``function`` and ``arguments`` of a network of timm on the Hugging Face Hub, from its config.json."""
    import timm  # it takes a second

    try:
        _, architecture, own = timm.models.load_model_config_from_hf(repository.removeprefix(HUB))
    except Exception as error:  # of the network, the disk, or the library
        raise RunError(f"Expected a network of timm at {TIMM}{repository}, but {shortened(error)}") from error
    return f"{TIMM}{architecture}", {**(own or {}), **(arguments or {})}


def _check_timm(name: str) -> None:
    """Check that timm has a network, before data is prepared for it."""
    import timm  # it takes a second

    if ":" not in name and not timm.is_model(name.partition(".")[0]):
        hint = did_you_mean(name, timm.list_models(), f"{TIMM}{{}}")
        raise RunError(f"Expected a network of timm, but it has no {name}.{hint}")
