"""One simulated theft step and its exact hypergradient, without a second-order graph; and the loop of many of them.

The steps are pure functions over parameters, for any student and teacher ``nn.Module`` and any differentiable distillation loss
(Tuning to Survive, arXiv 2606.11698). A loop that tunes a target model against an ever-learning thief:

>>> import torch
>>> from torch import nn
>>> from heirmark.training.samples import Samples
>>> teacher, model = nn.Linear(4, 3), nn.Linear(4, 3)
>>> thief, optimiser = Thief(skeleton=model, student=student_state(model), rate=0.05), torch.optim.SGD(teacher.parameters(), 0.01)
>>> clean = Samples(inputs=torch.rand(8, 4), targets=torch.zeros(8).long())
>>> mark = Samples(inputs=torch.rand(2, 4), targets=torch.ones(2).long())
>>> for number in range(3):
...     step = rehearsal_step(teacher, thief, utility=clean, mark=mark, mode=PassMode(seed=number))
...     hypergradient, utility_gradient = step.gradients
...     direction = combine_balanced(hypergradient, utility_gradient, 1.0)
...     assign(teacher, gradients=direction, buffers=step.teacher_buffers)
...     optimiser.step()
...     thief = step.thief
>>> step.derivative
'forward'

:func:`heirmark.rehearsal.loop.rehearse` is that loop as T2S needs it, and stands above training; the rest knows nothing of it.
"""

from heirmark.rehearsal.combine import combine_balanced, cosine, norm
from heirmark.rehearsal.derivative import choose_derivative, directional_derivative
from heirmark.rehearsal.losses import DistillationLoss, LogitLoss
from heirmark.rehearsal.passes import Memory, PassMode
from heirmark.rehearsal.step import RehearsalStep, assign, rehearsal_step
from heirmark.rehearsal.student import (
    Derivative,
    SimulatedTheft,
    Student,
    Thief,
    TransferLoss,
    TriggerMode,
    simulate_theft,
    student_module,
    student_state,
    transfer_loss,
)

__all__ = [
    "Derivative",
    "DistillationLoss",
    "LogitLoss",
    "Memory",
    "PassMode",
    "RehearsalStep",
    "SimulatedTheft",
    "Student",
    "Thief",
    "TransferLoss",
    "TriggerMode",
    "assign",
    "choose_derivative",
    "combine_balanced",
    "cosine",
    "directional_derivative",
    "norm",
    "rehearsal_step",
    "simulate_theft",
    "student_module",
    "student_state",
    "transfer_loss",
]
