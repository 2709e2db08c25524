"""Files of the Hugging Face hub: from its cache as they are, else downloaded; a missing network is noticed at once."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

from unic.core.errors import ConfigError, first_line

_ANSWER_SECONDS = 5


def hub_file(repo: str, *names: str, reference: str) -> Path | None:
    """The first of these files of a repository that the cache has, else the first that the hub has; or None.

    reference: what the user asked for. Raises FileNotFoundError when the hub cannot be asked, or refuses.
    """
    try:
        cached = [try_to_load_from_cache(repo, name) for name in names]
    except HFValidationError as error:
        raise ConfigError(
            f"{reference}: {repo!r} is neither a folder here nor the name of a repository"
        ) from error
    for path in cached:
        if isinstance(path, str):
            return Path(path)
    for name, entry in zip(names, cached, strict=True):
        if entry is not None:  # the cache's note that the repository has no such file
            continue
        ask_hub(repo, name, reference=reference)
        try:
            return Path(hf_hub_download(repo, name))
        except LocalEntryNotFoundError as error:
            raise FileNotFoundError(_sentence(repo, name, reference, error)) from error
        except EntryNotFoundError:  # hf_hub_download has noted it in the cache
            continue
    return None


def ask_hub(repo: str, name: str, *, reference: str) -> None:
    """Asks the hub for a file once: its own clients repeat the question for half a minute for every file.

    Raises FileNotFoundError with what to do when there is no answer; that there is no such file is an answer.
    """
    try:
        get_hf_file_metadata(hf_hub_url(repo, name), timeout=_ANSWER_SECONDS)
    except EntryNotFoundError:
        return
    except Exception as error:  # the client's errors have no common base that is the same in all its versions
        raise FileNotFoundError(_sentence(repo, name, reference, error)) from error


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Keeps transformers from drawing a bar for every file it reads or writes."""
    try:
        from transformers.utils import logging
    except ImportError as error:
        raise ImportError("this needs transformers: pip install 'unic[hf]'") from error
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _sentence(repo: str, name: str, reference: str, error: Exception) -> str:
    return (
        f"{reference}: not in the hub's cache, and the hub gives no {name} of {repo} ({first_line(error)}); "
        f"check the name and the network, or download it elsewhere and give its path instead"
    )
