"""Who hears how a search goes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

from metaray.tuning.trial import Trial


class SearchListener(ABC):
    """Hears of a search in the driver's process. Must return quickly."""

    @abstractmethod
    def on_trials(self, trials: Sequence[Trial], changed: Trial) -> None:
        """Called when a trial was proposed, was evaluated, or has ended; `trials` are all trials so far."""

    @abstractmethod
    def on_note(self, text: str) -> None:
        """Called with a message for the user."""


@final
class Unheard(SearchListener):
    """A listener that ignores all events."""

    def on_trials(self, trials: Sequence[Trial], changed: Trial) -> None:
        """Do nothing."""

    def on_note(self, text: str) -> None:
        """Do nothing."""
