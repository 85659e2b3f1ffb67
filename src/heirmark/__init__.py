"""heirmark: black-box watermarks that copies made by model extraction inherit, and a sound proof that they did.

The whole in five lines::

    task = heirmark.load_task("fashion-mini", seed=0)
    marked = heirmark.T2S(epochs=3)(task, seed=0)
    box = heirmark.BlackBox(marked.model, classes=10, answers="label", budget=50_000)
    stolen = heirmark.Knockoff()(box, task.adversary, seed=1)
    verdict = heirmark.verify(heirmark.Suspect.from_module(stolen.model, classes=10), marked.key)
"""
