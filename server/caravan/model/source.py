"""From what the user wrote to a local model directory: the demo, a directory, or a Hub id."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # the base class of the HTTP library that this release of the client uses
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

import caravan
from caravan import __version__
from caravan.errors import ConfigError

_DESCRIPTIONS = ["*.json", "tokenizer.model"]
_WEIGHTS = ["*.safetensors"]
_SUBFOLDERS = ["*/*"]

DEMO = Path(caravan.__file__).parent / "demo_model"  # trained by training/, carried by the wheel


def resolve_model(model: str, *, weights: bool = True) -> Path:
    """The directory of a model; downloads it if it is not there yet.

    `model` is a directory, a Hub id such as "meta-llama/Llama-4-Scout-17B-16E-Instruct", or empty
    for the demo. Without `weights`, only configuration and tokenizer are downloaded. Raises
    ConfigError, with what to do, if there is no such model or it cannot be had.
    """
    if not model:
        return DEMO
    try:
        path = Path(model).expanduser()
        is_directory, exists = path.is_dir(), path.exists()
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{model}: this path cannot be read ({error})") from error
    if is_directory:
        return path
    if exists:
        raise ConfigError(
            f"{model} is a file; give the directory that holds config.json and *.safetensors"
        )
    return _download(model, weights=weights)


def _download(repo_id: str, *, weights: bool) -> Path:
    try:
        return Path(
            snapshot_download(
                repo_id,
                allow_patterns=_DESCRIPTIONS + (_WEIGHTS if weights else []),
                ignore_patterns=_SUBFOLDERS,
                library_name="caravan",
                library_version=__version__,
            )
        )
    except HFValidationError:
        raise ConfigError(
            f"{repo_id}: no such directory; give a model directory, or a Hub id of the form "
            "organization/name"
        ) from None
    except (HTTPError, EntryNotFoundError, OSError) as error:
        _explain(repo_id, error)


def _explain(repo_id: str, error: Exception) -> NoReturn:
    """Turns what the Hub's client raised into what the user can do about it."""
    if isinstance(error, GatedRepoError):
        todo = (
            "access to it is restricted; accept its licence on the Hub's page of the model, then "
            "log in with `hf auth login` or set HF_TOKEN"
        )
    elif isinstance(error, RepositoryNotFoundError):
        todo = (
            "there is no such directory here and no such model on the Hub, or it is private; check "
            "the name, and log in with `hf auth login` or set HF_TOKEN if it is private"
        )
    elif isinstance(error, RevisionNotFoundError):
        todo = "the Hub has the model, but without any files"
    elif isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        todo = (
            "there is no such directory here and no complete download of that model, and the Hub "
            "cannot be reached; check the network (and HF_HUB_OFFLINE), or give a directory"
        )
    elif isinstance(error, HfHubHTTPError):
        todo = f"the Hub answered with status {error.response.status_code}; try again later"
    else:
        reason = getattr(error, "strerror", None) or type(error).__name__
        todo = f"the download failed ({reason}); check disk space and network, and start again"
    raise ConfigError(f"{repo_id}: {todo}") from error
