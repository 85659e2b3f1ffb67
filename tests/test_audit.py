"""The audit: every attack on a marked model and on its twin, what fails as a row, one report, and the commands of a thief."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import own_code
from heirmark.attacks import (
    DFME,
    EXTRACTIONS,
    INSPECTIONS,
    MAZE,
    REMOVALS,
    SCREENINGS,
    FineTuning,
    Inspected,
    Int8,
    Knockoff,
    Reversed,
    Screen,
)
from heirmark.attacks.base import Sizes
from heirmark.attacks.composites import KINDS as COMPOSITES
from heirmark.attacks.detection.composite_screen import least_held_out
from heirmark.errors import BadArtifact, BadConfig, BadData, ShapeMismatch
from heirmark.grids.audit import AuditResult, notes_on, run_audit
from heirmark.grids.fitting import fitted, fitting, paper_attacks, quick_attack, quick_attacks
from heirmark.grids.programme import CHAIN, GUESSES, PROFILES, QUICK_POOL, Programme, select
from heirmark.grids.settings import Contexts
from heirmark.jobs.attack import inspect_job, remove_job, screen_job
from heirmark.jobs.embed import embed_job
from heirmark.jobs.folder import Data, ModelFolder, Origin
from heirmark.jobs.inspect import inspect_folder
from heirmark.jobs.means import Work
from heirmark.jobs.opening import Named, open_suspect
from heirmark.jobs.verify import Terms, verify_job
from heirmark.keys.making import make_key
from heirmark.methods import T2S, Vanilla
from heirmark.models import Net
from heirmark.models.storage import load_model
from heirmark.profiles import QUICK as DEMO
from heirmark.rehearsal.settings import Balanced, Rehearsal
from heirmark.report.story import survives, tell_audit, usable
from heirmark.report.terminal import attack_table, probe_table
from heirmark.results.probes import Exposed, Screened
from heirmark.results.rows import Brief, Row, row_from_json, row_to_json
from heirmark.results.summary import Summary, summarise
from heirmark.runtime import Runtime
from heirmark.stages import Event
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import (
    TRIGGERS,
    AbstractImages,
    Entangled,
    Feature,
    GaussianNoise,
    Groups,
    Mistakes,
    Mix,
    OutOfDistribution,
    Patch,
    Phrase,
    RandomLabels,
    TextStamp,
    Tiles,
    Tone,
)
from heirmark.verification import Verdict
from heirmark.work.altering import Alteration
from heirmark.work.judging import read_key
from heirmark.work.stealing import Theft
from heirmark.work.trials import Probe, Trial

NET = "naivenet:width=4,hidden=16,batch_norm=true"
RECIPE = Recipe(epochs=4, batch_size=32, learning_rate=0.05)
VANILLA = Vanilla(model=NET, trigger=Mix(), triggers=40, key_size=60, trigger_batch=8, pretraining=RECIPE)
CPU = Runtime(device="cpu", precision="float32")


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """A removal that makes the last layer answer something else, or ``fails``."""

    amount: float = 0.0
    fails: bool = False

    def __call__(
        self, net: Net, data: Split, *, other: Split | None = None, seed: int, runtime: Runtime | None = None
    ) -> Net:
        if self.fails:
            raise BadData("there is nothing to shuffle: give it more")
        altered: Any = copy.deepcopy(net.model)
        noise = torch.randn(altered.head.weight.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            altered.head.weight.add_(noise, alpha=self.amount)
        return replace(net, model=altered)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A removal with a bug."""

    def __call__(self, net: Net, data: Split, **options: Any) -> Net:
        raise ZeroDivisionError("a bug\nin two lines")


@dataclass(frozen=True, kw_only=True)
class Choosy:
    """A removal that fails on every model but one, known by the sum of its last layer's weights."""

    only: float

    def __call__(self, net: Net, data: Split, **options: Any) -> Net:
        if float(net.model.head.weight.detach().sum()) != self.only:
            raise BadData("not this one: give it another")
        return replace(net, model=copy.deepcopy(net.model))


@dataclass(frozen=True, kw_only=True)
class Guess:
    """An inspection that suspects one class and sends everything to it."""

    label: int = 0

    def __call__(self, net: Net, data: Split, *, seed: int, runtime: Runtime | None = None) -> Inspected:
        trigger = Reversed(mask=torch.ones(1, 1, 1), pattern=torch.zeros(net.spec.input_shape), success=0.5)
        scores = tuple(math.inf if label == self.label else 0.0 for label in range(net.spec.classes))
        return Inspected(
            suspects=(self.label,), scores=scores, threshold=2.0, triggers={self.label: trigger}, details={"least": 1.5}
        )


@dataclass(frozen=True, kw_only=True)
class Bright:
    """A screen that flags what is brighter than a level."""

    level: float = 0.5

    def __call__(self, net: Net, data: Split, *, seed: int, runtime: Runtime | None = None) -> Screen:
        def screen(inputs: Tensor) -> Tensor:
            return decode(inputs).flatten(1).mean(1) > self.level

        return screen


THEFT = Theft(attack=Knockoff(model=NET, recipe=RECIPE))
PROGRAMME = Programme(
    trials=(
        Trial(name="Knockoff", group="Extraction", steps=(THEFT,)),
        Trial(
            name="Knockoff, then shuffled", group="Extraction", steps=(THEFT, Alteration(attack=Shuffled(amount=0.01)))
        ),
        *(
            Trial(
                name=f"shuffled by {amount}",
                group="Removal",
                steps=(Alteration(attack=Shuffled(amount=amount)),),
                curve=("noise", amount),
            )
            for amount in (3.0, 0.0)
        ),
        Trial(name="refused", group="Removal", steps=(Alteration(attack=Shuffled(fails=True)),)),
        Trial(name="broken", group="Removal", steps=(Alteration(attack=Broken()),)),
    ),
    probes=(
        Probe(name="guess", attack=Guess(label=1)),
        Probe(name="guess, in a stolen copy", attack=Guess(label=1), stolen=(THEFT,)),
        Probe(name="bright", attack=Bright(level=-1.0)),
        Probe(name="dark", attack=Bright(level=2.0)),
    ),
)


@pytest.fixture(scope="module")
def task() -> Task:
    return own_code.make_task()


@pytest.fixture(scope="module")
def marked(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    embed_job(VANILLA, data_of(task), folder / "marked", work_in(folder / "store"), calibrators=2)
    return folder / "marked"


def judged(suspect: Path, marked: Path) -> Verdict:
    key = ModelFolder(marked)
    asked = open_suspect(Named(name=str(suspect)), classes=key.key.classes, runtime=CPU)
    return verify_job(asked, key, Terms(accept="self-reported"))


def data_of(task: Task, **origin: Any) -> Data:
    return Data(task=task, origin=Origin(**{"data": "own_code:make_task"} | origin))


def work_in(store: Path, seed: int = 0, on_event: Any = None) -> Work:
    return Work(seed=seed, runtime=CPU, store=store, on_event=on_event)


def run(
    marked: Path,
    task: Task,
    out: Path,
    programme: Programme = PROGRAMME,
    *,
    pools: Any = None,
    twin: Path | None = None,
    **options: Any,
) -> AuditResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCREENINGS, "bright", Bright)
        return run_audit(
            programme, ModelFolder(marked), replace(data_of(task), pools=pools or {}), out, seed=0, contexts=Contexts(CPU),
            command="test", twin=None if twin is None else ModelFolder(twin), **options,
        )  # fmt: skip


def told(result: AuditResult) -> dict[str, Summary]:
    """Every attack with its rows on the marked model and on the twin, by name; the models themselves have none."""
    return {row.question: row for row in result.report.chapters[0].rows}


def errors(result: AuditResult) -> dict[str, str]:
    return {f"{row.trial or row.probe}, {row.arm}": row.error for row in result.rows if row.error}


@pytest.fixture(scope="module")
def audited(marked: Path, task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("audited")
    return run(marked, task, out), out


def test_every_attack_is_a_row_and_a_failure_takes_nothing_else_along(audited: tuple[AuditResult, Path]) -> None:
    result, _ = audited
    attacks = told(result)
    assert list(attacks) == ["", *names_of(PROGRAMME)]
    assert [[row.outcome for row in attacks[""].rows]] == [["MARKED", "NOT_ESTABLISHED"]]
    assert errors(result) == {
        f"{name}, {arm}": why
        for name, why in (
            ("refused", "there is nothing to shuffle: give it more"),
            ("broken", "ZeroDivisionError: a bug"),
        )
        for arm in ("marked", "unmarked")
    }
    for name in ("Knockoff", "shuffled by 0.0", "shuffled by 3.0", "Knockoff, then shuffled"):
        for row in attacks[name].rows:
            assert not math.isnan(row.accuracy)
            assert row.seconds > 0
    asked = {name: attacks[name].asked for name in attacks}
    assert asked["Knockoff"] == asked["Knockoff, then shuffled"] > 0
    assert asked["shuffled by 0.0"] == 0


def test_nothing_done_changes_no_figure_and_much_done_ruins_the_model(audited: tuple[AuditResult, Path]) -> None:
    attacks = told(audited[0])
    victim, same, ruined = attacks[""], attacks["shuffled by 0.0"], attacks["shuffled by 3.0"]
    for before, after in zip(victim.rows, same.rows, strict=True):
        assert (after.accuracy, after.verdict) == (before.accuracy, before.verdict)
    assert ruined.accuracy.mean < same.accuracy.mean
    assert not usable(ruined, victim)


def test_detection_is_held_against_the_key(audited: tuple[AuditResult, Path], marked: Path) -> None:
    attacks = told(audited[0])
    target = json.loads((marked / "key/key.json").read_text())["trigger"]["target"]
    for name in ("guess", "guess, in a stolen copy"):
        for row in attacks[name].rows:
            assert row.search is not None
            assert row.search.suspects == (1,)
            assert row.search.found == (target == 1)
            assert row.search.false_suspects == int(target != 1)
            ((label, share),) = row.search.reversed_success
            assert label == 1
            assert not math.isnan(share)
    (everything, _), (nothing, _) = attacks["bright"].rows, attacks["dark"].rows
    (victim,) = attacks[""].marked
    assert (everything.detected, everything.flagged) == (1.0, 1.0)
    assert everything.outcome == "NOT_ESTABLISHED"
    assert everything.accuracy == pytest.approx(1 / 5, abs=0.15)
    assert (nothing.detected, nothing.flagged) == (0.0, 0.0)
    assert (nothing.outcome, nothing.wsr, nothing.accuracy) == ("MARKED", victim.wsr, victim.accuracy)


def test_the_files_say_what_the_rows_say(audited: tuple[AuditResult, Path]) -> None:
    result, out = audited
    record = json.loads((out / "audit.json").read_text())
    assert [row_from_json(row, "audit.json") for row in record["rows"]] == [
        row_from_json(row_to_json(row), "a row") for row in result.rows
    ]
    assert record["summary"] == list(result.report.summary)
    assert record["provenance"]["seeds"] == "0"
    assert {"heirmark", "torch", "task", "key", "model", "command"} <= set(record["provenance"])
    page = (out / "audit.html").read_text()
    for word in ("Knockoff", "there is nothing to shuffle", "ZeroDivisionError", "by noise", "unmarked twin", "bright"):
        assert word in page
    assert "<script" not in page


def test_a_finished_audit_computes_nothing_again(audited: tuple[AuditResult, Path], marked: Path, task: Task) -> None:
    result, out = audited
    events: list[Event] = []
    good = replace(
        PROGRAMME, trials=tuple(trial for trial in PROGRAMME.trials if trial.name not in ("refused", "broken"))
    )
    again = run(marked, task, out, good, on_event=lambda event, label: events.append(event))
    assert {event.what for event in events} <= {"cached"}
    assert list(map(str, again.rows)) == [str(row) for row in result.rows if not row.error]


def test_a_twin_of_ones_own_and_what_is_missing(marked: Path, task: Task, tmp_path: Path) -> None:
    few = replace(PROGRAMME, trials=(), probes=())
    bare = tmp_path / "bare"
    shutil.copytree(marked, bare)
    (bare / "twin.json").unlink()
    with pytest.raises(BadConfig, match=r"how to train its unmarked twin \(no twin.json\): name one with --twin"):
        run(bare, task, tmp_path / "a", few)
    own = run(bare, task, tmp_path / "a", few, twin=marked)
    victim = told(own)[""]
    assert victim.control_wsr.mean == victim.wsr.mean
    assert len(own.report.summary) == 1, "of attacks that were not made nothing is told"
    assert str(marked) in (tmp_path / "a" / "audit.html").read_text()
    (bare / "twin.json").write_text(json.dumps({"type": "Unmarked", "modle": "x"}))
    with pytest.raises(BadArtifact, match="foreign or damaged"):
        _ = ModelFolder(bare).twin
    (bare / "twin.json").write_text("[]")
    with pytest.raises(BadArtifact, match="no unmarked model"):
        _ = ModelFolder(bare).twin
    (bare / "calibration.json").unlink()
    with pytest.raises(BadArtifact, match=r"has no calibration.json: embed the model with --calibrators 5"):
        run(bare, task, tmp_path / "b", few)


def test_a_task_that_is_not_the_models_own_is_refused(marked: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="its twin would be no twin: leave --data out"):
        run(marked, own_code.make_other_task(), tmp_path / "out")


def test_jobs_of_a_thief(marked: Path, task: Task, tmp_path: Path) -> None:
    folder, data, work = ModelFolder(marked), data_of(task), work_in(tmp_path / "store", seed=1)
    facts = remove_job(Alteration(attack=Shuffled(amount=0.0)), folder, data, tmp_path / "out", work)
    assert facts["model"] == str(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.json", "model.safetensors", "task.json"}
    assert judged(tmp_path / "out", marked).outcome == "MARKED"
    seen = inspect_job(Guess(label=2), folder, data, work)
    assert seen["suspects"] == [task.classes[2]]
    assert "targets" not in seen, "without a key nothing of it is told"
    assert seen["scores"][task.classes[2]] is None
    held = inspect_job(Guess(label=2), folder, data, work, folder)
    assert held["target_found"] == (task.classes[2] in held["targets"])
    assert not math.isnan(held["reversed_success"][task.classes[2]])
    screened = screen_job(Bright(level=-1.0), folder, data, work, folder)
    assert (screened["detected"], screened["outcome"]) == (1.0, "NOT_ESTABLISHED")


# The words


def attack(
    name: str, outcome: str, accuracy: float, twin: str = "", curve: tuple[str, float] | None = None, **values: Any
) -> Summary:
    place: dict[str, Any] = {"block": "b", "marking": "m", "trial": name, "group": "Removal", "curve": curve, "seed": 0}
    rows = [
        Row(
            **place, arm=arm, accuracy=accuracy, verdict=Brief(outcome=said, wsr=0.5, p_value=0.1) if said else None,
            error="" if said else "no", **values,
        )
        for arm, said in (("marked", outcome), ("unmarked", twin))
    ]  # fmt: skip
    return Summary(rows=tuple(rows))


def search(name: str, found: Exposed, twin: Exposed) -> Summary:
    place: dict[str, Any] = {"block": "b", "marking": "m", "probe": name, "seed": 0, "stage": "expose/0"}
    return Summary(rows=(Row(**place, arm="marked", search=found), Row(**place, arm="unmarked", search=twin)))


def screen(name: str, outcome: str, accuracy: float) -> Summary:
    place: dict[str, Any] = {"block": "b", "marking": "m", "probe": name, "seed": 0, "stage": "screen/0"}
    found = Screened(detected=0.5, flagged=0.1)
    return Summary(rows=(Row(**place, arm="marked", accuracy=accuracy, verdict=Brief(outcome=outcome), screen=found),))


def test_the_story_counts_what_a_thief_would_use() -> None:
    victim = attack("", "MARKED", 0.9, "NOT_ESTABLISHED")
    rows = (
        attack("kept", "MARKED", 0.88, "NOT_ESTABLISHED"),
        attack("lost", "NOT_ESTABLISHED", 0.85, "MARKED"),
        attack("ruined", "NOT_ESTABLISHED", 0.3, "NOT_ESTABLISHED"),
        attack("failed", "", math.nan),
        attack("mild", "MARKED", 0.9, curve=("rate", 0.1)),
        attack("strong", "NOT_ESTABLISHED", 0.85, curve=("rate", 0.9)),
        attack("ruin", "NOT_ESTABLISHED", 0.1, curve=("rate", 1.0)),
    )
    story = " ".join(tell_audit(victim, rows))
    assert (
        "Of 3 attacks, 2 left a model within 10 points of that accuracy, and 1 of these are still called marked."
        in story
    )
    assert "So are 1 of the 2 points of the curves at which the model is of use." in story
    assert "to: lost, strong." in story
    assert "called marked in 1 of 3 cases (lost)" in story
    assert "1 attacks failed" in story
    nothing = Exposed(found=False, false_suspects=0)
    probes = (
        search("seen", Exposed(found=True, false_suspects=2), nothing),
        search("blind", nothing, Exposed(found=False, false_suspects=1, suspects=(3,))),
        screen("sharp", "NOT_ESTABLISHED", 0.89),
        screen("dear", "NOT_ESTABLISHED", 0.5),
        screen("dull", "MARKED", 0.9),
    )
    story = " ".join(tell_audit(victim, (*rows, *probes)))
    assert "names its target in 1 of 2 ways (seen with 2 others); 1 suspect a class of the unmarked twin" in story
    assert "as well (blind)." in story
    assert "1 of 3 screens keep a verifier from the mark (sharp)." in story
    assert [survives(found) for found in rows] == [True, False, False, False, True, False, False]
    unsure = " ".join(tell_audit(attack("", "INVALID", 0.9), (*rows, *probes)))
    assert "Before any attack its verdict is invalid, so that no row tells what an attack does to the mark." in unsure
    assert "is lost" not in unsure
    assert "screens" not in unsure
    assert "Before any attack" not in story


def test_tables_show_every_row_and_no_markup(audited: tuple[AuditResult, Path]) -> None:
    from io import StringIO

    from rich.console import Console

    rows = audited[0].rows
    sink = StringIO()
    console = Console(file=sink, width=80)
    evil = replace(rows[2], trial="[bold]evil[/bold]")
    found = summarise([*rows, evil])
    console.print(attack_table(found))
    console.print(probe_table(found))
    shown = sink.getvalue()
    for word in ("[bold]evil[/bold]", "shuffled by 3.0", "failed", "stolen copy", "dark"):
        assert word in shown


# The programmes


@pytest.mark.parametrize("profile", PROFILES)
def test_a_programme_has_every_registered_attack(profile: str) -> None:
    programme = PROFILES[profile](NET, pool="mnist")
    used = {type(step.attack) for trial in programme.trials for step in trial.steps}
    used |= {type(probe.attack) for probe in programme.probes}
    known = {**EXTRACTIONS, **REMOVALS, **INSPECTIONS, **SCREENINGS}
    assert used == set(known.values()) - ({DFME, MAZE} if profile == "quick" else set())
    names = [(trial.group, trial.name) for trial in programme.trials]
    assert len(set(names)) == len(names)
    assert {trial.group for trial in programme.trials} == {
        "Extraction",
        "Removal from the marked model",
        "Removal after theft",
    }


def test_without_another_data_set_nothing_asks_for_one() -> None:
    steps = [step for trial in PROFILES["quick"](NET).trials for step in trial.steps]
    assert {step.pool for step in steps} == {"adversary", None}


def test_thieves_take_the_victims_architecture() -> None:
    programme = PROFILES["quick"](NET)
    models = {step.attack.model for trial in programme.trials for step in trial.steps if isinstance(step, Theft)}
    assert models == {NET, "vgg-like:width=16,dropout=0.1"}


def test_every_attack_has_quick_settings_of_its_own_kind() -> None:
    known = {**EXTRACTIONS, **REMOVALS, **INSPECTIONS, **SCREENINGS}
    assert len(known) == sum(map(len, (EXTRACTIONS, REMOVALS, INSPECTIONS, SCREENINGS))), "two attacks share a name"
    assert {name: type(quick_attacks()[name]) for name in known} == known


def test_a_part_of_a_programme() -> None:
    programme = PROFILES["quick"](NET)
    part = select(programme, ["PRUNING of", "outlier"])
    assert len(part.trials) == 18
    assert [probe.screens for probe in part.probes] == [True, True]
    assert select(programme, []) == programme
    with pytest.raises(
        BadConfig, match="no attack is called nothing or none: choose a part of one of Knockoff, probabilities"
    ):
        select(programme, ["nothing", "none"])


def test_an_int8_folder_can_be_asked_and_no_more(marked: Path, task: Task, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out, data, work = tmp_path / "out", data_of(task), work_in(tmp_path / "store", seed=1)
    remove_job(Alteration(attack=Int8(calibration=8)), ModelFolder(marked), data, out, work)
    assert judged(out, marked) == judged(out / "model.onnx", marked)
    assert inspect_folder(out)["model"] == "an ONNX file"
    with pytest.raises(BadArtifact, match="which can be asked and no more"):
        inspect_job(Guess(label=0), ModelFolder(out), data, work)


def test_a_thiefs_jobs_refuse_what_does_not_fit(marked: Path, task: Task, tmp_path: Path) -> None:
    folder, work = ModelFolder(marked), work_in(tmp_path, seed=1)
    other = data_of(replace(task, classes=(*task.classes, "one more")))
    with pytest.raises(ShapeMismatch, match="name the model's own data"):
        inspect_job(Guess(label=0), folder, other, work)
    with pytest.raises(ShapeMismatch, match="name the model's own data"):
        screen_job(Bright(level=-1.0), folder, other, work, folder)
    foreign = tmp_path / "foreign"
    key = read_key(marked)
    make_key(
        queries=key.queries[:, :, ::2, ::2].contiguous(),
        expected=key.expected,
        controls=key.controls[:, :, ::2, ::2].contiguous(),
        host_labels=key.host_labels,
        classes=key.classes,
        method="t2s",
        trigger={},
    ).save(foreign)
    with pytest.raises(ShapeMismatch, match="name the key of a model of the same task"):
        inspect_job(Guess(label=0), folder, data_of(task), work, ModelFolder(foreign))


def test_a_part_of_an_audit_writes_beside_the_whole(marked: Path, task: Task, tmp_path: Path) -> None:
    few = replace(PROGRAMME, trials=(), probes=())
    whole, part = (run(marked, task, tmp_path / "out", few, name=name) for name in ("audit", "part"))
    assert (whole.path.name, part.path.name) == ("audit.html", "part.html")
    assert whole.path.is_file()
    assert part.path.with_suffix(".json").is_file()


def test_quick_thieves_learn_as_the_victim_did(marked: Path) -> None:
    assert ModelFolder(marked).recipe == ModelFolder(marked).twin.pretraining
    assert ModelFolder(marked.parent).recipe == DEMO.recipe
    adam = replace(DEMO.recipe, optimizer="adam", learning_rate=1e-3)
    trials = PROFILES["quick"]("naivenet", recipe=adam).trials
    attacks = [step.attack for trial in trials for step in trial.steps]
    assert {attack.recipe.optimizer for attack in attacks if isinstance(attack, Knockoff)} == {"adam"}
    assert {attack.recipe.learning_rate for attack in attacks if isinstance(attack, FineTuning)} == {2e-4}


def test_what_fails_on_the_twin_alone_is_told_beside_the_rest(marked: Path, task: Task, tmp_path: Path) -> None:
    model = load_model(marked).model
    attack = Choosy(only=float(model.head.weight.detach().sum()))
    trial = Trial(name="choosy", group="Removal", steps=(Alteration(attack=attack),))
    result = run(marked, task, tmp_path / "out", replace(PROGRAMME, trials=(trial,), probes=()))
    (found,) = told(result)["choosy"].marked
    assert (found.outcome, found.error) == ("MARKED", "")
    assert errors(result) == {"choosy, unmarked": "not this one: give it another"}
    assert "not this one" in result.path.read_text()


def names_of(programme: Programme) -> list[str]:
    return [*(trial.name for trial in programme.trials), *(probe.name for probe in programme.probes)]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("trigger", "kinds"),
    [
        ("tiles", ("tiles",)),
        ("mix", ("halves", "insets", "blend", "stripes")),
        ("patch", ("patch",)),
        ("feature", ()),
        ("out-of-distribution", ()),
        (None, ()),
    ],
)
def test_a_thief_who_knows_the_method_knows_its_kind_of_trigger(
    profile: str, trigger: str | None, kinds: tuple[str, ...]
) -> None:
    programme = PROFILES[profile](NET, trigger=trigger)
    knows = f"by one who knows the method ({', '.join(kinds)})"
    for group in ("Removal from the marked model", *(["Removal after theft"] if profile == "full" else [])):
        rows = {
            trial.name.removesuffix(", after theft"): trial.steps[-1].attack
            for trial in programme.trials
            if trial.group == group
        }
        assert set(rows["unlearning of composites of every kind"].kinds) == set(COMPOSITES)
        assert [name for name in rows if "knows" in name] == ([f"unlearning {knows}"] if kinds else [])
        if kinds:
            assert rows[f"unlearning {knows}"].kinds == kinds
    screens = {probe.name: probe.attack for probe in programme.probes if probe.screens}
    assert set(screens["composites of every kind"].kinds) == set(COMPOSITES)
    assert [screens[name].kinds for name in screens if "knows" in name] == ([kinds] if kinds else [])
    told = " ".join(programme.left_out)
    assert (f"triggers ({trigger}) are none" in told) == (trigger is not None and not kinds)


def test_the_kind_of_trigger_is_all_that_the_plan_reads_of_a_key(
    marked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a key in which everything else raises when it is looked at."""

    class Secretive:
        kind = "mix"

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"the plan of an audit reads {name} of a key")

    monkeypatch.setattr("heirmark.jobs.folder.read_key", lambda folder: Secretive())
    assert ModelFolder(marked).trigger_kind == "mix"
    assert ModelFolder(tmp_path).trigger_kind is None


def test_a_thief_has_a_guess_for_every_kind_of_composite() -> None:
    composites = {Tiles, Mix, Patch, Groups}
    others = {Feature, OutOfDistribution, TextStamp, GaussianNoise, AbstractImages, Entangled, RandomLabels, Mistakes}
    others |= {Phrase, Tone}  # patches of texts and of sounds, at which no attack here makes guesses
    assert set(TRIGGERS.values()) == composites | others, "say in programme.GUESSES what a thief makes of a new kind"
    assert len(GUESSES) == len(composites)


def test_attacks_are_fitted_to_what_the_adversary_has() -> None:
    plenty = Sizes(images=9000, classes=10)
    assert fitted(quick_attacks(), plenty) == quick_attacks()
    assert fitted(paper_attacks(), plenty) == paper_attacks()
    few = fitted(quick_attacks(), Sizes(images=100, classes=2))
    assert few["active-thief"].queries == 50
    assert few["jbda"].seeds == 100
    assert few["lof"].neighbours == 20
    assert fitted(quick_attacks(), Sizes(images=15, classes=2))["lof"].neighbours == 14
    assert few["composites"].false_alarms == pytest.approx(1 / 21)
    assert few["overwriting"].kind == "patch"
    assert {name for name in few if few[name] != quick_attacks()[name]} == {
        "active-thief", "jbda", "composites", "overwriting",
    }  # fmt: skip
    for images in (495, 494, 100, 20, 3):
        screen = fitted(paper_attacks(), Sizes(images=images, classes=10))["composites"]
        assert least_held_out(screen.false_alarms) <= max(1, round(screen.held_out * images))
        assert (screen.false_alarms == 0.01) == (images >= 493)


def test_a_quick_attack_that_no_setting_fits_is_refused() -> None:
    few = Sizes(images=100, classes=2)
    for name in ("mislabelled-mixes", "neural-cleanse", "mix-probing"):
        with pytest.raises(BadConfig, match=f"{name} is not for 2 classes, since .*: choose another attack"):
            quick_attack(name, few)
    assert quick_attack("overwriting", few, RECIPE) == replace(quick_attacks(RECIPE)["overwriting"], kind="patch")
    assert fitting(quick_attacks()["lof"], quick_attack("lof", few), few) == ""


def test_thieves_who_ask_about_another_data_set_are_fitted_to_it() -> None:
    def asking(profile: str, pool: int) -> tuple[dict[str, Any], Programme]:
        programme = PROFILES[profile](NET, pool="other", sizes=Sizes(images=9000, classes=10, pool=pool))
        thefts = [(trial.name, step) for trial in programme.trials for step in trial.steps if isinstance(step, Theft)]
        return {name: step.attack.queries for name, step in thefts if step.pool == "other"}, programme

    names = [
        "Knockoff with other, probabilities", "Knockoff with other, labels", "adaptive Knockoff with other, probabilities",
        "ActiveThief with other, labels",
    ]  # fmt: skip
    some, programme = asking("quick", 60_000)
    assert some == dict(zip(names, (QUICK_POOL, QUICK_POOL, QUICK_POOL // 2, 4000), strict=True))
    assert any("Of the 60000 images of other a thief asks about 20000" in line for line in programme.left_out)
    few, programme = asking("quick", 100)
    assert few == dict(zip(names, (None, None, None, 50), strict=True))
    assert not any("images of other" in line for line in programme.left_out)
    assert list(asking("full", 60_000)[0].values())[:3] == [None] * 3


def test_an_audit_with_another_data_set(marked: Path, task: Task, tmp_path: Path) -> None:
    pool = Split(inputs=torch.randint(256, (60, 1, 16, 16), dtype=torch.uint8), labels=torch.arange(60) % 3)
    programme = PROFILES["quick"](NET, pool="letters", trigger="mix", sizes=Sizes.of(task, pool), recipe=RECIPE)
    part = select(programme, ["with letters", "marked model: transfer to letters"])
    part = replace(
        part,
        trials=tuple(
            replace(trial, steps=tuple(replace(step, attack=short(step.attack)) for step in trial.steps))
            for trial in part.trials
        ),
        probes=(),
    )
    result = run(marked, task, tmp_path / "out", part, pools={"letters": pool})
    assert errors(result) == {}
    assert {name.partition(",")[0]: attack.asked for name, attack in told(result).items() if name} == {
        "Knockoff with letters": 60, "adaptive Knockoff with letters": 30, "ActiveThief with letters": 30,
        "transfer to letters and back": 0,
    }  # fmt: skip


TINY_T2S = T2S(
    model=NET, triggers=40, key_size=40, pretraining=RECIPE, trigger_batch=8,
    rehearsal=Rehearsal(
        recipe=Recipe(epochs=1, batch_size=32, learning_rate=0.02, weight_decay=0.0), trigger_batch=8, update=Balanced()
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    "trigger",
    [pytest.param(Feature(steps=5), marks=pytest.mark.slow), OutOfDistribution(dataset="other", source=1)],
    ids=["feature", "ood"],
)
def test_models_with_the_papers_other_triggers_are_audited(trigger: Any, task: Task, tmp_path: Path) -> None:
    """As the command line does it: embedded with the other data set's images, audited on the task as it is."""
    generator = torch.Generator().manual_seed(0)
    other = Split(
        inputs=torch.randint(256, (200, 3, 20, 20), dtype=torch.uint8, generator=generator),
        labels=torch.arange(200) % 2,
    )
    method, data = replace(TINY_T2S, trigger=trigger), data_of(replace(task, foreign=other), foreign="other")
    embed_job(method, data, tmp_path / "marked", work_in(tmp_path / "store"), calibrators=2)
    kind = ModelFolder(tmp_path / "marked").trigger_kind
    assert kind == {"Feature": "feature", "OutOfDistribution": "out-of-distribution"}[type(trigger).__name__]
    programme = PROFILES["quick"](NET, trigger=kind, sizes=Sizes.of(task), recipe=RECIPE)
    part = select(
        programme,
        ["extraction: Knockoff, labels", "model: pruning of 10", "model: unlearning", "theft: fresh last layer"],
    )
    some = select(programme, ["neural", "outlier", "screening: composites"])
    result = run(
        tmp_path / "marked", task, tmp_path / "out",
        replace(part, probes=tuple(replace(probe, attack=short(probe.attack)) for probe in some.probes if not probe.stolen)),
    )  # fmt: skip
    assert errors(result) == {}
    assert len(result.rows) == 2 * (1 + 5 + 1 + 3)
    victim = told(result)[""]
    assert victim.control[0].outcome == "NOT_ESTABLISHED"
    mine, twin = (row.whole for row in victim.rows)
    assert mine is not None
    assert twin is not None
    assert twin.wsr < 1 == mine.wsr
    assert f"whose triggers ({kind}) are none" in (tmp_path / "out/audit.html").read_text()


def short(attack: Any) -> Any:
    """The same attack with as little work as it can do."""
    if isinstance(attack, DFME | MAZE):
        attack = replace(attack, queries=100, batch_size=8, latent=4, width=4, student_steps=1)
    one = Recipe(epochs=1, batch_size=32, learning_rate=0.01)
    little = {"recipe": one, "own_recipe": one, "head_recipe": one, "rounds": 1, "model": NET}
    little |= {} if isinstance(attack, DFME | MAZE) else {"steps": 2}
    known = {field.name for field in dataclasses.fields(attack)}
    return replace(attack, **{name: value for name, value in little.items() if name in known})


def test_an_audit_of_a_task_of_two_classes_and_few_images_runs_through(tmp_path: Path, tiny_task_of: Any) -> None:
    """Quick settings but for epochs and steps: what does not fit is left out and told of, and no row is an error."""
    pytest.importorskip("onnxruntime")
    task = tiny_task_of(classes=2, train=600, test=80)
    method = replace(VANILLA, trigger=Patch(), key_size=30, pretraining=replace(RECIPE, epochs=1))
    data = data_of(task, data="conftest:make_tiny_task")
    embed_job(method, data, tmp_path / "marked", work_in(tmp_path / "store"), calibrators=2)
    whole = PROFILES["quick"](NET, trigger="patch", sizes=Sizes.of(task))
    programme = replace(
        whole,
        trials=tuple(
            replace(trial, steps=tuple(replace(step, attack=short(step.attack)) for step in trial.steps))
            for trial in whole.trials
            if trial.curve is None and (trial.group != CHAIN or trial.name == "second extraction")
        ),
        probes=tuple(replace(probe, attack=short(probe.attack)) for probe in whole.probes if not probe.stolen),
    )
    result = run(tmp_path / "marked", task, tmp_path / "out", programme, twin=tmp_path / "marked")
    assert errors(result) == {}
    assert list(told(result)) == ["", *names_of(programme)]
    left_out = "mislabelled-mixes", "neural-cleanse", "mix-probing"
    page = (tmp_path / "out/audit.html").read_text()
    assert all(f"Left out: {name}, since" in page for name in left_out)
    assert len(whole.left_out) == 5


def test_the_report_says_whose_images_the_thief_has(task: Task) -> None:
    lent = replace(task, adversary=task.owner, protocol="paper")
    fresh, shown = (" ".join(notes_on(each, None)) for each in (task, lent))
    assert "of which the owner trained on nothing" in fresh
    assert "the very images that the owner trained on" in shown
