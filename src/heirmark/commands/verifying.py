"""Judge a suspect with a key."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heirmark.commands.asking import Fence, Published, Record
from heirmark.commands.options import (
    FAILURE,
    MARKED,
    NOT_ESTABLISHED,
    Custom,
    Device,
    Json,
    Run,
    guarded,
    print_json,
)
from heirmark.commands.wiring import Ordinary, Wire
from heirmark.console import error_line, show
from heirmark.errors import BadConfig, HeirmarkError

if TYPE_CHECKING:
    from heirmark.runtime import Runtime
    from heirmark.verification.many import Single


@guarded
def verify(
    suspects: Annotated[
        list[str],
        typer.Argument(
            metavar="SUSPECT...",
            help="Folder of the suspect's model, an .onnx file, http(s)://, package.module:name of a module or a function, or "
            "zoo:NAME of the package's zoo; of several, each is judged with each key, and all verdicts are corrected together.",
        ),
    ],
    keys: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            help="Folder of the key, or of the marked model; of the zoo's, the zoo's. Give several for several.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="calibration.json; default: the one beside the key.")
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Significance level.", min=1e-300, max=0.5)] = 0.01,
    calibrators: Annotated[
        list[str] | None,
        typer.Option(
            "--calibrators",
            help="An unmarked model, as a suspect is named, asked here and now; give several. Default: none, or six of the "
            "zoo's for its keys.",
        ),
    ] = None,
    accept: Annotated[
        str,
        typer.Option(
            "--accept", help="Least grade for MARKED: certified, calibrated, self-reported (a file's word), assumed."
        ),
    ] = "calibrated",
    wilcoxon: Annotated[
        float | None,
        typer.Option(
            "--wilcoxon",
            help="Margin of Feature Sharing's test on probabilities, at level 0.05, to stand beside the verdict; 0.3 there.",
            min=0.0,
            max=0.99,
        ),
    ] = None,
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential", help="Ask a few pairs at a time and stop once the level is reached, or all are asked."
        ),
    ] = False,
    max_queries: Annotated[
        int | None,
        typer.Option("--max-queries", help="With --sequential: inputs put to the suspect at most.", min=2),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="If the suspect orders its classes otherwise: for each of its classes the key's, by number, or - for none; of a "
            "service also name=number,..., or auto.",
        ),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            "--normalise", help="mean,std if the suspect wants normalised inputs; or all means, then all stds."
        ),
    ] = None,
    model: Custom = None,
    device: Device = "auto",
    as_json: Json = False,
    *,
    published: Published,
    record: Record,
    fence: Fence,
    wire: Wire,
    ordinary: Ordinary,
) -> int:
    """Judge a suspect with a key, by queries alone. Exit code 0: MARKED (of several one); 3: not established; 1: INVALID."""
    from heirmark.commands.judging import Judging, check_distinct, judge_all, tell_all
    from heirmark.data.zoo import calibrators_for, key_for
    from heirmark.evidence.disclosing import Disclosed
    from heirmark.jobs.evidence import evidence_job
    from heirmark.jobs.folder import ModelFolder
    from heirmark.jobs.isolating import open_isolated
    from heirmark.jobs.opening import Named, open_suspect
    from heirmark.jobs.verify import (
        check_wilcoxon,
        parse_normalisation,
        parse_order,
        wilcoxon_job,
    )
    from heirmark.keys.signing import Signer
    from heirmark.loading import user_factory
    from heirmark.results.grades import as_grade
    from heirmark.wire.addresses import is_address

    keys = keys or list(dict.fromkeys(map(key_for, suspects)))
    pairs = len(suspects) * len(keys)
    if pairs > 1:
        only_of_one = {"--evidence": record.evidence, "--wilcoxon": wilcoxon, "--transcript": wire.transcript}
        for option, given in only_of_one.items():
            if given is not None:
                raise BadConfig(f"{option} is of one suspect and one key: name one of each")
        if len(suspects) > 1 and labels is not None:
            raise BadConfig("--labels is of one suspect: name one")
        if len(keys) > 1 and calibration is not None:
            raise BadConfig("--calibration is of one key: name one, or unmarked models by --calibrators")
        check_distinct(suspects, keys)
    record.check(wilcoxon=wilcoxon, calibration=calibration)
    published.check(calibration)
    if sequential and wilcoxon is not None:
        raise BadConfig("--wilcoxon asks the whole key, and --sequential spares it: leave one of them out")
    if max_queries is not None and not sequential:
        raise BadConfig("--max-queries goes with --sequential: the verdict of the whole key asks all of it")
    if len(set(calibrators or ())) < len(calibrators or ()):
        raise BadConfig("--calibrators: a model is named twice, and would count as two: name each once")
    named_labels = labels is not None and (labels == "auto" or "=" in labels)
    named = Named(
        name=suspects[0],
        factory=None if fence.isolate else user_factory(model),  # importing it is what is not to happen here
        order=None if labels is None or named_labels else parse_order(labels),
        normalise=None if normalise is None else parse_normalisation(normalise),
        limits=fence.limits,
    )
    client = wire.client()

    def judging(path: Path, runtime: Runtime) -> Judging:
        folder, own, unmarked = ModelFolder(path), named, calibrators
        if unmarked is None and calibration is None:
            unmarked = [each for each in calibrators_for(suspects[0], path) if each not in suspects]
        if any(map(is_address, (*suspects, *(unmarked or ())))) or named_labels:
            own = replace(named, asking=ordinary.asking(folder, client, labels))
        return Judging(
            path=path,
            folder=folder,
            named=own,
            opener=partial(open_isolated, factory=model) if fence.isolate else open_suspect,
            runtime=runtime,
            level=level / pairs if sequential else level,  # by e-values one of all may have to reach that
            calibration=calibration,
            sealed_by=published.sealed_by,
            calibrators=unmarked or (),
            accept=accept,
            sequential=sequential,
            max_queries=max_queries,
            plain=wilcoxon is not None,
            vouches=published.vouches_for,
        )

    if pairs > 1:
        with Run(as_json=as_json).bars("ask the suspects") as bars:
            runtime = bars.runtime(device, "float32")
            found = judge_all(suspects, [judging(path, runtime) for path in keys])
        return tell_all(found, level=level, as_json=as_json)
    suspect, key = suspects[0], keys[0]
    disclosed = None if record.evidence is None else Disclosed.load(key)
    with Run(as_json=as_json).bars("ask the suspect") as bars:
        runtime = bars.runtime(device, "float32")
        one = judging(key, runtime)
        # Files are read before a suspect is asked anything, and unmarked models are asked once it is there.
        judge = one.judge(measured=not one.calibrators) if disclosed is None else None
        asked, folder = one.open(suspect), one.folder
        if wilcoxon is not None:
            check_wilcoxon(asked)
        verdict: Single
        if judge is None:
            assert disclosed is not None
            assert record.evidence is not None
            assert record.signer is not None
            if disclosed.drawn and not published.vouches_for(disclosed.registration, disclosed.beacon):
                raise BadConfig(
                    "a drawn key is asked on the record by who knows registration and beacon from elsewhere than the owner: "
                    "give both as they were published, --registration FILE --beacon VALUE"
                )
            verdict = evidence_job(
                asked,
                suspect,
                disclosed,
                record.evidence,
                signer=record.signer,
                calibrators=list(zip(one.calibrators, one.open_calibrators(), strict=True)),
                trained_by=record.trained_by,
                level=level,
                accept=as_grade(accept),
                sequential=sequential,
                max_queries=max_queries,
            )
            by = Signer.of(record.signer).public_key
            error_line(f"{record.evidence} is sealed by {by}: who takes that party's word says recheck --trust {by}")
        else:
            verdict = judge(asked)
        beside = None
        if wilcoxon is not None and verdict.outcome in ("MARKED", "NOT_ESTABLISHED"):  # else there is nothing to test
            try:
                beside = wilcoxon_job(asked, folder, margin=wilcoxon, runtime=runtime)
            except HeirmarkError as error:  # the verdict, which has cost the key, stands
                error_line(f"no test of probabilities: {error}")
    if as_json:
        told = verdict.to_dict()
        print_json(told if wilcoxon is None else {"verdict": told, "wilcoxon": beside and asdict(beside)})
    else:
        show(str(verdict))
        if beside:
            show(str(beside))
    return {"MARKED": MARKED, "NOT_ESTABLISHED": NOT_ESTABLISHED}.get(verdict.outcome, FAILURE)
