"""The Chromium of tests and screenshots: `python -m t2i_testing_kit.browser.assets` (`make browser-assets`)."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from t2i_testing_kit.debian import Say
from t2i_testing_kit.debian_program import DebianProgram, print_program

CHROMIUM = DebianProgram(
    name="chromium",
    setting="CHROMIUM",
    on_path=("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"),
    # A font of its own, as a machine without any draws no letters.
    packages=(("chromium-headless-shell", "fonts-liberation"), ("chromium", "fonts-liberation")),
    unpacked=("usr/lib/chromium/chromium-headless-shell", "usr/lib/chromium/chromium"),
    install="Tests of the playground need Chromium. Install it, or set CHROMIUM to the program's path.",
)
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><include ignore_missing="yes">/etc/fonts/fonts.conf</include><dir>{fonts}</dir></fontconfig>
"""


@dataclass(frozen=True, slots=True)
class BrowserProgram:
    """The program and the variables that it is to be started with, beside the usual ones."""

    path: Path
    variables: Mapping[str, str]


def ensure_browser(say: Say) -> BrowserProgram:
    """The program; fetches it if need be.

    Raises:
        ProgramMissing: there is none.
    """
    found = CHROMIUM.ensure(say)
    if found.root is None:
        return BrowserProgram(found.path, {})
    fonts = found.root.parent / "fonts.conf"
    fonts.write_text(FONTS.format(fonts=found.root / "usr" / "share" / "fonts"))
    return BrowserProgram(found.path, {**found.variables, "FONTCONFIG_FILE": str(fonts)})


if __name__ == "__main__":
    sys.exit(print_program(CHROMIUM))
