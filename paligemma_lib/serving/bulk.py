"""Captions many images of a source with an engine, in the order of their numbers.

for result in caption_numbers(engine, source, range(len(source)), prompt="caption en"):
    print(result)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.data.sources import Record, Source
from paligemma_lib.decode import Greedy
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.serving.engine import Engine
from paligemma_lib.serving.jobs import Job

_READERS = 8  # threads that read records, which may be on slow storage


def caption_numbers(
    engine: Engine,
    source: Source,
    numbers: Iterable[int],
    *,
    prompt: str = "caption en",
    sampler: Strategy = Greedy(),  # noqa: B008 (frozen)
    max_new_tokens: int | None = None,
    seed: int = 0,
) -> Iterator[Captioned | Skipped]:
    """Yields a result for each of these records of a source.

    A caption depends on the record and its number, and not on the other numbers: so a source may be
    captioned in parts, by any number of processes.

    Args:
      engine: an engine with space for four times its rows in its queue.
      source: images; where a record has a prefix, it replaces `prompt`.
      numbers: numbers of records.
      prompt, sampler, max_new_tokens, seed: see `Engine.submit`.

    Yields:
      `Captioned`, or `Skipped` for an image that cannot be read or decoded, or for which the
      model's numbers are not finite.

    Raises:
      ValueError: the model fails.
    """

    def begin(number: int) -> tuple[int, Record, Job] | Skipped:
        where = source.where(number)
        try:
            (record,) = source.read([number])
            job = engine.submit(
                record.image,
                prompt=record.prefix or prompt,
                sampler=sampler,
                max_new_tokens=max_new_tokens,
                seed=seed,
                number=number,
            )
        except (ValueError, OSError) as error:
            return Skipped(where, str(error).removeprefix(f"{where}: "))
        return number, record, job

    def finish(begun: Future[tuple[int, Record, Job] | Skipped]) -> Captioned | Skipped:
        result = begun.result()
        if isinstance(result, Skipped):
            return result
        number, record, job = result
        answer = job.wait()
        if answer.fault in ("request", "model"):  # of this image alone
            return Skipped(source.where(number), answer.problem or "")
        if answer.caption is None:
            raise ValueError(f"{source.where(number)}: {answer.problem}")
        return Captioned(number, record.image_id, tuple(record.captions), answer.caption)

    with ThreadPoolExecutor(_READERS) as pool:
        ahead: deque[Future[tuple[int, Record, Job] | Skipped]] = deque()
        try:
            for number in numbers:
                ahead.append(pool.submit(begin, number))
                if len(ahead) > 3 * engine.rows:
                    yield finish(ahead.popleft())
            while ahead:
                yield finish(ahead.popleft())
        finally:
            for each in ahead:
                each.cancel()
