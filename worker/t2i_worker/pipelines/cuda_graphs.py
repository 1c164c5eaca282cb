"""CUDA graphs of the denoiser: a whole forward is one launch, so the CPU no longer limits small batches.

A graph is for one structure of arguments: shapes and types of all tensors, and the other values as they are. Graphs are
captured at warm-up only, when no other thread uses the device. Forwards without a graph run as before. A replay copies
its arguments into the graph's own tensors and its output out of them. So graphs share one pool of memory.
"""

import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Forward = Callable[[Mapping[str, Any]], Any]
WARM_UP_RUNS = 3


class Replay(Protocol):
    """A captured forward: what to write to, what to run, and where the output then is."""

    inputs: list[Any]
    output: Any

    def run(self) -> None: ...


Capture = Callable[[Forward, Mapping[str, Any]], Replay]


class GraphedForward:
    """Runs `forward`, by replay where `capture` has made a graph for such arguments."""

    def __init__(self, forward: Forward, capture: Capture) -> None:
        self._forward = forward
        self._capture = capture
        self._graphs: dict[Hashable, Replay] = {}
        self._lock = threading.Lock()  # a preview may need the denoiser while the step loop runs it

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        graph = self._graphs.get(structure_of(arguments)) if self._graphs else None
        if graph is None:
            return self._forward(arguments)
        with self._lock:
            for mine, value in zip(graph.inputs, pytree.tree_leaves(dict(arguments)), strict=True):
                if isinstance(mine, Tensor):
                    mine.copy_(value)
            graph.run()
            return pytree.tree_map_only(Tensor, torch.clone, graph.output)

    def __contains__(self, arguments: Mapping[str, Any]) -> bool:
        return structure_of(arguments) in self._graphs

    def __len__(self) -> int:
        return len(self._graphs)

    def capture(self, arguments: Mapping[str, Any]) -> None:
        """Make a graph for such arguments, unless there is one.

        Raises:
            Exception: whatever the denoiser or the device raises.
        """
        structure = structure_of(arguments)
        if structure not in self._graphs:
            self._graphs[structure] = self._capture(self._forward, arguments)

    def drop_all(self) -> None:
        self._graphs.clear()


def structure_of(arguments: Mapping[str, Any]) -> Hashable:
    """Equal for arguments that one graph serves."""
    leaves, spec = pytree.tree_flatten(dict(arguments))
    return spec, tuple((one.shape, one.dtype) if isinstance(one, Tensor) else repr(one) for one in leaves)


class CudaGraph:
    """One captured forward on the present CUDA device. All share the memory of `pool`."""

    def __init__(self, forward: Forward, arguments: Mapping[str, Any], pool: Any) -> None:
        leaves, spec = pytree.tree_flatten(dict(arguments))
        self.inputs = [one.clone() if isinstance(one, Tensor) else one for one in leaves]
        static = pytree.tree_unflatten(self.inputs, spec)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                forward(static)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self.output = forward(static)

    def run(self) -> None:
        self._graph.replay()


def cuda_capture(device: torch.device) -> Capture:
    """Captures on this device."""
    pool = torch.cuda.graph_pool_handle()

    def capture(forward: Forward, arguments: Mapping[str, Any]) -> Replay:
        with torch.cuda.device(device):
            return CudaGraph(forward, arguments, pool)

    return capture
