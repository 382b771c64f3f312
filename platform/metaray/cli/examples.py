"""The examples of each command's `--help`: lines to be copied, none longer than a terminal of 80 columns shows."""

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "metaray": (
        "metaray init my-project",
        "metaray train jobs/glyphs.py:demo --workers 2",
        "metaray evaluate models:/glyphs@champion",
        "metaray train --help",
    ),
    "metaray init": ("metaray init my-project", "metaray init . --name letters"),
    "metaray recipes": ("metaray recipes", "metaray recipes jobs/omniglot.py --json"),
    "metaray show": (
        "metaray show jobs/glyphs.py:demo",
        "metaray show jobs/glyphs.py:demo --set episodes.ways=5",
    ),
    "metaray train": (
        "metaray train jobs/glyphs.py:demo --workers 2 --run mine",
        "metaray train jobs/glyphs.py:demo --keys",
        "metaray train jobs/glyphs.py:demo --set algorithm.inner_lr=0.1",
        "metaray train jobs/glyphs.py:demo --profile",
    ),
    "metaray tune": (
        "metaray tune jobs/glyphs.py:demo --trials 8 \\",
        "    --search algorithm.inner_lr='loguniform(1e-3,1)' --apply best.json",
        "metaray tune --run my-search",
    ),
    "metaray evaluate": (
        "metaray evaluate models:/glyphs@champion --episodes 600",
        "metaray evaluate models:/omniglot/1 --set source.path=other.arrow",
        "metaray evaluate models:/omniglot/1 --ways 20 --workers 4",
        "metaray evaluate models:/omniglot/1 --stream 10,50,100,200 --shots 15 \\",
        "    --picture stream.png",
    ),
    "metaray compare": (
        "metaray compare models:/glyphs@champion models:/glyphs/2",
        "metaray compare models:/glyphs/1 my-run/learner --part meta-val --json",
        "metaray compare models:/glyphs/1 models:/glyphs/2 --out comparison.html",
    ),
    "metaray report": (
        "metaray report mine",
        "metaray report models:/glyphs@champion --episodes 600 --out glyphs.html",
        "metaray report my-search/trial-0003 --no-log",
    ),
    "metaray adapt": (
        "metaray data export glyphs --part meta-test --out my-task",
        "metaray adapt models:/glyphs@champion \\",
        "    --support my-task/support --query my-task/query",
        "metaray adapt models:/sinusoid@champion \\",
        "    --support known.csv --query asked.csv --x time --y height",
        "metaray adapt models:/glyphs@champion --support my-task/support --save mine",
        "metaray adapt models:/glyphs@champion --support my-task/support \\",
        "    --save mine --keep-support",
    ),
    "metaray extend": (
        "metaray extend mine --support more --save mine",
        "metaray extend mine --support more.csv --query asked.csv",
        "metaray extend mine --support more --how continue --save other",
    ),
    "metaray predict": (
        "metaray predict mine --query my-task/query",
        "metaray predict mine --query a.png b.png --json",
    ),
    "metaray upload": ("metaray upload mine --tracking-uri https://mlflow.example.org",),
    "metaray data": ("metaray data describe glyphs",),
    "metaray data import": ("metaray data import images my-images --out mine.arrow",),
    "metaray data import omniglot": ("metaray data import omniglot images_background.zip images_evaluation.zip",),
    "metaray data import images": (
        "metaray data import images my-images --out mine.arrow --size 84",
        "metaray data import images images.zip --labels labels.csv --out mine.arrow",
    ),
    "metaray data import table": (
        "metaray data import table v.csv --task patient --target score --out v.arrow",
        "metaray data import table a.csv --wide --task a,b,c --binary --out a.arrow",
    ),
    "metaray data import text": (
        "metaray data import text my.csv --tokenizer minilm --out texts.arrow",
        "metaray data import text train.jsonl val.jsonl test.jsonl \\",
        "    --tokenizer s3://models/minilm --out texts.arrow",
    ),
    "metaray data import glyphs": ("metaray data import glyphs --out glyphs.arrow",),
    "metaray data describe": ("metaray data describe omniglot.arrow --ways 20 --gallery gallery.png",),
    "metaray data embed": (
        "metaray data embed texts.arrow --encoder minilm --out vectors.arrow",
        "metaray data embed t.arrow --encoder minilm --out v.arrow --workers 4",
    ),
    "metaray data cluster": ("metaray data cluster vectors.arrow --out partitions.arrow --split vinyals",),
    "metaray data export": ("metaray data export glyphs --part meta-test --ways 20 --out my-task",),
    "metaray runs": ("metaray runs list",),
    "metaray runs list": ("metaray runs list", "metaray runs list --storage s3://runs --json"),
    "metaray runs show": ("metaray runs show mine", "metaray runs show my-search/trial-0000"),
    "metaray runs clean": ("metaray runs clean", "metaray runs clean mine --yes"),
    "metaray registry": ("metaray registry list",),
    "metaray registry list": ("metaray registry list --json",),
    "metaray registry show": ("metaray registry show glyphs",),
    "metaray registry add": (
        "metaray registry add my-learner --name letters --source omniglot.arrow",
        "metaray registry add my-learner --name letters \\",
        "    --source jobs/omniglot.py:maml_5way_1shot --trust my_package",
    ),
    "metaray registry promote": ("metaray registry promote glyphs 1 --alias champion",),
    "metaray submit": (
        "metaray submit train jobs/omniglot.py:maml_5way_1shot --workers 4 --follow \\",
        "    --address http://head:8265 --run mine --storage s3://runs \\",
        "    --tracking-uri https://mlflow.example.org",
    ),
    "metaray jobs": ("metaray jobs list --address http://head:8265",),
    "metaray jobs list": ("metaray jobs list --address http://head:8265",),
    "metaray jobs status": ("metaray jobs status mine",),
    "metaray jobs logs": ("metaray jobs logs mine --follow",),
    "metaray jobs stop": ("metaray jobs stop mine",),
}
