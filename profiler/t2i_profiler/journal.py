"""What was measured so far, on disk: a measurement that ends early goes on where it stopped.

A folder beside the profile holds `journal.jsonl`, and small pictures for the report. The first line of the journal says
what is measured. One line for each thing done follows. A line is written whole or not at all; a broken last one is done
again. The folder holds prompts in clear, as the samples file does.
"""

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.images import open_image

SCHEMA = "t2iserving.dev/profile-journal/v1"
PICTURE_SIDE = 256


class Journal:
    """Things done by key. Without a folder it lasts as long as the process, and keeps no pictures."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._done: dict[str, Any] = {}

    @classmethod
    def open(cls, folder: Path, about: Mapping[str, Any]) -> "Journal":
        """Begin one, or go on with the one that is there.

        Raises:
            SamplesInvalid: the one that is there measures something else; names what differs.
        """
        journal = cls(folder)
        path = folder / "journal.jsonl"
        head = {"schema": SCHEMA, **about}
        if path.is_file():
            journal._read(path, head)
        else:
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(head) + "\n")
        return journal

    def _read(self, path: Path, head: Mapping[str, Any]) -> None:
        lines = path.read_bytes().split(b"\n")
        whole = lines[:-1]  # after the last line end there is nothing, or half a line
        if not whole:  # it ended before its first line was written
            path.write_text(json.dumps(head) + "\n")
            return
        try:
            found, *entries = [json.loads(line) for line in whole]
            done = {entry["key"]: entry["value"] for entry in entries}
        except (ValueError, KeyError, TypeError):
            raise SamplesInvalid(f"{path} is no journal of a profile: remove its folder") from None  # it has prompts
        different = [key for key in head if found.get(key) != head[key]]
        if different:
            raise SamplesInvalid(
                f"{path.parent} holds an unfinished profile with other {', '.join(different)}: go on with the options "
                "of then, give another --out, or remove the folder"
            )
        self._done = done
        with path.open("r+b") as file:
            file.truncate(sum(len(line) + 1 for line in whole))

    @property
    def begun(self) -> bool:
        """Whether something was done already."""
        return bool(self._done)

    def found(self, key: str) -> Any:
        """What was kept as `key`; None: not done yet."""
        return self._done.get(key)

    def keep(self, key: str, value: Any) -> Any:
        """The value as it will be read again."""
        value = json.loads(json.dumps(value))
        self._done[key] = value
        if self._folder is not None:
            with (self._folder / "journal.jsonl").open("a") as file:
                file.write(json.dumps({"key": key, "value": value}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return value

    def keep_picture(self, name: str, image: bytes) -> None:
        """A small copy for the report."""
        if self._folder is not None:
            small = open_image(image)
            small.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
            data = io.BytesIO()
            small.save(data, "jpeg", quality=92)
            (self._folder / "pictures" / f"{name}.jpg").write_bytes(data.getvalue())

    def picture(self, name: str) -> bytes | None:
        """The small copy; None: there is none."""
        path = None if self._folder is None else self._folder / "pictures" / f"{name}.jpg"
        return path.read_bytes() if path is not None and path.is_file() else None

    def end(self) -> None:
        """All is done and written elsewhere."""
        if self._folder is not None:
            shutil.rmtree(self._folder)
