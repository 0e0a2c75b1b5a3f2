"""Captions images for several clients with one model: requests take turns and report progress.

    service = Service(lambda: pg.captioner.load("nano"), prepare=[Greedy(), Beam(4)])
    request = service.ask([image], prompt="caption en", sampler=Beam(4), max_new_tokens=32)
    while not (progress := request.progress()).over:
        print(progress.stage, progress.ahead, progress.answers[0].text)
        time.sleep(0.2)

One thread loads the model and compiles, another writes captions. Requests take turns image by
image, so a request with many images does not block the others. Nor does a request that waits for
its sampler to be compiled.
"""

from paligemma_lib.serving.answers import Answer, Progress, Stage
from paligemma_lib.serving.caption_writer import Writer
from paligemma_lib.serving.queue import Busy, Queue, Request
from paligemma_lib.serving.service import Service

__all__ = ["Answer", "Busy", "Progress", "Queue", "Request", "Service", "Stage", "Writer"]
