"""Arguments that every benchmark takes.

`--quick` is a trial of under a minute: it shrinks what the benchmark names, and writes its figures, page and plots to
`build/bench/quick`, so that no committed page comes from it. A file of the user's has no default: who leaves it out is
told what it must hold and where a public one is.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.kit.places import BUILD, QUICK, RESULTS


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that the user brings: its variable of the Makefile, what it holds, where a public one is to be had."""

    variable: str
    holds: str
    public: str

    @property
    def option(self) -> str:
        return f"--{self.variable.lower()}"

    @property
    def told(self) -> str:
        return f"{self.variable}=FILE ({self.option} FILE): {self.holds}. {self.public}"


PROMPTS = InputFile(
    "PROMPTS",
    "text, one prompt a line, in the order in which they were asked",
    "Public: the first 4,000 values of `prompt` in metadata.parquet of DiffusionDB 2M (CC0), "
    "https://huggingface.co/datasets/poloclub/diffusiondb",
)
ARRIVALS = InputFile(
    "ARRIVALS",
    'text, one arrival a line, in milliseconds, ascending; several: ARRIVALS="FILE FILE"',
    "Public: the first column of AzureLLMInferenceTrace_conv.csv, or the invocations of Azure Functions (both CC-BY), "
    "https://github.com/Azure/AzurePublicDataset, as milliseconds from the first one",
)


class BenchParser(argparse.ArgumentParser):
    """--out, --results and --quick. `quick` maps options to their values in a trial, `figures` names another JSON."""

    def __init__(
        self, doc: str | None, name: str, quick: Mapping[str, object], page: bool = False, figures: str = ""
    ) -> None:
        super().__init__(
            prog=f"make bench-{name}",
            description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._file, self._quick = figures or f"{name}.json", quick
        self._needed: list[InputFile] = []
        self.add_argument("--quick", action="store_true", help=f"a trial of under a minute, into {QUICK}")
        self.add_argument("--out", type=Path, default=BUILD / self._file, help="the figures, as JSON")
        if page:
            self.add_argument("--results", type=Path, default=RESULTS, help="folder of the page and its plots")

    def add_input(self, file: InputFile, many: bool = False, needed: bool = True) -> None:
        """An option for a file of the user's; `needed` = the benchmark does not run without, trials excepted."""
        if needed:
            self._needed.append(file)
        if many:
            self.add_argument(file.option, type=_existing, nargs="+", default=[], metavar="FILE", help=file.holds)
        else:
            self.add_argument(file.option, type=_existing, metavar="FILE", help=file.holds)

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """The options. Without a needed file the process ends with 2 and says what to bring."""
        if "--quick" in (sys.argv[1:] if arguments is None else arguments):
            self.set_defaults(out=QUICK / self._file, results=QUICK, **self._quick)
        options = self.parse_args(arguments)
        missing = [file for file in self._needed if not getattr(options, file.variable.lower())]
        if missing and not options.quick:
            told = "".join(f"\n  {file.told}" for file in missing)
            self.exit(2, f"{self.prog} needs files that are no part of this repository:{told}\n")
        return options


def _existing(name: str) -> Path:
    if not Path(name).is_file():
        raise argparse.ArgumentTypeError(f"no such file: {name}")
    return Path(name)
