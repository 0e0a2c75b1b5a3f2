"""Captions images for many clients with one model: an engine, below the web app and the endpoint.

    engine = Engine(lambda: pg.captioner.load("nano"), prepare=[Greedy(), Beam(4)])
    job = engine.submit(image, prompt="caption en", sampler=Beam(4), max_new_tokens=32)
    print(job.wait().text)

Jobs of all clients are written together, in the rows of one batch, which they enter and leave
between tokens. Clients take turns; what waits is bounded.
"""

from paligemma_lib.serving.answers import Answer, Busy, Stage, Unavailable
from paligemma_lib.serving.engine import Engine
from paligemma_lib.serving.jobs import Job

__all__ = ["Answer", "Busy", "Engine", "Job", "Stage", "Unavailable"]
