"""Bytes through main memory, counted from small programs."""

from planning_cases import NESTED, PROGRAM

from paligemma_lib.planning.hlo import parse
from paligemma_lib.planning.traffic import hbm_bytes


def test_memory_counts_slices_and_leaves_out_what_is_on_the_chip():
    part, whole = 8 * 64 * 2, 64 * 64 * 2
    # Each turn reads the slice of the stack, whose copy stays on the chip, and sends it once.
    each_turn = part + (part + whole)
    ends = 2 * 404 + 4  # the reduction's operands and results, one of them a scalar
    inner = 18 * 2 * (2 * 4 + 1 + 4 * 2)
    found = hbm_bytes(parse(PROGRAM), unknown=2)
    assert 18 * each_turn <= found <= 18 * each_turn + ends + inner + 18 * 20 + 320


def test_memory_counts_the_slice_that_a_fusion_within_a_fusion_takes():
    weights, product, fetched = 8 * 64 * 2, 4 * 64 * 4, 64 * 4
    assert hbm_bytes(parse(NESTED)) == weights + product + fetched


def test_memory_counts_all_of_what_a_fusion_within_a_fusion_reads_whole():
    layers, product, fetched = 18 * 8 * 64 * 2, 4 * 64 * 4, 64 * 4
    whole = NESTED.replace("[1,8,64]", "[18,8,64]").replace("dynamic-slice(", "negate(")
    assert hbm_bytes(parse(whole)) == layers + product + fetched
