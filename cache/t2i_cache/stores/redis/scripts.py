"""The scripts of the store (`latents.lua`) as texts, with the flags that the server asks for.

Scripts that only free memory may run when the server has none left; `put` may not, and says so.
"""

from importlib.resources import files

MAY_RUN_WHEN_FULL = ("drop", "evict", "expire", "mark", "purge", "use")
READ_ONLY = ("page", "probe")
PROBE = "probe"  # asked by each new connection, not by the store
NAMES = ("put", *MAY_RUN_WHEN_FULL, "page")


def read_script(name: str) -> str:
    flags = "flags=allow-oom" if name in MAY_RUN_WHEN_FULL else "flags=no-writes" if name in READ_ONLY else ""
    text = (files(__package__) / "latents.lua").read_text()
    return f"{f'#!lua {flags}'.rstrip()}\n{text}\nreturn COMMANDS.{name}()\n"
