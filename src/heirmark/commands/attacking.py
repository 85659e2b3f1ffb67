"""What a thief does: steal, remove, detect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heirmark.commands.options import (
    MARKED,
    Custom,
    Kept,
    ModelsSplitSeed,
    Out,
    Quick,
    Seed,
    Settings,
    configured,
    guarded,
    print_facts,
)
from heirmark.commands.wiring import Wire
from heirmark.console import error_line
from heirmark.errors import BadConfig

if TYPE_CHECKING:
    from heirmark.jobs.folder import Data, ModelFolder
    from heirmark.jobs.means import Work
    from heirmark.jobs.services import ServedVictim


@dataclass(frozen=True)
class Shown:
    """What a victim's service shows; see :class:`heirmark.querying.blackbox.Api`."""

    answers: Annotated[
        str, typer.Option("--answers", help="What the victim gives away: probabilities, top-k or label.")
    ] = "probabilities"
    k: Annotated[int, typer.Option("--k", help="Of top-k.", min=1)] = 5
    decimals: Annotated[
        int | None, typer.Option("--decimals", help="Round probabilities to so many decimals.", min=0, max=7)
    ] = None
    levels: Annotated[
        int | None, typer.Option("--levels", help="Quantise probabilities to so many levels; 2 is a hard label.", min=2)
    ] = None
    budget: Annotated[int | None, typer.Option("--budget", help="Queries that the victim answers at most.", min=0)] = (
        None
    )


@dataclass(frozen=True)
class Thief:
    """What an attack is made of, and on which data."""

    data: Annotated[
        str | None, typer.Option("--data", help="Data whose adversary split the thief has; default: the model's own.")
    ] = None
    quick: Quick = False
    settings: Settings = None
    seed: Seed = 1
    split_seed: ModelsSplitSeed = None

    def attack(
        self,
        name: str,
        known: Mapping[str, Any],
        victim: ModelFolder | ServedVictim,
        run: Kept,
        *,
        build: Callable[[Any], Any],
        job: Callable[[Any, Data, Work], dict[str, Any]],
        pool: str | None = None,
        asks_pool: bool = False,
    ) -> int:
        """Do a job with an attack, which ``--quick`` fits to what the adversary has, as an audit's is; show what comes out.

        Args:
            name: of the attack.
            known: classes by name.
            victim: by whose recipe a quick thief learns.
            run: where all is computed.
            build: puts the user's own settings on top, which are never changed, and refuses them before anything is loaded.
            job: gives the facts to show, of what was built.
            pool: another data set whose images come along.
            asks_pool: whether the attack asks about these.
        """
        from heirmark.attacks.base import Sizes
        from heirmark.grids.fitting import fitting, quick_attack, quick_attacks
        from heirmark.suiting import gentle, is_pretrained, suited

        plan = build(quick_attacks(victim.recipe)[name] if self.quick else known[name]())
        fact = {}
        with run.bars() as bars:
            data = victim.data(self.data, split_seed=self.split_seed, root=run.data_root, pool=pool)

            def fit(attack: Any) -> Any:
                made = suited(attack, data.task.space, data.task.num_classes)
                return gentle(made) if is_pretrained(victim.architecture) else made

            if not self.quick:
                plan = build(fit(known[name]()))
            else:
                sizes = Sizes.of(data.task, *(data.pools.values() if asks_pool else ())).on_pool()
                plain, plan = plan, build(fit(quick_attack(name, sizes, victim.recipe)))
                words = fitting(getattr(plain, "attack", plain), getattr(plan, "attack", plan), sizes)
                fact = {"fitted": words} if words else {}
            facts = job(plan, data, run.work(bars, self.seed))
        print_facts(facts | fact, run.as_json)
        return MARKED

    def with_settings(self, plain: Any) -> Any:
        """An attack with the user's settings."""
        from heirmark.configuration import apply_settings

        return apply_settings(plain, self.settings or [])


Held = Annotated[Path, typer.Argument(help="Folder of a model that the thief holds: stolen, or the marked one itself.")]


@guarded
def steal(
    victim: Annotated[
        str, typer.Argument(help="Folder of the victim, as embed wrote it, or http(s):// address of a service.")
    ],
    out: Out,
    attack: Annotated[
        str, typer.Option("--attack", help="An extraction attack, by name; a wrong name lists them.")
    ] = "knockoff",
    pool: Annotated[
        str | None,
        typer.Option("--pool", help="Another data set whose images query instead, brought to the victim's shape."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="The thief's, written as embed's --model; default: the victim's, of a service naivenet."
        ),
    ] = None,
    victim_model: Annotated[
        str | None,
        typer.Option("--victim-model", help="package.module:factory that builds the victim, if it is one of your own."),
    ] = None,
    *,
    shown: Shown,
    thief: Thief,
    run: Kept,
    wire: Wire,
) -> int:
    """Attack a model through its answers alone, with the adversary's data; write the stolen model."""
    from heirmark.attacks import EXTRACTIONS
    from heirmark.jobs.attack import steal_job, steal_service_job
    from heirmark.jobs.folder import ModelFolder
    from heirmark.jobs.services import Asking, ServedVictim
    from heirmark.loading import check_known, user_factory
    from heirmark.querying.blackbox import Api
    from heirmark.wire.addresses import is_address
    from heirmark.work.answering import ADVERSARY
    from heirmark.work.stealing import Theft

    check_known("attack", attack, EXTRACTIONS)
    folder: ModelFolder | ServedVictim
    if is_address(victim):
        asking = Asking(client=wire.client(), tell=error_line)
        folder = ServedVictim(address=victim, architecture="naivenet", asking=asking)
    else:
        folder = ModelFolder(Path(victim), user_factory(victim_model), option="--victim-model")

    def build(plain: Any) -> Theft:
        strategy = configured(replace(plain, model=folder.architecture), model, thief.settings)
        return Theft(attack=strategy, api=Api(**vars(shown)), pool=pool or ADVERSARY)

    def job(theft: Theft, data: Data, work: Work) -> dict[str, Any]:
        if isinstance(folder, ServedVictim):
            return steal_service_job(theft, folder, data, out, work)
        return steal_job(theft, folder, data, out, work)

    return thief.attack(attack, EXTRACTIONS, folder, run, build=build, job=job, pool=pool, asks_pool=True)


@guarded
def remove(
    victim: Held,
    out: Out,
    attack: Annotated[
        str, typer.Option("--attack", help="A removal attack, by name; a wrong name lists them.")
    ] = "fine-tuning",
    pool: Annotated[
        str | None, typer.Option("--pool", help="Data set of another task, for an attack that learns one (transfer).")
    ] = None,
    model: Custom = None,
    *,
    thief: Thief,
    run: Kept,
) -> int:
    """Work on a model so that a mark in it may be lost, with the adversary's labelled data; write what is left."""
    from heirmark.attacks import REMOVALS
    from heirmark.jobs.attack import remove_job
    from heirmark.jobs.folder import ModelFolder
    from heirmark.loading import check_known, user_factory
    from heirmark.work.altering import Alteration

    check_known("removal attack", attack, REMOVALS)
    folder = ModelFolder(victim, user_factory(model))

    def build(plain: Any) -> Alteration:
        return Alteration(attack=thief.with_settings(plain), pool=pool)

    def job(alteration: Alteration, data: Data, work: Work) -> dict[str, Any]:
        return remove_job(alteration, folder, data, out, work)

    return thief.attack(attack, REMOVALS, folder, run, build=build, job=job, pool=pool)


@guarded
def detect(
    victim: Held,
    attack: Annotated[
        str, typer.Option("--attack", help="A detection attack, by name; a wrong name lists them.")
    ] = "neural-cleanse",
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Folder of the marked model, to hold what is suspected against the truth."),
    ] = None,
    model: Custom = None,
    *,
    thief: Thief,
    run: Kept,
) -> int:
    """Look for a mark in a model, or for a verifier's queries among others. The attack never sees the key."""
    from heirmark.attacks import INSPECTIONS, SCREENINGS
    from heirmark.jobs.attack import inspect_job, screen_job
    from heirmark.jobs.folder import ModelFolder
    from heirmark.loading import check_known, user_factory

    known: dict[str, Any] = {**INSPECTIONS, **SCREENINGS}
    check_known("detection attack", attack, known)
    if attack in SCREENINGS and key is None:
        raise BadConfig(f"{attack} tells queries from others: name the marked model, whose key is asked, with --key")
    folder, truth = ModelFolder(victim, user_factory(model)), None if key is None else ModelFolder(key)

    def job(strategy: Any, data: Data, work: Work) -> dict[str, Any]:
        if attack in SCREENINGS and truth is not None:
            return screen_job(strategy, folder, data, work, truth)
        return inspect_job(strategy, folder, data, work, truth)

    return thief.attack(attack, known, folder, run, build=thief.with_settings, job=job)
