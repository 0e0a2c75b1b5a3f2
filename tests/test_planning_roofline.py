"""Chips, slices, and the arithmetic of the roofline."""

import pytest

from paligemma_lib.planning import (
    CHIPS,
    Collective,
    Compiled,
    Slices,
    per_million,
    plan_table,
    predict,
)
from paligemma_lib.planning import slices as slices_module


def collective(**changes):
    values = {"kind": "all-gather", "bytes": 8 * 10**9, "times": 1, "group": 8, "slices": 1}
    return Collective(**{**values, "links": 2, "source": "", **changes})


def compiled(**changes):
    values = {"fits": True, "flops": 197e12, "model_flops": 98.5e12, "hbm_bytes": 81.9e9}
    return Compiled(**{**values, "devices": 8, **changes})


def test_each_part_runs_at_its_published_speed_and_the_slowest_counts():
    found = predict(compiled(collectives=(collective(),)), CHIPS["v5e"])
    assert found.compute == pytest.approx(1.0)
    assert found.memory == pytest.approx(0.1)
    assert found.network == pytest.approx(7e9 / (2 * 50e9))
    assert (found.bound, found.seconds) == ("compute", found.compute)
    assert found.mfu == pytest.approx(0.5)


def test_a_slow_network_lowers_the_mfu():
    found = predict(compiled(collectives=(collective(times=20),)), CHIPS["v5e"])
    assert found.bound == "network"
    assert found.mfu == pytest.approx(0.5 / 1.4)


def test_what_crosses_slices_takes_the_slower_links():
    apart = collective(kind="all-reduce", bytes=10**9, group=2, slices=2, links=0)
    found = predict(compiled(collectives=(apart,)), CHIPS["v5p"])
    assert found.network == pytest.approx(1e9 / (50e9 / 8))


def test_two_devices_on_a_chip_share_it():
    found = predict(compiled(flops=2307e12 / 2), CHIPS["tpu7x"])
    assert found.compute == pytest.approx(1.0)


def test_a_million_images_are_paid_by_the_chip():
    limits = predict(compiled(), CHIPS["v5e"])
    cost = per_million(limits, 250, Slices.named("v5e:2x4", count=2))
    assert cost.hours == pytest.approx(4000 / 3600)
    assert cost.usd == pytest.approx(4000 / 3600 * 16 * 1.20)
    assert per_million(limits, 250, Slices.named("tpu7x:2x2x1")).chips == 4
    assert per_million(limits, 250, Slices.named("v4:2x2x1")).usd is None
    with pytest.raises(ValueError, match="expected slices of TPUs, got cpu:8"):
        per_million(limits, 250, Slices.named("cpu:8"))


def test_names_of_topologies():
    assert Slices.named("v5p:2x2x2").size == 8
    assert Slices.named("tpu7x:2x2x1").size == 8
    assert Slices.named("v5e:4x8", count=2).size == 64
    assert Slices.named("cpu:8").size == 8
    assert Slices.named("v6e:2x4").name == "v6e:2x4"


@pytest.mark.parametrize(
    "name", ["v5e-8", "v5e", "v5e:8", "v5p:2x4", "h100:8", "v5e:0x4", "cpu:2x2"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="such as v5e:2x4"):
        Slices.named(name)


def test_links_of_the_chip_that_has_the_fewest():
    def group(*ranges):
        places = [(0,)]
        for each in ranges:
            places = [(*place, k) for place in places for k in each]
        return places

    small = Slices.named("v5e:4x8")
    assert small.links(group(range(4), range(8))) == 2
    assert small.links(group([0], range(8))) == 1
    pod = Slices.named("v5e:16x16")
    assert pod.links(group(range(16), range(16))) == 4
    assert Slices.named("v5p:2x2x2").links(group(*[range(2)] * 3)) == 3
    assert Slices.named("v5p:4x4x4").links(group(*[range(4)] * 3)) == 6
    assert Slices.named("v5p:2x4x4").links(group(range(2), range(4), range(4))) == 3


def test_without_libtpu_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(slices_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[tpu\]'"):
        Slices.named("v5e:2x4").devices()


def test_published_figures_are_of_one_device_and_plausible():
    for chip in CHIPS.values():
        assert chip.source.startswith("https://")
        assert 50 < chip.flops / chip.hbm_bandwidth < 1000
        assert chip.dcn_bandwidth < chip.link_bandwidth < chip.hbm_bandwidth


def test_the_table_has_what_fits_and_what_does_not():
    fine = compiled(collectives=(collective(),), peak=2**33, limit=2**34)
    bad = Compiled(False, "too large", peak=2**35, limit=2**34)
    lines = plan_table([("a", fine, predict(fine, CHIPS["v5e"])), ("b", bad, None)]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| 8.00 " in lines[2] and "| 50 %" in lines[2] and "| 8.00 " in lines[2]
    assert "does not fit" in lines[3] and "| 32.00" in lines[3]
