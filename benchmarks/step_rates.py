"""Lets training steps take turns, and prints how many captions a second each trains."""

import statistics
from collections.abc import Callable, Mapping
from types import MappingProxyType

BATCH = 8  # examples in a step


def report_rates(
    runs: Mapping[str, Callable[[], float]],
    rounds: int,
    *,
    packed_captions: int,
    needed: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Lets all take turns, and prints captions/s and the ratios of ours to the peers.

    A run makes a step and returns its seconds; that named "ours" has `packed_captions` in it.
    `needed` has the FLOPs of some.
    """
    from accelerator import needed_flops
    from accelerator.measuring import product_rate

    for run in runs.values():
        run()  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    product = 0.0
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(run())
        if needed:
            product = max(product, product_rate(False, "float32", 2048))
    captions = dict.fromkeys(runs, BATCH) | {"ours": packed_captions}
    for name, each in seconds.items():
        rate = captions[name] / statistics.median(each)
        print(f"{name}: {statistics.median(each):.2f} s a step, {rate:.2f} captions/s")
    for name, flops in needed.items():
        print(needed_flops.told(name, flops, statistics.median(seconds[name]), product))
    ours_alone = [name for name in runs if name.startswith("ours")]
    for name in runs.keys() - ours_alone:
        for mine in ours_alone:
            pairs = zip(seconds[mine], seconds[name], strict=True)
            ratio = statistics.median(b / a for a, b in pairs) * captions[mine] / captions[name]
            print(f"{mine} is {ratio:.2f} times as fast as {name}, in captions/s")
