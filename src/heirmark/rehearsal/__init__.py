"""One simulated theft step and its exact hypergradient, without a second-order graph.

Pure functions over parameters, for any student and teacher ``nn.Module`` and any differentiable distillation loss
(Tuning to Survive, arXiv 2606.11698). A loop that tunes a target model against an ever-learning thief:

>>> import torch
>>> from torch import nn
>>> teacher, thief = nn.Linear(4, 3), nn.Linear(4, 3)
>>> student, optimiser = student_state(thief), torch.optim.SGD(teacher.parameters(), 0.01)
>>> x, y, triggers, targets = torch.rand(8, 4), torch.zeros(8).long(), torch.rand(2, 4), torch.ones(2).long()
>>> for number in range(3):
...     step = rehearsal_step(teacher, thief, student, x, y, triggers, targets, alpha=0.05, seed=number)
...     direction = combine_balanced(step.hypergradient, step.utility_gradient, 1.0)
...     assign(teacher, gradients=direction, buffers=step.teacher_buffers)
...     optimiser.step()
...     student = step.student
>>> step.derivative
'forward'
"""

from heirmark.rehearsal.combine import combine_balanced, combine_paper, cosine, norm
from heirmark.rehearsal.derivative import Derivative, choose_derivative
from heirmark.rehearsal.losses import Distillation, DistillationLoss
from heirmark.rehearsal.step import RehearsalStep, assign, rehearsal_step
from heirmark.rehearsal.student import (
    Student,
    Theft,
    Transfer,
    TriggerMode,
    simulate_theft,
    student_module,
    student_state,
    transfer_loss,
)

__all__ = [
    "Derivative",
    "Distillation",
    "DistillationLoss",
    "RehearsalStep",
    "Student",
    "Theft",
    "Transfer",
    "TriggerMode",
    "assign",
    "choose_derivative",
    "combine_balanced",
    "combine_paper",
    "cosine",
    "norm",
    "rehearsal_step",
    "simulate_theft",
    "student_module",
    "student_state",
    "transfer_loss",
]
