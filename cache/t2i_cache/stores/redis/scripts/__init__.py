"""The scripts of the store as texts: `shared.lua` before each, with the flags that the server asks for.

Scripts that only free memory may run when the server has none left; `put` may not, and says so.
"""

from importlib.resources import files

MAY_RUN_WHEN_FULL = ("drop", "evict", "expire", "mark", "purge", "use")
READ_ONLY = ("page", "probe")
PROBE = "probe"  # asked by each new connection, not by the store
NAMES = ("put", *MAY_RUN_WHEN_FULL, "page")


def read_script(name: str) -> str:
    """The whole text of one script."""
    folder = files(__package__)
    flags = "allow-oom" if name in MAY_RUN_WHEN_FULL else "no-writes" if name in READ_ONLY else ""
    first = f"#!lua flags={flags}\n" if flags else "#!lua\n"
    return first + (folder / "shared.lua").read_text() + (folder / f"{name}.lua").read_text()
