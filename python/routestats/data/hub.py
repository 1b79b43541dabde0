"""Whether a repository on the hub can be had, found out in seconds.

The hub's client retries a download for half a minute when there is no network, and an engine asks
several times over.
"""

from __future__ import annotations

from routestats.errors import DataError

TIMEOUT_S = 5


def check_reachable(repo: str, file: str, *, repo_type: str = "model", otherwise: str) -> None:
    """Return if `file` of `repo` lies in the local cache or the hub answers for the repository.

    Parameters
    ----------
    repo, file : str
    repo_type : {"model", "dataset"}
    otherwise : str
        What a user can do instead; the end of the error's line.

    Raises
    ------
    DataError
        If neither is so.
    """
    try:
        from huggingface_hub import HfApi, constants, try_to_load_from_cache
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
    except ImportError:
        raise DataError(
            f"{repo}: needs the package huggingface-hub, which is not installed; {otherwise}"
        ) from None
    if isinstance(try_to_load_from_cache(repo, file, repo_type=repo_type), str):
        return
    if constants.HF_HUB_OFFLINE:
        raise DataError(
            f"{repo}: is not in the local cache, and HF_HUB_OFFLINE is set; {otherwise}"
        )
    try:
        HfApi().repo_info(repo, repo_type=repo_type, timeout=TIMEOUT_S)
    except RepositoryNotFoundError:
        raise DataError(
            f"{repo}: the hub has no such {repo_type}, or only for users it knows; {otherwise}"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise DataError(f"{repo}: the hub answers with status {status}; {otherwise}") from None
    except Exception as error:  # of whichever HTTP library the hub's client uses
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(
            f"{repo}: the hub ({constants.ENDPOINT}) cannot be reached ({reason[:80]}); {otherwise}"
        ) from None
