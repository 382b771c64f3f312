from metaray.algorithms.per_task import BASELINES
from metaray.tasks.baselines import FROZEN, TF_IDF, TITLES, title_of


def test_each_baseline_has_a_title_and_a_place() -> None:
    assert list(BASELINES) == list(TITLES)
    others = {name for name, baseline in BASELINES.items() if name != baseline.kind}
    assert others == {FROZEN, TF_IDF}, "class means of other views of the inputs"


def test_one_that_is_known_no_more_goes_by_its_name() -> None:
    assert (title_of("ridge"), title_of("what_was")) == ("ridge regression", "what was")
