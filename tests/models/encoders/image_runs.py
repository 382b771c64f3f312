"""Tiny experiments on image encoders, of which little is trained and adapted."""

from pathlib import Path
from typing import Any, Literal

from metaray import ClassStore, EpisodeSpec, Evaluation, Experiment
from metaray.algorithms import MAML, InnerAdam
from metaray.data.images import import_images
from metaray.models import Encoder, LoRA, Model
from tests.models.encoders.tiny_images import picture_folder, resnet_folder, vit_folder


def image_experiment(folder: Path, kind: Literal["resnet", "vit"], **changes: Any) -> Experiment:
    """A head behind a residual network, or that and low-rank factors in a transformer; all lies in a folder."""
    path = (resnet_folder if kind == "resnet" else vit_folder)(folder / "encoder")
    encoder = Encoder(path=path)
    store = folder / "images.arrow"
    import_images(picture_folder(folder / "images"), store, size=16, splits=(0.34, 0.33, 0.33))
    model: Model = encoder
    adapts: tuple[str, ...] = ("head.*",)
    if kind == "vit":
        model, adapts = LoRA(model=encoder, targets=("*.query", "*.value"), rank=2), ("head.*", "*.lora_*")
    fields: dict[str, Any] = {
        "name": f"pictures-{kind}",
        "source": ClassStore(path=str(store)),
        "episodes": EpisodeSpec(ways=2, shots=2, queries=2),
        "model": model,
        "algorithm": MAML(inner_lr=0.01, inner_steps=2, adapts=adapts, inner_optimizer=InnerAdam(eps=1e-4)),
        "meta_batch_size": 3,
        "num_steps": 4,
        "evaluation": Evaluation(every=2, val_episodes=8, test_episodes=8),
    }
    return Experiment(**fields | changes)
