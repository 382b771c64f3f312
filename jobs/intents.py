"""Intents of texts from a few examples each, by a pretrained encoder of which little is trained.

    metaray data import text train.csv test.csv --tokenizer all-MiniLM-L6-v2 --splits 01=splits/01 --out intents.arrow
    metaray train jobs/intents.py:lora_protonet --set source.split=01

`all-MiniLM-L6-v2` is the folder of that encoder (`config.json`, `model.safetensors`, `tokenizer.json`). Its weights
are told by their SHA-256, so that no other ones are taken for them; `--set model.model.path=FOLDER_OR_URI` says where
it lies instead.

`map_protonet` trains on vectors that the encoder has made once, in a fraction of the time:

    metaray data embed intents.arrow --encoder all-MiniLM-L6-v2 --out vectors.arrow

One recipe for whatever intents there are: store and fold are all that differs. Budgets suit two CPU cores.
"""

from metaray.algorithms import ANIL, MAML, Algorithm, InnerAdam, ProtoNet
from metaray.config import replace
from metaray.data import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment
from metaray.models import Encoder, LinearMap, LoRA
from metaray.models.encoders import Bert
from metaray.optimizers import Adam

STORE = ClassStore(path="intents.arrow", split="01")
VECTORS = ClassStore(path="vectors.arrow", split="01")
MINILM = Encoder(
    path="all-MiniLM-L6-v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    architecture=Bert(vocabulary=30522, width=384, layers=6, heads=12, wide=1536, places=512),
    tokenizer_sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    by_length=True,
)
JUDGED = EpisodeSpec(ways=5, shots=1, queries=5)
ATTENTION = ("*.query", "*.value")


def lora_protonet() -> Experiment:
    """Prototypical networks that train low-rank factors alone: nothing adapts but the class means."""
    return _intents("lora-protonet", ProtoNet(temperature=0.1), EpisodeSpec(ways=10, shots=1, queries=4))


def lora_maml() -> Experiment:
    """First-order MAML whose inner steps, by Adam, change low-rank factors and the head."""
    algorithm = MAML(
        inner_lr={"head.*": 0.05, "*.lora_*": 1e-3},
        inner_steps=5,
        second_order=False,
        adapts=("head.*", "*.lora_*"),
        inner_optimizer=InnerAdam(),
    )
    return _intents("lora-maml", algorithm, JUDGED)


def lora_anil() -> Experiment:
    """ANIL by Adam: the head adapts, to features that low-rank factors are meta-learned for."""
    return _intents("lora-anil", ANIL(inner_lr=0.05, inner_steps=10, inner_optimizer=InnerAdam(eps=1e-6)), JUDGED)


def map_protonet() -> Experiment:
    """Prototypical networks on an encoder's vectors, of which a linear map is trained."""
    fields = {"source": VECTORS, "model": LinearMap(), "optimizer": Adam(outer_lr=3e-4, schedule="cosine")}
    algorithm, episodes = ProtoNet(temperature=0.1), EpisodeSpec(ways=10, shots=1, queries=5)
    return replace(_intents("map-protonet", algorithm, episodes), **fields, meta_batch_size=4)


def _intents(name: str, algorithm: Algorithm, episodes: EpisodeSpec) -> Experiment:
    return Experiment(
        name=f"intents-{name}",
        source=STORE,
        episodes=episodes,
        model=LoRA(model=MINILM, targets=ATTENTION, rank=8, alpha=16),
        algorithm=algorithm,
        optimizer=Adam(outer_lr=5e-4, schedule="cosine"),
        meta_batch_size=2,
        num_steps=300,
        evaluation=Evaluation(episodes=JUDGED, every=100, val_episodes=200, test_episodes=600),
    )
