"""Many runs at once: each in a process of its own, because policies on traces know nothing of each other."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace

from bench.kit.output import say
from bench.policy.traces import PolicyRun, Trace, TraceRunner, describe
from t2i_policy.policies import ServingPolicy


@dataclass(frozen=True, slots=True)
class PolicyJob:
    trace: Trace
    policy: ServingPolicy
    bounded: bool = True


def run_jobs(runner: TraceRunner, jobs: Sequence[PolicyJob]) -> list[PolicyRun]:
    """All runs, in the order of the jobs. The same figures come out on any number of cores."""
    global _runner
    _runner = runner
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        futures = {pool.submit(_run, job): number for number, job in enumerate(jobs)}
        for done, future in enumerate(as_completed(futures), start=1):
            say(f"{done}/{len(jobs)} {describe(future.result())}")
        return [future.result() for future in futures]


_runner: TraceRunner


def _run(job: PolicyJob) -> PolicyRun:
    run = _runner.run(job.trace, _runner.workload(job.trace), job.policy, job.bounded)
    return replace(run, outcomes=None)  # of a thousand runs they would fill the memory
