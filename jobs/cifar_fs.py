"""CIFAR-FS recipes (Bertinetto et al., ICLR 2019): the 100 classes of CIFAR-100, 64 / 16 / 20, of 600 images each.

Build the store once, from a folder with a folder of images for each class, and the three lists of classes:

    metaray data import images cifar100 --size 32 --splits splits/cifar_fs --out cifar_fs.arrow

Episodes, optimisers, schedules, augmentation and networks are those of the papers, or of their authors' code where that
says more; what differs is said below. All are judged on 5 ways and 15 queries a class, and `num_steps` is the authors'
or the most they allow: a run stops for the better where meta-val says so, as the best of it is what is kept.

Their batch norm is transductive, as the papers' is in training; at test time the papers' has running averages, which
metaray does not have. For a learner that is to answer single queries add `--set algorithm.batch_norm=inductive`.
"""

from metaray.algorithms import R2D2, Algorithm, MetaOptNetSVM, ProtoNet
from metaray.data import ClassStore
from metaray.episodes.augmentation import Augmentation
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment
from metaray.models import Conv4, Model, R2D2Net, ResNet12
from metaray.optimizers import SGD, Adam
from metaray.optimizers.schedules import Piecewise

STORE = ClassStore(path="cifar_fs.arrow")
NORMALISED = ClassStore(path="cifar_fs.arrow", mean=(0.5088, 0.4917, 0.4437), std=(0.2674, 0.2564, 0.2772))
"""By what `metaray data describe cifar_fs.arrow` measures on the classes of meta-train."""

JITTERED = Augmentation(crop_padding=4, brightness=0.4, contrast=0.4, saturation=0.4, flip=True)
"""As Lee et al. augment CIFAR-FS (MetaOptNet, CVPR 2019)."""


def protonet_conv4_1shot() -> Experiment:
    """ProtoNet as on miniImageNet in its paper, one shot: 55.5 % by Bertinetto et al."""
    return _protonet_conv4(shots=1, ways=30)


def protonet_conv4_5shot() -> Experiment:
    """ProtoNet as on miniImageNet in its paper, five shots: 72.0 % by Bertinetto et al."""
    return _protonet_conv4(shots=5, ways=20)


def _protonet_conv4(*, shots: int, ways: int) -> Experiment:
    """Snell et al. (NeurIPS 2017, section 3.2): more ways than it is judged at, 15 queries a class, no augmentation."""
    return Experiment(
        name=f"cifar-fs-protonet-conv4-{shots}shot",
        source=STORE,
        episodes=EpisodeSpec(ways=ways, shots=shots, queries=15),
        model=Conv4(),
        algorithm=ProtoNet(batch_norm="transductive"),
        optimizer=Adam(outer_lr=1e-3, schedule="step", decay=0.5, decay_every=2000),
        meta_batch_size=1,
        num_steps=20_000,
        evaluation=_judged(shots),
    )


def r2d2_conv4_1shot() -> Experiment:
    """R2D2 on its network of 64 channels, one shot: 60.0 % in the first version of the paper."""
    return _r2d2(R2D2Net(channels=(64, 64, 64, 64), drop_rate=0.4), "conv4", shots=1)


def r2d2_conv4_5shot() -> Experiment:
    """R2D2 on its network of 64 channels, five shots: 76.1 % in the first version of the paper."""
    return _r2d2(R2D2Net(channels=(64, 64, 64, 64), drop_rate=0.4), "conv4", shots=5)


def r2d2_wide_1shot() -> Experiment:
    """R2D2 on its own network, one shot: 65.3 % in the paper."""
    return _r2d2(R2D2Net(drop_rate=0.4), "wide", shots=1)


def r2d2_wide_5shot() -> Experiment:
    """R2D2 on its own network, five shots: 79.4 % in the paper."""
    return _r2d2(R2D2Net(drop_rate=0.4), "wide", shots=5)


def _r2d2(model: Model, backbone: str, *, shots: int) -> Experiment:
    """As the authors' code: 20 ways and 12 images a class, lambda times the number of support examples.

    Theirs draws the shots of each episode from 1 to 9, and keeps lambda as it is; here it is meta-learned.
    """
    return Experiment(
        name=f"cifar-fs-r2d2-{backbone}-{shots}shot",
        source=STORE,
        episodes=EpisodeSpec(ways=20, shots=shots, queries=12 - shots),
        model=model,
        algorithm=R2D2(initial_regularizer=50, initial_scale=10, per_example=True, batch_norm="transductive"),
        optimizer=Adam(outer_lr=5e-3, schedule="step", decay=0.5, decay_every=2000),
        meta_batch_size=1,
        num_steps=20_000,
        evaluation=_judged(shots),
    )


def metaoptnet_conv4_1shot() -> Experiment:
    """MetaOptNet-SVM on four blocks of 64 channels, judged at one shot."""
    return _metaoptnet(MetaOptNetSVM(batch_norm="transductive"), Conv4(), "conv4", shots=1)


def metaoptnet_conv4_5shot() -> Experiment:
    """MetaOptNet-SVM on four blocks of 64 channels, judged at five shots."""
    return _metaoptnet(MetaOptNetSVM(batch_norm="transductive"), Conv4(), "conv4", shots=5)


def metaoptnet_resnet12_1shot() -> Experiment:
    """MetaOptNet-SVM on ResNet-12, judged at one shot: 72.0 % in the paper."""
    return _metaoptnet(MetaOptNetSVM(batch_norm="transductive"), ResNet12(drop_rate=0.1), "resnet12", shots=1)


def metaoptnet_resnet12_5shot() -> Experiment:
    """MetaOptNet-SVM on ResNet-12, judged at five shots: 84.2 % in the paper."""
    return _metaoptnet(MetaOptNetSVM(batch_norm="transductive"), ResNet12(drop_rate=0.1), "resnet12", shots=5)


def protonet_resnet12_1shot() -> Experiment:
    """ProtoNet on ResNet-12 in MetaOptNet's training, judged at one shot."""
    return _metaoptnet(SCALED_PROTONET, ResNet12(drop_rate=0.1), "resnet12", shots=1)


def protonet_resnet12_5shot() -> Experiment:
    """ProtoNet on ResNet-12 in MetaOptNet's training, judged at five shots."""
    return _metaoptnet(SCALED_PROTONET, ResNet12(drop_rate=0.1), "resnet12", shots=5)


def r2d2_resnet12_1shot() -> Experiment:
    """R2D2 on ResNet-12 in MetaOptNet's training, judged at one shot."""
    return _metaoptnet(RIDGE, ResNet12(drop_rate=0.1), "resnet12", shots=1)


def r2d2_resnet12_5shot() -> Experiment:
    """R2D2 on ResNet-12 in MetaOptNet's training, judged at five shots."""
    return _metaoptnet(RIDGE, ResNet12(drop_rate=0.1), "resnet12", shots=5)


SCALED_PROTONET = ProtoNet(temperature="size", learned_scale=True, batch_norm="transductive")
RIDGE = R2D2(initial_regularizer=50, initial_scale=1, batch_norm="transductive")
"""As the heads of MetaOptNet's code, but for lambda, which is meta-learned."""


def _metaoptnet(algorithm: Algorithm, model: Model, backbone: str, *, shots: int) -> Experiment:
    """As Lee et al. (CVPR 2019, section 4.1) and their code: 5 shots in training, whatever the shots it is judged at.

    Eight episodes of 5 ways and 6 queries a class, 60,000 steps of SGD. Their labels are smoothed, these are not; their
    dropout rises over the first 40,000 batches, this does not.
    """
    kind = algorithm.kind.removesuffix("_svm").replace("_", "-")
    return Experiment(
        name=f"cifar-fs-{kind}-{backbone}-{shots}shot",
        source=NORMALISED,
        episodes=EpisodeSpec(ways=5, shots=5, queries=6),
        model=model,
        algorithm=algorithm,
        optimizer=SGD(outer_lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule=Piecewise()),
        meta_batch_size=8,
        num_steps=60_000,
        evaluation=_judged(shots),
        augmentation=JITTERED,
    )


def _judged(shots: int) -> Evaluation:
    return Evaluation(
        episodes=EpisodeSpec(ways=5, shots=shots, queries=15), every=1000, val_episodes=300, test_episodes=1000
    )
