"""What is to be known about a verdict beside its outcome."""

from __future__ import annotations

from collections.abc import Mapping

FLAGS: Mapping[str, str] = {
    "uncalibrated": "No unmarked model was asked: that they hit at most at chance, 1/C, or at half without hosts, is assumed.",
    "few-calibration-models": "Fewer than 5 independent unmarked models were asked, too few to see how much such models differ.",
    "high-null-rate": "Unmarked models may hit more than half of the key, which can then hardly tell a copy from them.",
    "ignorant-calibrators": "Unmarked models know the hosts far less than the suspect does, or say nearly one class to all of "
    "them: these have no say.",
    "untested-calibrators": "Nothing shows what the unmarked models know of the task: neither their accuracy was measured nor "
    "how many hosts they know.",
    "one-family": "All unmarked models are of one family of nets; what others hit was not measured.",
    "no-hosts": "The queries show nothing of the task; models differ much on such, so unmarked ones are granted half of them.",
    "near-repeats": "Some queries are another one with a little noise: they are left out, for they are no trials of their own.",
    "foreign-controls": "The controls are no more like their queries than others are, so they show no host without its trigger: "
    "unmarked models are granted half of the queries, or all where none was asked.",
    "chosen-labels": "The key says that its labels were drawn at random, and they were not: it is judged as any other key.",
    "disputed-hosts": "No unmarked model gives half of the hosts the class that the key says: as if there were no hosts.",
    "small-key": "Fewer than 100 queries: the interval is wide, and a faint mark goes unseen.",
    "repeated-controls": "Queries share controls; the matched test counts only the first pair of each control.",
    "memorised-key": "The queries trained the marked model: that it hits them shows memory; only a copy's hits show inheritance.",
    "controls-also-hit": "More than a fifth of the hosts get the expected answer without any trigger.",
    "hosts-misread": "The hosts alone get their own class far less often than from unmarked models: the suspect may want other "
    "inputs (--normalise mean,std) or call its classes otherwise (--labels).",
    "another-answer": "Under other names of its classes most triggers would hit, and far fewer hosts alone: if the suspect "
    "orders its classes otherwise, give its order (--labels).",
    "relabelled": "The suspect's classes were renamed by an order that the verifier gave; it must have been known before asking.",
    "normalised": "The suspect was given inputs normalised as the verifier said; that must have been known before asking.",
    "suspect-inaccurate": "The suspect's accuracy is below 50 %: a collapsed model can hit a key by accident.",
    "constant-answers": "The suspect gave one and the same answer to every trigger and every control.",
    "key-too-small": "Fewer than 20 queries: the key is not used at all.",
    "wrong-classes": "The suspect has another number of classes than the key.",
    "wrong-shape": "The suspect takes inputs of another shape than the key's queries.",
    "out-of-memory": "Memory ran out while the suspect was asked, of the machine or of the process that it was allowed.",
    "suspect-failed": "The suspect raised an error, or gave answers that are no labels or finite scores.",
}
"""By name, with what each means."""
