"""Which test runs which page's blocks, and what the pages' commands need that are run in order."""

RUN_IN_ORDER = (
    "docs/quickstart.md",
    "docs/guides/images.md",
    "docs/guides/learners.md",
    "docs/guides/preprocessing.md",
    "docs/guides/searching.md",
)
"""Pages whose blocks `test_site_runs` runs one after the other, in an empty folder, as a reader would."""

RUN_BY = {
    "README.md": ("tests/docs/test_site_runs.py",),
    "docs/new_source.md": ("tests/data/test_new_source.py",),
    "docs/new_algorithm.md": ("tests/conformance/test_new_algorithm.py",),
    "docs/guides/experiments.md": ("tests/optimizers/test_own_optimizer.py", "tests/docs/test_site_runs.py"),
    "docs/guides/networks.md": ("tests/learners/test_from_module.py", "tests/docs/test_site_runs.py"),
    "docs/encoders.md": ("tests/models/encoders/test_encoders_guide.py",),
    "docs/tables.md": ("tests/docs/test_site_runs.py",),
}
"""Tests that run the Python of pages, each naming its page."""
