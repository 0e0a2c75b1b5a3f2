"""Reading XLA's programs: loops, messages, memory, on small texts written by hand."""

import pytest

from paligemma_lib.planning.collectives import _group, read_collectives
from paligemma_lib.planning.hlo import parse
from paligemma_lib.planning.slices import Slices
from paligemma_lib.planning.traffic import hbm_bytes

SLICES = Slices.named("v5e:2x4")
POSITIONS = [(0, x, y) for y in range(4) for x in range(2)]

# A scan of 18 layers that gathers each one's weights beside its arithmetic: the message stands in
# the fusions that start and end it. Inside, a loop that does not say how often it turns.
PROGRAM = """\
HloModule jit_update, is_scheduled=true

%start (p.0: bf16[1,8,64]) -> (bf16[1,8,64], bf16[1,64,64]) {
  %p.0 = bf16[1,8,64]{2,1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[1,64,64]{2,1,0:T(8,128)(2,1)} all-gather(%p.0), channel_id=7, \
replica_groups=mesh['a'=1,'b'=8] {'b'}, dimensions={1}, metadata={op_name="jit(update)/while/take"}
  ROOT %custom-call.1 = (bf16[1,8,64]{2,1,0}, /*index=1*/bf16[1,64,64]{2,1,0}) \
custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%finish (p.1: bf16[1,8,64], p.2: bf16[1,64,64]) -> bf16[1,64,64] {
  %p.1 = bf16[1,8,64]{2,1,0} parameter(0)
  %p.2 = bf16[1,64,64]{2,1,0} parameter(1)
  %all-gather.2 = bf16[1,64,64]{2,1,0} all-gather(%p.1), channel_id=7, \
replica_groups=mesh['a'=1,'b'=8] {'b'}, dimensions={1}
  ROOT %custom-call.2 = bf16[1,64,64]{2,1,0} custom-call(%p.2), \
custom_call_target="AsyncCollectiveDone"
}

%sliced (p.3: bf16[18,8,64], p.4: s32[]) -> bf16[1,8,64] {
  %p.3 = bf16[18,8,64]{2,1,0} parameter(0)
  %p.4 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %dynamic-slice.1 = bf16[1,8,64]{2,1,0} dynamic-slice(%p.3, %p.4, %zero, %zero), \
dynamic_slice_sizes={1,8,64}
}

%condition (p.5: (s32[], bf16[18,8,64], f32[])) -> pred[] {
  %p.5 = (s32[], bf16[18,8,64]{2,1,0}, f32[]) parameter(0)
  %limit = s32[]{:T(128)} constant(18)
  %i.1 = s32[] get-tuple-element(%p.5), index=0
  ROOT %lt.1 = pred[] compare(%i.1, %limit), direction=LT
}

%inner_condition (p.6: (s32[], s32[])) -> pred[] {
  %p.6 = (s32[], s32[]) parameter(0)
  %i.2 = s32[] get-tuple-element(%p.6), index=0
  %n = s32[] get-tuple-element(%p.6), index=1
  ROOT %lt.2 = pred[] compare(%i.2, %n), direction=LT
}

%inner_body (p.7: (s32[], s32[])) -> (s32[], s32[]) {
  %p.7 = (s32[], s32[]) parameter(0)
  %x = s32[] get-tuple-element(%p.7), index=0
  %collective-permute.1 = s32[] collective-permute(%x), channel_id=9, \
source_target_pairs={{0,1},{1,0}}
  ROOT %tuple.1 = (s32[], s32[]) tuple(%collective-permute.1, %x)
}

%body (p.8: (s32[], bf16[18,8,64], f32[])) -> (s32[], bf16[18,8,64], f32[]) {
  %p.8 = (s32[], bf16[18,8,64]{2,1,0}, f32[]) parameter(0)
  %i.3 = s32[] get-tuple-element(%p.8), index=0
  %stack = bf16[18,8,64]{2,1,0} get-tuple-element(%p.8), index=1
  %loss = f32[] get-tuple-element(%p.8), index=2
  %slice.1 = bf16[1,8,64]{2,1,0:S(1)} fusion(%stack, %i.3), kind=kLoop, calls=%sliced
  %begun = (bf16[1,8,64]{2,1,0}, bf16[1,64,64]{2,1,0}) fusion(%slice.1), kind=kCustom, calls=%start
  %a = bf16[1,8,64]{2,1,0} get-tuple-element(%begun), index=0
  %b = bf16[1,64,64]{2,1,0} get-tuple-element(%begun), index=1
  %ended = bf16[1,64,64]{2,1,0} fusion(%a, %b), kind=kCustom, calls=%finish
  %pair = (s32[], s32[]) tuple(%i.3, %i.3)
  %inner = (s32[], s32[]) while(%pair), condition=%inner_condition, body=%inner_body
  ROOT %tuple.2 = (s32[], bf16[18,8,64]{2,1,0}, f32[]) tuple(%i.3, %stack, %loss)
}

%add (p.9: f32[], p.10: f32[]) -> f32[] {
  %p.9 = f32[] parameter(0)
  %p.10 = f32[] parameter(1)
  ROOT %sum = f32[] add(%p.9, %p.10)
}

%scatter (p.13: f32[80]) -> f32[10] {
  %p.13 = f32[80]{0:S(1)} parameter(0)
  %all-reduce.2 = f32[80]{0} all-reduce(%p.13), channel_id=4, replica_groups={{0,1,2,3,4,5,6,7}}, \
to_apply=%add
  %partition-id = u32[] partition-id()
  ROOT %dynamic-slice.2 = f32[10]{0:S(1)} dynamic-slice(%all-reduce.2, %partition-id), \
dynamic_slice_sizes={10}
}

ENTRY %main (p.11: bf16[18,8,64], p.12: f32[100]) -> f32[100] {
  %p.11 = bf16[18,8,64]{2,1,0} parameter(0)
  %p.12 = f32[100]{0} parameter(1)
  %first = s32[] constant(0)
  %nothing = f32[] constant(0)
  %tuple.3 = (s32[], bf16[18,8,64]{2,1,0}, f32[]) tuple(%first, %p.11, %nothing)
  %while.1 = (s32[], bf16[18,8,64]{2,1,0}, f32[]) while(%tuple.3), condition=%condition, body=%body
  %l = f32[] get-tuple-element(%while.1), index=2
  %gradient = f32[80]{0:S(1)} slice(%p.12), slice={[0:80]}
  %part = f32[10]{0:S(1)} fusion(%gradient), kind=kCustom, calls=%scatter, \
metadata={op_name="jit(update)/dot_general"}
  %all-reduce.1 = (f32[], f32[100]{0}) all-reduce(%l, %p.12), channel_id=3, \
replica_groups=[1,8]<=[8], use_global_device_ids=true, to_apply=%add
  ROOT %result = f32[100]{0} get-tuple-element(%all-reduce.1), index=1
}
"""


def test_loops_multiply_what_is_in_them():
    program = parse(PROGRAM)
    times = program.times(unknown=5)
    assert times["main"] == 1
    assert times["body"] == times["start"] == times["sliced"] == 18
    assert times["inner_body"] == 18 * 5


def test_a_number_of_turns_that_xla_knows_is_taken():
    text = PROGRAM.replace(
        "condition=%inner_condition, body=%inner_body",
        "condition=%inner_condition, body=%inner_body, "
        'backend_config={"known_trip_count":{"n":"4"}}',
    )
    assert parse(text).times(unknown=5)["inner_body"] == 18 * 4


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


def test_a_message_between_slices_is_shared_by_the_chips_of_each():
    two = Slices.named("v5e:2x4", count=2)
    positions = [(s, x, y) for s in range(2) for y in range(4) for x in range(2)]
    text = PROGRAM.replace("[1,8]<=[8]", "[1,16]<=[16]")
    (reduce,) = [
        each for each in read_collectives(parse(text), two, positions) if each.kind == "all-reduce"
    ]
    assert (reduce.group, reduce.slices, reduce.links) == (16, 2, 2)
    assert reduce.received == (2 * 404 * 7 / 8, 2 * 404 / 8 / 2)


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


def test_memory_counts_slices_and_leaves_out_what_is_on_the_chip():
    part, whole = 8 * 64 * 2, 64 * 64 * 2
    # Each turn reads the slice of the stack, whose copy stays on the chip, and sends it once.
    each_turn = part + (part + whole)
    ends = 2 * 404 + 4  # the reduction's operands and results, one of them a scalar
    inner = 18 * 2 * (2 * 4 + 1 + 4 * 2)
    found = hbm_bytes(parse(PROGRAM), unknown=2)
    assert 18 * each_turn <= found <= 18 * each_turn + ends + inner + 18 * 20 + 320


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        parse("nothing of the kind")
