"""How much an adversary has, to which attacks are fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from heirmark.tasks.space import AnySpace
from heirmark.tasks.task import Split, Task


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the adversary has.

    Attributes:
        images: of the adversary's split.
        classes: of the task.
        pool: images of another data set that he may ask about too; None without any.
        space: what the inputs are; None for images.
    """

    images: int
    classes: int
    pool: int | None = None
    space: AnySpace | None = None

    @staticmethod
    def of(task: Task, pool: Split | None = None) -> Sizes:
        """The sizes of a task and of a pool."""
        asked = None if pool is None else len(pool)
        return Sizes(images=len(task.adversary), classes=len(task.classes), pool=asked, space=task.space)

    def on_pool(self) -> Sizes:
        """The same for attacks that ask about the pool, where there is one, instead of the adversary's split."""
        return self if self.pool is None else replace(self, images=self.pool)
