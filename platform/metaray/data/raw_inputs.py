"""The tasks of a store of vectors, of the inputs that an encoder made these of, where the store has both."""

from dataclasses import replace
from functools import lru_cache
from typing import ClassVar, TypeVar

from metaray.data.cactus import CACTUs
from metaray.data.class_store import ClassStore
from metaray.data.opened_store import OpenedStore, open_scheme
from metaray.data.preprocessing import EncodedPreprocessing, Preprocessing
from metaray.data.ragged import FeatureShape
from metaray.data.source import Source
from metaray.data.umtra import UMTRA

S = TypeVar("S", bound=ClassStore)


class RawInputs(ClassStore):
    """The tasks of a class store of vectors, with the raw inputs in place of the vectors."""

    kind: ClassVar[str] = "raw_inputs"

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of the raw inputs."""
        found = self.vectors.preprocessing
        assert isinstance(found, EncodedPreprocessing), found
        return found.raw

    @property
    def vectors(self) -> ClassStore:
        """The store of vectors that is used in training."""
        return like(self, ClassStore)

    @property
    def feature_shape(self) -> FeatureShape:
        """Shape of a raw input."""
        return self.preprocessing.feature_shape

    def _open(self) -> OpenedStore:
        return _open_raw(self.path, self.split, self.rotations, self.within_groups, self.stamp)


def raw_inputs_of(source: Source) -> RawInputs | None:
    """The raw inputs behind the vectors of a source; None if the source does not hold them or makes its own tasks."""
    if isinstance(source, CACTUs | UMTRA):
        return raw_inputs_of(source.source)
    if type(source) is not ClassStore or source.meta.raw is None:
        return None
    return like(source, RawInputs)


def like(store: ClassStore, kind: type[S]) -> S:
    """A store of another class with the same fields, which trusts the same packages."""
    found = kind(**{name: getattr(store, name) for name in ClassStore.model_fields})
    found.__dict__["trust"] = store.__dict__["trust"]
    return found


@lru_cache(maxsize=4)
def _open_raw(path: str, scheme: str, rotations: bool, within_groups: bool, _stamp: tuple[int, ...]) -> OpenedStore:
    opened = open_scheme(path, scheme, rotations=rotations, within_groups=within_groups)
    file, raw = opened.file, opened.file.meta.raw
    assert raw is not None, path
    meta = file.meta.model_copy(update={"feature_shape": raw.feature_shape, "dtype": raw.dtype})
    return replace(opened, file=replace(file, meta=meta, examples=file.raw))
