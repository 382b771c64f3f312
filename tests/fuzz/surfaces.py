"""What reads what others wrote: each with something whole, a way to damage it, and how it is read."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from metaray.config import replace
from metaray.errors import InputError, RunFailed
from metaray.learners.loading import load_learner
from metaray.records.run import LEARNER
from metaray.serving.pyfunc import example_input
from tests.fuzz.mutations import damage_bytes, damage_rows
from tests.fuzz.readers import (
    ANSWERS,
    cells,
    classes_experiment,
    damage_answer,
    damage_dashboard,
    damage_encoder,
    damage_experiment,
    damage_one,
    damage_store_metadata,
    encoder_files,
    files_of,
    headers,
    image_files,
    read_a_csv,
    read_a_dashboard,
    read_a_frame,
    read_a_learner,
    read_a_run,
    read_a_store,
    read_an_encoder,
    read_an_experiment,
    read_an_image,
    read_from_a_server,
    resealed,
    tiny_store,
    trained,
    waves_experiment,
)
from tests.fuzz.runner import Surface


def surfaces(scratch: Path) -> list[Surface]:
    """All of them; made in this process, read in others."""
    store = tiny_store(scratch)
    data = store.read_bytes()
    experiment = classes_experiment(store)
    run = files_of(Path(trained(experiment, scratch / "run").root))
    trained(replace(waves_experiment(), num_steps=2), scratch / "waves")
    learner_files = {
        name.removeprefix(f"{LEARNER}/"): data for name, data in run.items() if name.startswith(f"{LEARNER}/")
    }
    learner, waves = (load_learner(scratch / name / LEARNER) for name in ("run", "waves"))
    images = image_files()
    table = ("x,y\n" + "".join(f"{x},{x * x}\n" for x in (0.5, 1.0, -2.25))).encode()
    answers = {path: json.dumps(tree).encode() for path, tree in ANSWERS.items()}
    some_image = lambda chance: damage_bytes(chance.choice(images), chance)  # noqa: E731
    frames = {"class": (learner, example_input(learner)), "number": (waves, example_input(waves))}
    text = experiment.to_json()
    answer = (200, headers(data), data)
    by_bytes, both = partial(damage_bytes, data), (InputError, RunFailed)
    return [
        Surface("class store", by_bytes, read_a_store, data, exact=True),
        Surface("store metadata", partial(damage_store_metadata, data), read_a_store, data, exact=True),
        Surface("experiment", partial(damage_experiment, text), read_an_experiment, (text.encode(), [])),
        Surface("learner folder", partial(damage_one, learner_files), read_a_learner, learner_files, exact=True),
        Surface("learner, resealed", partial(resealed, learner_files), read_a_learner, learner_files),
        *(
            Surface(f"encoder, {kind}", partial(damage_encoder, files), read_an_encoder, files)
            for kind, files in ((kind, encoder_files(scratch / kind, kind)) for kind in ("resnet", "vit"))
        ),
        Surface("run folder", partial(damage_one, run), read_a_run, run, both, exact=True),
        Surface("regression CSV", partial(damage_bytes, table), partial(read_a_csv, learner=waves), table),
        Surface("image", some_image, partial(read_an_image, learner=learner), images[0]),
        *(
            Surface(f"frame, {name}", damage_of(frame), partial(read_a_frame, learner=one), frame)
            for name, (one, frame) in frames.items()
        ),
        Surface("server of stores", partial(damage_answer, data), read_from_a_server, answer, exact=True),
        Surface("dashboard", partial(damage_dashboard, answers), read_a_dashboard, answers, both),
    ]


def damage_of(frame: Any) -> Callable[[random.Random], Any]:
    """Damage to the rows of a frame."""
    return partial(damage_rows, frame.to_dict("records"), cells())
