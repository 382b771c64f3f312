"""What each Ray Train worker runs, and the board through which it talks to the driver."""

import time
from typing import Any

import ray
import ray.train
import ray.train.torch
from torch import distributed

from metaray.episodes.stream import actor_stream, enter
from metaray.errors import RunFailed, RunStopped
from metaray.training.device import choose_device, set_execution
from metaray.training.events import Event, Fanout, Kind, Listener
from metaray.training.experiment import Experiment
from metaray.training.reduction import GroupReducer
from metaray.training.session import Rank, run_session
from metaray.training.storage import Storage

POST_EVERY_S = 0.25


class Board:
    """Events on their way from rank 0 to the driver, and the driver's wish to stop on its way back."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = False

    def post(self, events: list[Event]) -> bool:
        """Add events; returns whether the run should stop."""
        self._events.extend(events)
        return self._stop

    def drain(self) -> list[Event]:
        """Take the events that came since the last call."""
        events, self._events = self._events, []
        return events

    def request_stop(self) -> None:
        """Ask the run to stop after a checkpoint."""
        self._stop = True


class BoardListener(Listener):
    """Posts events to a `Board` actor a few times a second, never waiting for it.

    Args:
        board: the actor's handle.
    """

    def __init__(self, board: Any) -> None:
        self._board = board
        self._pending: list[Event] = []
        self._posted_s = 0.0
        self._reply: Any = None
        self._stop = False

    def on_event(self, event: Event) -> None:
        """Keep it for the next post."""
        self._pending.append(event)
        if event.kind != "step" or time.monotonic() - self._posted_s >= POST_EVERY_S:
            self._post()

    def should_stop(self) -> bool:
        """What the board said last."""
        if self._reply is not None and ray.wait([self._reply], timeout=0)[0]:
            self._stop, self._reply = ray.get(self._reply), None
        return self._stop

    def close(self) -> None:
        """Deliver what is left, and wait for it."""
        self._post()
        if self._reply is not None:
            ray.get(self._reply)

    def _post(self) -> None:
        self._reply = self._board.post.remote(self._pending)
        self._pending, self._posted_s = [], time.monotonic()


def train_worker(config: dict[str, Any]) -> None:
    """One rank. `config` comes from `trainer.train_on_ray`.

    A run that fails or stops by its own decision does so on all ranks at the same step. That is no fault of a worker
    to be retried, so it is posted on the board, and the worker returns.
    """
    enter(config["folder"])
    experiment = Experiment.from_json(config["experiment"])
    if experiment.source.fingerprint != config["fingerprint"]:
        raise RunFailed(
            f"the source on this node ({ray.util.get_node_ip_address()}) holds other data than the driver's"
        )
    device = ray.train.torch.get_device() if config["use_gpu"] else choose_device("cpu")
    set_execution(experiment, device)
    reducer = GroupReducer()
    board = BoardListener(config["board"])
    listener = Fanout([board, *config["listeners"]])
    rank = Rank(
        storage=Storage(config["storage"]),
        reducer=reducer,
        device=device,
        listener=listener,
        stream=lambda start: actor_stream(
            config["samplers"], reducer.rank, reducer.world_size, start=start, stop=experiment.num_steps
        ),
        should_stop=board.should_stop,
    )
    try:
        run_session(experiment, rank)
    except (RunFailed, RunStopped) as error:
        if rank.is_chief:
            kind: Kind = "failed" if isinstance(error, RunFailed) else "stopped"
            listener.on_event(Event(kind, 0, {}, time.time(), str(error)))
    finally:
        if rank.is_chief:
            listener.close()
    # Nobody leaves before rank 0 has written everything.
    distributed.barrier()
