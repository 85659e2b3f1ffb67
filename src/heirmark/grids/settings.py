"""Where stages run: data by name, so that any process can load them again and gets the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from heirmark.loading import ForeignPart, load_named_task, load_pool, with_images
from heirmark.models import Factory
from heirmark.runtime import Runtime
from heirmark.tasks.task import Protocol, Split, Task
from heirmark.work.context import Context


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Data of one seed.

    Attributes:
        data: as ``--data`` takes them.
        split_seed: of who got which example, which need not be that of what runs on it.
        pools: names of data sets that thieves ask about.
        foreign: data set of whose images, the ones of ``foreign_part``, no pool holds any.
        foreign_part: ``"test"``, or ``"train"`` where a model of before had those.
        protocol: what a thief has.
        shows_foreign: whether the task brings these images along.
        factories: the user's own, of models that stages load.
    """

    data: str
    split_seed: int
    pools: tuple[str, ...] = ()
    foreign: str | None = None
    foreign_part: ForeignPart = "test"
    protocol: Protocol = "disjoint"
    shows_foreign: bool = False
    factories: tuple[Factory, ...] = ()


class Contexts:
    """Contexts by setting, each loaded once. One setting's data are kept at a time, and that of its owner's twin.

    Args:
        runtime: device, precision, progress.
        root: where data sets lie.
    """

    def __init__(self, runtime: Runtime, root: Path | None = None) -> None:
        self.runtime, self.root = runtime, root
        self._loaded: dict[Setting, Context] = {}

    def give(self, setting: Setting, task: Task, pools: Mapping[str, Split]) -> None:
        """Take data that are loaded already, with no foreign images among them, for a setting."""
        context = Context(task=task, runtime=self.runtime, factories=setting.factories, pools=pools)
        self._loaded = {replace(setting, shows_foreign=shown): context for shown in (False, True)}

    def __call__(self, setting: Setting) -> Context:
        """The context of a setting.

        Raises:
            BadConfig: for an unknown name.
            DataNotFound: when data are not there.
        """
        plain = replace(setting, shows_foreign=False)
        if plain not in self._loaded:
            self._loaded = {}  # data of another seed are not asked for again: stages are run seed by seed
            task = load_named_task(plain.data, split_seed=plain.split_seed, root=self.root, protocol=plain.protocol)
            known = task  # with its foreign images, so that no pool holds any of them
            if plain.foreign is not None:
                known = with_images(task, plain.foreign, part=plain.foreign_part, root=self.root)
            pools = {
                name: task.owner if name == "owner" else load_pool(name, known, root=self.root) for name in plain.pools
            }
            self._loaded[plain] = Context(
                task=replace(task, foreign=None), runtime=self.runtime, factories=plain.factories, pools=pools
            )
            self._loaded[replace(plain, shows_foreign=True)] = replace(self._loaded[plain], task=known)
        return self._loaded[setting]
