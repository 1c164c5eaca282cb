"""Where benchmarks find what the repository has, and where they write. Nothing outside it is a default."""

from pathlib import Path

from t2i_api.parse import parse_pool
from t2i_api.pool import PoolSpec

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BUILD = Path("build/bench")  # figures, as JSON; not committed
RESULTS = Path("bench/results")  # pages and plots; committed
QUICK = BUILD / "quick"  # both, of a trial with --quick


def example_spec(name: str) -> PoolSpec:
    """Of a pool file in examples/."""
    return parse_pool((EXAMPLES / f"{name}.yaml").read_text()).spec
