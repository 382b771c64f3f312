"""What predictions must, and must not, depend on."""

from dataclasses import replace

import torch

from metaray.episodes.tensors import Examples
from metaray.models import MLP
from tests.conformance.bench import PROTOCOLS, Bench, Trial, close, every


@every()
def test_order_of_the_support_does_not_matter(trial: Trial) -> None:
    bench = Bench(trial)
    episode = bench.episode(shots=3)
    shuffle = torch.randperm(len(episode.support.y), generator=torch.Generator().manual_seed(3))
    shuffled = Examples(episode.support.x[shuffle], episode.support.y[shuffle])
    close(bench.output(episode.support, episode.query.x), bench.output(shuffled, episode.query.x))


@every(tasks=["classification"])
def test_labels_can_be_permuted(trial: Trial) -> None:
    """Which class is called what decides the order of the logits, and nothing else."""
    bench = Bench(trial, training=False, ways=4)
    episode = bench.episode(shots=3)
    renamed = torch.tensor([2, 0, 3, 1])
    logits = bench.output(episode.support, episode.query.x)
    other = bench.output(Examples(episode.support.x, renamed[episode.support.y]), episode.query.x)
    close(other[:, renamed], logits)


@every(steps=True)
def test_without_inner_steps_labels_do_not_matter(trial: Trial) -> None:
    bench = Bench(trial, training=False)
    context, episode = replace(bench.context, inner_steps=0), bench.episode()
    outputs = []
    for y in (episode.support.y, episode.support.y.flip(0)):
        adapted = bench.algorithm.adapt(bench.meta, Examples(episode.support.x, y), context)
        outputs.append(bench.algorithm.predict(bench.meta, adapted, episode.query.x, context))
    assert torch.equal(*outputs)


@every(steps=True, protocols=["transductive"])
def test_without_inner_steps_the_network_predicts(trial: Trial) -> None:
    """Where meta-parameters are the network's, and it has an output layer."""
    bench = Bench(trial, training=False)
    context, episode = replace(bench.context, inner_steps=0), bench.episode()
    names = [name for name, _ in context.network.named_parameters()]
    if not set(names) <= bench.meta.keys() or bench.algorithm.outputs(bench.task_shape) is None:
        return
    adapted = bench.algorithm.adapt(bench.meta, episode.support, context)
    output = bench.algorithm.predict(bench.meta, adapted, episode.query.x, context)
    close(output, context.forward({name: bench.meta[name] for name in names}, episode.query.x))


@every(protocols=["inductive"])
def test_inductive_predictions_ignore_the_other_queries(trial: Trial) -> None:
    bench = Bench(trial)
    episode = bench.episode(queries=3)
    together = bench.output(episode.support, episode.query.x)
    for i in range(len(together)):
        close(bench.output(episode.support, episode.query.x[i : i + 1]), together[i : i + 1])
    assert not bench.algorithm.heeds_batch(bench.context.network)


@every(trained=True, protocols=["transductive"])
def test_transductive_predictions_heed_the_other_queries(trial: Trial) -> None:
    bench = Bench(trial)
    episode = bench.episode(queries=3)
    together = bench.output(episode.support, episode.query.x)
    alone = bench.output(episode.support, episode.query.x[:3])
    assert (together[:3] - alone).abs().max() > 1e-3
    assert bench.algorithm.heeds_batch(bench.context.network), "users are told"


@every(trained=True, protocols=["transductive"])
def test_without_batch_norm_the_protocols_agree(trial: Trial) -> None:
    model = MLP(hidden=(6,), batch_norm=False)
    benches = [Bench(trial._replace(protocol=protocol), model=model) for protocol in PROTOCOLS]
    episode = benches[0].episode()
    close(*(bench.output(episode.support, episode.query.x) for bench in benches))
