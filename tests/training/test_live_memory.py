"""Live tensors are counted as they come and go."""

import torch

from metaray.training.live_memory import LiveMemory


def test_what_is_freed_is_counted_no_more() -> None:
    with LiveMemory() as memory:
        x = torch.ones(1000)
        for _ in range(3):
            x = x + 1
        x.add_(1)
        x.view(10, 100)
    assert (memory.most_bytes, memory.now_bytes) == (8000, 4000)
    del x
    assert memory.now_bytes == 0


def test_what_the_graph_holds_is_counted_until_it_goes() -> None:
    w = torch.ones(1000, requires_grad=True)
    with LiveMemory() as memory:
        loss = w.exp().exp().exp().sum()
        held = memory.now_bytes
        loss.backward()
    assert 12_000 <= held <= 12_100, "each exp keeps its result"
    assert memory.most_bytes >= 16_000, "and the gradient is computed beside them"
    del loss
    assert memory.now_bytes == 4000, "w.grad is left"


def test_an_operation_that_fails_stays_that_error() -> None:
    import pytest

    with LiveMemory() as memory, pytest.raises(RuntimeError, match="must match the size"):
        torch.ones(3) + torch.ones(4)
    assert memory.now_bytes == 0
