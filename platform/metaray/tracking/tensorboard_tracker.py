"""The tracker that writes files for TensorBoard: `tensorboard --logdir runs` shows all runs beside one another."""

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from PIL import Image

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.records.journal import Metric
from metaray.records.run import Run
from metaray.tracking.tracker import Ending, Tracker

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FOLDER = "tensorboard"


@final
class TensorBoardTracker(Tracker):
    """Writes event files into the folder `tensorboard` of a run, in the format that TensorBoard reads.

    They are appended to locally, so the storage of the run must be a folder.
    """

    kind = "tensorboard"
    title = "TensorBoard"

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None
        self._step = 0

    def check(self, experiment: Experiment, run: Run) -> None:
        """Refuse storage that is no folder: event files grow, which object stores do not allow."""
        if not run.storage.is_local:
            raise InputError(
                f"--tracker tensorboard writes beside the run, which needs a folder as --storage, not "
                f"{run.storage.shown!r}"
            )

    def begin(self, experiment: Experiment, run: Run, say: Callable[[str], None]) -> None:
        """Open another event file; TensorBoard reads all files of a run as one."""
        from tensorboardX import SummaryWriter

        # The names of event files hold whole seconds: without more, one would overwrite another of the same second.
        own = f".{uuid.uuid4().hex[:8]}"
        self._writer = SummaryWriter(str(run.storage.local_folder / FOLDER), filename_suffix=own)
        self.log_text(f"    {experiment.to_json()}".replace("\n", "\n    "), "experiment")

    def log(self, metrics: Sequence[Metric]) -> None:
        """Write each metric as a scalar, at its own step and time."""
        writer = self._opened
        for key, value, step, time_ms in metrics:
            writer.add_scalar(key, value, step, walltime=time_ms / 1000)
            self._step = max(self._step, step)
        writer.flush()

    def log_file(self, path: Path, folder: str = "") -> None:
        """A picture becomes an image at the last step, any other file text; folders are left out."""
        if path.suffix == ".png":
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._opened.add_image(path.stem, pixels, self._step, dataformats="HWC")
        elif path.is_file():
            self._opened.add_text(path.stem, path.read_text(encoding="utf-8"), self._step)

    def log_text(self, text: str, name: str) -> None:
        """Write text at the last step; TensorBoard reads it as Markdown."""
        self._opened.add_text(Path(name).stem, text, self._step)

    def end(self, ending: Ending, why: str = "") -> None:
        """Write how the run ended, and close the file."""
        self.log_text(f"{ending}\n\n    {why}".replace("\n", "\n    ") if why else ending, "ending")
        self._opened.close()

    @property
    def _opened(self) -> "SummaryWriter":
        assert self._writer is not None, "begin opens it"
        return self._writer
