"""Folders of the Hugging Face hub, by name, in huggingface_hub's own cache."""

import pathlib

PREFIX = "hub:"

FILES = (
    "config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "1_Pooling/config.json",
    "preprocessor_config.json",
)
"""All that is ever fetched: weights in safetensors and JSON, no code and no pickles."""


def fetch(name: str) -> pathlib.Path:
    """Returns the folder of a model on the hub; from the cache if it is there, else over the
    network.

    Args:
      name: `hub:OWNER/MODEL`, or `hub:OWNER/MODEL@REVISION` for a branch, tag or commit.

    Raises:
      ValueError: if the name is malformed, there is no such model, or it is not cached and the hub
        can't be reached.
    """
    import huggingface_hub
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    if repository.count("/") != 1:
        raise ValueError(f"{name!r} must be {PREFIX}OWNER/MODEL or {PREFIX}OWNER/MODEL@REVISION")
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=list(FILES)
            )
        )
    except RepositoryNotFoundError:
        raise ValueError(f"the hub has no public model {repository!r}") from None
    except HFValidationError as error:
        raise ValueError(f"{name!r} is no name of a model: {error}") from None
    except (LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{repository!r} is not in the hub's cache and can't be fetched now: fetch it once"
            f" while online, or give a"
            f" folder ({type(error).__name__})"
        ) from None
