"""Who hears how a search goes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

from metaray.tuning.trial import Trial


class SearchListener(ABC):
    """Hears of a search in the driver's process. Must return quickly."""

    @abstractmethod
    def on_trials(self, trials: Sequence[Trial], changed: Trial) -> None:
        """A trial was proposed, was judged, or ended; `trials` are all there are."""

    @abstractmethod
    def on_note(self, text: str) -> None:
        """Something worth knowing."""


@final
class Unheard(SearchListener):
    """Nobody listens."""

    def on_trials(self, trials: Sequence[Trial], changed: Trial) -> None:
        """Do nothing."""

    def on_note(self, text: str) -> None:
        """Do nothing."""
