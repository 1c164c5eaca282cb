"""Many runs at once, in processes: policies on traces know nothing of each other."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import TypeVar

from bench.kit.output import say
from bench.policy.traces import PolicyRun, Trace, TraceRunner, describe
from t2i_policy.policies import ServingPolicy

Work = TypeVar("Work")
Found = TypeVar("Found")
_runner: TraceRunner


@dataclass(frozen=True, slots=True)
class PolicyJob:
    trace: Trace
    policy: ServingPolicy
    bounded: bool = True

    def run(self) -> PolicyRun:
        runner = shared_runner()
        run = runner.run(self.trace, runner.workload(self.trace), self.policy, self.bounded)
        return replace(run, outcomes=None)  # of a thousand runs they would fill the memory


def run_jobs(runner: TraceRunner, jobs: Sequence[PolicyJob]) -> list[PolicyRun]:
    return in_processes(runner, PolicyJob.run, jobs, describe)


def in_processes(
    runner: TraceRunner, do: Callable[[Work], Found], work: Sequence[Work], describe_one: Callable[[Found], str]
) -> list[Found]:
    """What `do` finds for each, in their order; the same on any number of cores. `do` asks for `shared_runner`."""
    global _runner
    _runner = runner
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        futures = {pool.submit(do, one): None for one in work}
        for done, future in enumerate(as_completed(futures), start=1):
            say(f"{done}/{len(work)} {describe_one(future.result())}")
        return [future.result() for future in futures]


def shared_runner() -> TraceRunner:
    """Of the process that started this one."""
    return _runner
