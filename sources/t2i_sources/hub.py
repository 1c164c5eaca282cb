"""Download repositories of a model hub into a folder in the layout of the hub's own client, like `HF_HOME`'s `hub`.

An interrupted download leaves a folder that looks complete. So a note beside the folder lists the files of each
complete download. While all of them exist, the folder is used without asking the hub. Otherwise the hub is asked, and
only missing files are downloaded. A folder without a note is used if the hub cannot be reached: somebody may have put
it there, for a cluster without internet access.
"""

import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from t2i_sources.errors import SourceMissing, SourceUnreachable
from t2i_sources.hub_files import INDEX, Choice

log = logging.getLogger(__name__)
ANSWER_LIMIT_S = 10.0
CheckIndex = Callable[[Path], None]
AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")  # the first of these variables that is set counts


@dataclass(frozen=True, slots=True)
class Download:
    """What to download. `field` is that of the pool document, for messages; `revision` None = the default branch.

    `check_index` sees a pipeline's index before anything else is fetched, and may raise.
    """

    field: str
    repository: str
    revision: str | None
    variant: str
    choose: Choice
    check_index: CheckIndex | None = None

    def kept_in(self, models_dir: Path) -> Path:
        """The repository's folder, as the hub's client names it."""
        return models_dir / f"models--{self.repository.replace('/', '--')}"

    def note(self, models_dir: Path) -> Path:
        """The file that lists the files of a complete download."""
        asked = "-".join(filter(None, (self.field, self.revision, self.variant)))
        return self.kept_in(models_dir) / f"t2i-{re.sub(r'[^A-Za-z0-9._-]', '-', asked)}.json"


class _Snapshot(NamedTuple):
    commit: str
    folder: Path
    files: list[str]


def download(wanted: Download, models_dir: Path) -> Path:
    """The folder of the snapshot, downloaded if it is not complete.

    Variables of the environment: HF_ENDPOINT names another hub; HF_TOKEN opens gated repositories; HTTPS_PROXY,
    HTTP_PROXY and NO_PROXY choose the proxy; SSL_CERT_FILE or REQUESTS_CA_BUNDLE hold the trusted authorities.

    Raises:
        SourceMissing: the name cannot be that of a repository.
        SourceUnreachable: the repository is not here and cannot be downloaded.
    """
    from httpx2 import HTTPError, InvalidURL
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    here = _noted(wanted, models_dir)
    if here is not None:
        return here
    _trust_authorities(wanted.field)
    log.info("downloading %s", wanted.repository)
    try:
        snapshot = _fetch(wanted, models_dir)
        wanted.note(models_dir).write_text(json.dumps({"commit": snapshot.commit, "files": snapshot.files}))
    except HFValidationError as error:
        raise SourceMissing(f"{wanted.field}: {error}") from error
    except (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        return _put_here_by_hand(wanted, models_dir, error)
    except (OSError, ValueError, InvalidURL) as error:  # a full disk, no right to write, a server that is no hub
        raise SourceUnreachable(f"{wanted.field}: {wanted.repository!r} cannot be kept: {error}") from error
    return snapshot.folder


def _trust_authorities(field: str) -> None:
    """The hub's client reads only SSL_CERT_FILE, while many programs read REQUESTS_CA_BUNDLE for the same purpose."""
    for variable in AUTHORITIES:
        file = os.environ.get(variable)
        if file and not os.access(file, os.R_OK):
            raise SourceUnreachable(f"{field}: {variable} names {file!r}, which cannot be read: mount it, or remove it")
        if file:
            os.environ["SSL_CERT_FILE"] = file
            return


def _fetch(wanted: Download, models_dir: Path) -> _Snapshot:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    endpoint = os.environ.get("HF_ENDPOINT") or None
    info = HfApi(endpoint=endpoint).model_info(wanted.repository, revision=wanted.revision, timeout=ANSWER_LIMIT_S)
    commit = info.sha or ""
    names = [one.rfilename for one in info.siblings or ()]
    components: tuple[str, ...] = ()
    if INDEX in names:
        index = hf_hub_download(wanted.repository, INDEX, revision=commit, cache_dir=models_dir, endpoint=endpoint)
        if wanted.check_index is not None:
            wanted.check_index(Path(index))
        components = tuple(json.loads(Path(index).read_text()))
    files = wanted.choose(names, components, wanted.variant)
    folder = snapshot_download(
        wanted.repository,
        revision=commit,
        cache_dir=models_dir,
        allow_patterns=files,
        etag_timeout=ANSWER_LIMIT_S,
        endpoint=endpoint,
    )
    # The client returns a folder even if files are missing there.
    missing = [name for name in files if not (Path(folder) / name).is_file()]
    if missing:
        raise OSError(f"{missing[0]} did not arrive")
    return _Snapshot(commit, Path(folder), files)


def _noted(wanted: Download, models_dir: Path) -> Path | None:
    try:
        note = json.loads(wanted.note(models_dir).read_text())
        folder, files = wanted.kept_in(models_dir) / "snapshots" / note["commit"], list(note["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if all((folder / name).is_file() for name in files) else None


def _put_here_by_hand(wanted: Download, models_dir: Path, why: Exception) -> Path:
    """A snapshot of this revision that is here without a note.

    Raises:
        SourceUnreachable: there is none.
    """
    kept, revision = wanted.kept_in(models_dir), wanted.revision or "main"
    reference = kept / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = kept / "snapshots" / commit
    if not folder.is_dir():
        message = (
            f"{wanted.field}: {wanted.repository!r} is not under the models folder and cannot be downloaded: {why}"
        )
        raise SourceUnreachable(message) from why
    log.warning("the hub cannot be reached (%s): using the files of %s here", type(why).__name__, wanted.repository)
    return folder
