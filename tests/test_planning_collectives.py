"""Messages, read off small programs."""

import pytest
from planning_cases import PROGRAM, SCATTERS

from paligemma_lib.planning.collectives import _group, read_collectives
from paligemma_lib.planning.hlo import parse
from paligemma_lib.planning.slices import Slices

SLICES = Slices.named("v5e:2x4")
POSITIONS = [(0, x, y) for y in range(4) for x in range(2)]


def test_a_message_counts_once_a_channel_times_the_turns():
    found = {
        each.kind: each for each in read_collectives(parse(PROGRAM), SLICES, POSITIONS, unknown=5)
    }
    gather, reduce, permute = (
        found[kind] for kind in ("all-gather", "all-reduce", "collective-permute")
    )
    assert len(found) == 4
    assert (gather.bytes, gather.times, gather.group) == (64 * 64 * 2, 18, 8)
    assert gather.source == "jit(update)/while/take"
    assert gather.received == (64 * 64 * 2 * 7 / 8, 0)
    assert (reduce.bytes, reduce.times) == (404, 1)
    assert reduce.received == (2 * 404 * 7 / 8, 0)
    assert (permute.bytes, permute.times, permute.group) == (4, 18 * 5, 2)


def test_a_sum_of_which_each_device_takes_a_part_is_a_reduce_scatter():
    (scatter,) = [
        each
        for each in read_collectives(parse(PROGRAM), SLICES, POSITIONS)
        if each.kind == "reduce-scatter"
    ]
    assert (scatter.bytes, scatter.source) == (320, "jit(update)/dot_general")
    assert scatter.received == (320 * 7 / 8, 0)


def test_messages_that_share_a_channel_all_count():
    found = read_collectives(parse(SCATTERS), SLICES, POSITIONS)
    assert [(each.kind, each.bytes) for each in found] == [
        ("reduce-scatter", 8 * 16 * 2 + 32 * 2),
        ("reduce-scatter", 64 * 2),
        ("all-gather", 64 * 2),
    ]


def test_a_sum_that_someone_wants_whole_is_not_scattered():
    text = SCATTERS.replace("dynamic-slice(%all-reduce.2, %device.1)", "negate(%all-reduce.2)")
    found = read_collectives(parse(text), SLICES, POSITIONS)
    assert [each.kind for each in found] == ["reduce-scatter", "all-reduce", "all-gather"]


def test_a_message_between_slices_is_shared_by_the_chips_of_each():
    two = Slices.named("v5e:2x4", count=2)
    positions = [(s, x, y) for s in range(2) for y in range(4) for x in range(2)]
    text = PROGRAM.replace("[1,8]<=[8]", "[1,16]<=[16]")
    (reduce,) = [
        each for each in read_collectives(parse(text), two, positions) if each.kind == "all-reduce"
    ]
    assert (reduce.group, reduce.slices, reduce.links) == (16, 2, 2)
    assert reduce.received == (2 * 404 * 7 / 8, 2 * 404 / 8 / 2)


def test_a_sum_that_is_sent_in_fewer_bits_counts_those():
    text = PROGRAM.replace("(f32[], f32[100]{0}) all-reduce(", "(bf16[], bf16[100]{0}) all-reduce(")
    found = read_collectives(parse(text), SLICES, POSITIONS)
    assert [each.bytes for each in found if each.kind == "all-reduce"] == [202]


def test_what_the_hosts_of_slices_send_is_a_message():
    text = PROGRAM.replace(
        "  %l = f32[] get",
        "  %begin = token[] after-all()\n"
        "  %send.1 = (f32[100]{0}, u32[], token[]) send(%p.12, %begin), channel_id=7, "
        'is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:7}",'
        '_xla_megascale_transfer_type="ALL_REDUCE"}\n  %l = f32[] get',
    )
    two = Slices.named("v5e:2x4", count=2)
    found = read_collectives(parse(text), two, [(0, x, y) for y in range(4) for x in range(2)])
    (across,) = [each for each in found if each.slices > 1]
    assert (across.kind, across.bytes, across.times) == ("all-reduce", 400, 1)
    assert across.received == (0, 400)
    assert len(found) == 5  # the others are still there


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,2},{1,3}}, x", [0, 2]),
        ("replica_groups=[4,2]<=[8], x", [0, 1]),
        ("replica_groups=[2,4]<=[4,2]T(1,0), x", [0, 2, 4, 6]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, x", [0, 1, 2, 3]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, x", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}, x", list(range(8))),
        ("replica_groups=mesh['a'=8] {'a':(2)2}, x", [0, 2]),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]<=[2,4]T(1,0)) {'a'}, x", [0, 2]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'b'}, x", [3, 2]),
        ("replica_groups={}, x", list(range(8))),
        ("source_target_pairs={{3,5},{5,3}}, x", [3, 5]),
    ],
)
def test_groups_in_all_forms(text, group):
    assert _group(text, 8) == group
