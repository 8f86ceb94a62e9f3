"""Weights that torchvision and timm publish: which there are, their mean, std and image size, and their download."""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchvision.models import get_model_weights
from torchvision.models.vision_transformer import interpolate_embeddings

from lightning_modules.networks.library import TIMM, create
from lightning_modules.weights.safe_load import LoadError, load_safely

HUB = "hf-hub:"  # before the name of a repository on the Hugging Face Hub, as in timm
OPTION = "--model.pretrained"


@dataclass
class Published:
    """Published weights of a network.

    Attributes:
        name: Such as "ResNet18_Weights.IMAGENET1K_V1", or "convnext_atto.d2_in1k" in timm.
        url: Address of the file.
        file: Where it is read from if it exists; torchvision also downloads it to there.
        mean: Mean of R, G and B with which the network was trained, on the scale of 0 to 1.
        std: Standard deviation of R, G and B with which the network was trained, on the scale of 0 to 1.
        image_size: Side in pixels of the images on which it was trained.
        read: Returns the network's tensors by name, fitted to images of a size; downloads them first if necessary.
    """

    name: str
    url: str
    file: Path
    mean: list[float]
    std: list[float]
    image_size: int
    read: Callable[[int], dict[str, Tensor]]

    def load(self, image_size: int) -> dict[str, Tensor]:
        """Return the network's tensors by name, without those that are not finite, such as VGG16's classifier.

        Position embeddings of vision transformers are interpolated for ``image_size``.

        Raises:
            MisconfigurationException: They cannot be downloaded, or the file is damaged.
        """
        try:
            weights = self.read(image_size)
        except Exception as error:  # of the network, the disk, or the library
            reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
            if self.file.is_file():
                problem = reason if isinstance(error, LoadError) else f"cannot be loaded: {reason}"
                raise MisconfigurationException(
                    f"Expected the weights {self.name}, but {self.file} {problem}. Delete it to download it again."
                ) from error
            raise MisconfigurationException(
                f"The weights {self.name} cannot be downloaded: {reason}. Try again, or download {self.url} on another "
                f"machine and save it as {self.file}."
            ) from error
        return {name: value for name, value in weights.items() if value.isfinite().all()}


def published_weights(function: str, name: str) -> Published:
    """Return published weights of a network, without downloading them.

    Args:
        function: As for ``ZooNetwork``.
        name: "DEFAULT", or a member of torchvision's enum, with or without "ResNet18_Weights." before it, or a tag of
            timm, with or without "resnet18." before it, or "hf-hub:" and a repository with a model of timm, whose
            config.json is downloaded.

    Raises:
        MisconfigurationException: The network has no such weights.
    """
    return _of_timm(function, name) if function.startswith(TIMM) else _of_torchvision(function, name)


def _of_torchvision(function: str, name: str) -> Published:
    module, _, builder_name = function.rpartition(".")
    builder = pkgutil.resolve_name(f"{module}:{builder_name}")
    try:
        known = get_model_weights(builder)
    except ValueError as error:  # it has no argument `weights`
        raise _unknown(function, name, []) from error
    *owner, member = name.split(".")
    if member not in known.__members__ or (owner and owner[-1] != known.__name__):
        raise _unknown(function, name, [f"{known.__name__}.{each}" for each in known.__members__])
    weights = known[member]
    preset = weights.transforms()
    mean, std = list(preset.mean), list(preset.std)
    if builder_name in ("googlenet", "inception_v3"):  # with weights, they change the scale of their input to this one
        mean = std = [0.5, 0.5, 0.5]
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    read = partial(_read_torchvision, builder, weights, file)
    return Published(f"{known.__name__}.{weights.name}", weights.url, file, mean, std, preset.crop_size[0], read)


def _read_torchvision(builder: Callable[..., Any], weights: Any, file: Path, image_size: int) -> dict[str, Tensor]:
    if not file.is_file():
        rank_zero_info(f"Downloading {weights.url} to {file}.")
        file.parent.mkdir(parents=True, exist_ok=True)
        digest = torch.hub.HASH_REGEX.search(file.name)
        torch.hub.download_url_to_file(weights.url, str(file), digest and digest[1])
    load_safely(file)  # torchvision would run code in it
    state = builder(weights=weights).state_dict()  # some files have the names of an earlier version
    if "encoder.pos_embedding" in state:
        state = interpolate_embeddings(image_size, state["conv_proj.weight"].shape[-1], state)
    return state


def _of_timm(function: str, name: str) -> Published:
    import timm  # it takes a second
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import ENDPOINT

    architecture, _, tag = function.removeprefix(TIMM).partition(".")
    if name.startswith(HUB):
        config, found, _ = timm.models.load_model_config_from_hf(name.removeprefix(HUB))
        if found != architecture:
            raise _unknown(function, f"{name}, of a {found}", [])
    else:
        cfgs = timm.models.get_arch_pretrained_cfgs(architecture)
        known = [key for key, cfg in cfgs.items() if cfg.has_weights]
        if name == "DEFAULT" and known:
            name = tag or known[0]
        name = name if name in known else f"{architecture}.{name}"
        if name not in known:
            raise _unknown(function, name, known)
        config = cfgs[name].to_dict()
    repository, url = config.get("hf_hub_id"), config.get("url") or ""
    file, cached = Path(torch.hub.get_dir(), "checkpoints") / url.rpartition("/")[2], None
    if repository:  # timm prefers it
        filename = config.get("hf_hub_filename") or "model.safetensors"
        url = f"{ENDPOINT}/{repository}/resolve/main/{filename}"
        file = Path(torch.hub.get_dir(), "checkpoints", f"{name.rpartition('/')[2]}.safetensors")
        cached = partial(try_to_load_from_cache, repository, filename)
    resolved = timm.data.resolve_data_config(pretrained_cfg=config)
    read = partial(_read_timm, name, file, cached)
    return Published(name, url, file, list(resolved["mean"]), list(resolved["std"]), resolved["input_size"][-1], read)


def _read_timm(name: str, file: Path, cached: Callable[[], Any] | None, image_size: int) -> dict[str, Tensor]:
    path = file if file.is_file() else cached and cached()  # without asking the Hub for a newer one
    own = {"file": str(path), "source": "", "custom_load": False} if path else None
    if own is None:
        rank_zero_info(f"Downloading the weights {name}.")
    network = create(f"{TIMM}{name}", {"pretrained": True, "pretrained_cfg_overlay": own}, image_size)
    return network.state_dict()


def _unknown(function: str, name: str, known: Sequence[str]) -> MisconfigurationException:
    """Return the error that a network has no published weights with this name."""
    if not known:
        return MisconfigurationException(
            f"Expected a file of weights at {OPTION}, because none are published for {function}, but {name} is no file."
        )
    near = get_close_matches(name, known, 4, cutoff=0.1) or known[:4]
    return MisconfigurationException(
        f"Expected a file or published weights of {function} at {OPTION}, but got {name}. Use DEFAULT, or another of "
        f"{len(known)}, such as {', '.join(near)}."
    )
