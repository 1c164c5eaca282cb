"""Repositories of a model hub, kept in a folder as the hub's own client lays it out (`HF_HOME`'s `hub` is one).

A download that was cut off leaves a folder that looks like a whole one. So the files of a whole one are written down
beside it, and only while all of them are there it is used without asking the hub; what is there already is not
downloaded again. One that nobody wrote down serves when the hub cannot be reached: it may have been put there, for a
cluster without a way out.
"""

import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from t2i_sources.choosing import INDEX, Choice
from t2i_sources.errors import SourceMissing, SourceUnreachable

log = logging.getLogger(__name__)
ANSWER_LIMIT_S = 10.0
AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")  # the first that is set counts


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of the hub. `field` of the pool is for messages; `revision` None = the default branch."""

    field: str
    repository: str
    revision: str | None
    variant: str
    choose: Choice

    def kept_in(self, models_dir: Path) -> Path:
        """The repository's folder, as the hub's client calls it."""
        return models_dir / f"models--{self.repository.replace('/', '--')}"

    def note(self, models_dir: Path) -> Path:
        """Where the files of a whole download are written down."""
        asked = "-".join(filter(None, (self.field, self.revision, self.variant)))
        return self.kept_in(models_dir) / f"t2i-{re.sub(r'[^A-Za-z0-9._-]', '-', asked)}.json"


def download(wish: Wish, models_dir: Path) -> Path:
    """The snapshot's folder; see the module.

    The environment's HF_ENDPOINT names another hub, HF_TOKEN opens gated repositories, HTTPS_PROXY, HTTP_PROXY and
    NO_PROXY say which way to go, SSL_CERT_FILE or REQUESTS_CA_BUNDLE hold the authorities that are trusted.

    Raises:
        SourceMissing: this cannot be a repository's name.
        SourceUnreachable: it is not here and cannot be downloaded.
    """
    from httpx2 import HTTPError, InvalidURL
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    here = _noted(wish, models_dir)
    if here is not None:
        return here
    _trust_authorities(wish.field)
    log.info("downloading %s", wish.repository)
    try:
        commit, folder, files = _fetch(wish, models_dir)
        wish.note(models_dir).write_text(json.dumps({"commit": commit, "files": files}))
    except HFValidationError as error:
        raise SourceMissing(f"{wish.field}: {error}") from error
    except (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        return _put_here_by_hand(wish, models_dir, error)
    except (OSError, ValueError, InvalidURL) as error:  # no room, no right to write, an answer that is no hub's
        raise SourceUnreachable(f"{wish.field}: {wish.repository!r} cannot be kept: {error}") from error
    return folder


def _trust_authorities(field: str) -> None:
    """The hub's clients read SSL_CERT_FILE alone, what other programs call REQUESTS_CA_BUNDLE too means the same."""
    for variable in AUTHORITIES:
        file = os.environ.get(variable)
        if file and not os.access(file, os.R_OK):
            raise SourceUnreachable(f"{field}: {variable} names {file!r}, which cannot be read: mount it, or remove it")
        if file:
            os.environ["SSL_CERT_FILE"] = file
            return


def _fetch(wish: Wish, models_dir: Path) -> tuple[str, Path, list[str]]:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    endpoint = os.environ.get("HF_ENDPOINT") or None
    info = HfApi(endpoint=endpoint).model_info(wish.repository, revision=wish.revision, timeout=ANSWER_LIMIT_S)
    commit = info.sha or ""
    names = [one.rfilename for one in info.siblings or ()]
    components: tuple[str, ...] = ()
    if INDEX in names:
        index = hf_hub_download(wish.repository, INDEX, revision=commit, cache_dir=models_dir, endpoint=endpoint)
        components = tuple(json.loads(Path(index).read_text()))
    files = wish.choose(names, components, wish.variant)
    folder = snapshot_download(
        wish.repository,
        revision=commit,
        cache_dir=models_dir,
        allow_patterns=files,
        etag_timeout=ANSWER_LIMIT_S,
        endpoint=endpoint,
    )
    missing = [name for name in files if not (Path(folder) / name).is_file()]
    if missing:
        raise OSError(f"{missing[0]} did not arrive")
    return commit, Path(folder), files


def _noted(wish: Wish, models_dir: Path) -> Path | None:
    try:
        note = json.loads(wish.note(models_dir).read_text())
        folder, files = wish.kept_in(models_dir) / "snapshots" / note["commit"], list(note["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if all((folder / name).is_file() for name in files) else None


def _put_here_by_hand(wish: Wish, models_dir: Path, why: Exception) -> Path:
    """A snapshot of the asked revision that is here already, or the error."""
    kept, revision = wish.kept_in(models_dir), wish.revision or "main"
    reference = kept / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = kept / "snapshots" / commit
    if not folder.is_dir():
        message = f"{wish.field}: {wish.repository!r} is not under the models folder and cannot be downloaded: {why}"
        raise SourceUnreachable(message) from why
    log.warning("the hub cannot be asked about %s (%s): using what is here", wish.repository, type(why).__name__)
    return folder
