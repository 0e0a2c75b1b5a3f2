"""Programs as XLA writes them, made up: small, and with what planning must read."""

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

# Two sums of gradients, each of two arrays of which a device keeps its part, and a gather, all of
# one channel.
SCATTERS = """\
%add (p.0: bf16[], p.1: bf16[]) -> bf16[] {
  %p.0 = bf16[] parameter(0)
  %p.1 = bf16[] parameter(1)
  ROOT %sum = bf16[] add(%p.0, %p.1)
}

%all-reduce-scatter (p.2: bf16[8,16], p.3: bf16[32]) -> (bf16[1,16], bf16[4]) {
  %p.2 = bf16[8,16]{1,0:S(1)} parameter(0)
  %p.3 = bf16[32]{0:S(1)} parameter(1)
  %all-reduce.1 = (bf16[8,16]{1,0}, bf16[32]{0}) all-reduce(%p.2, %p.3), channel_id=1, \
replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %a = bf16[8,16]{1,0} get-tuple-element(%all-reduce.1), index=0
  %b = bf16[32]{0} get-tuple-element(%all-reduce.1), index=1
  %device = u32[] partition-id()
  %a.part = bf16[1,16]{1,0:S(1)} dynamic-slice(%a, %device, %device), dynamic_slice_sizes={1,16}
  %b.part = bf16[4]{0:S(1)} dynamic-slice(%b, %device), dynamic_slice_sizes={4}
  ROOT %tuple.1 = (bf16[1,16]{1,0:S(1)}, bf16[4]{0:S(1)}) tuple(%a.part, %b.part)
}

%all-reduce-scatter.1 (p.4: bf16[64]) -> bf16[8] {
  %p.4 = bf16[64]{0} parameter(0)
  %all-reduce.2 = bf16[64]{0} all-reduce(%p.4), channel_id=1, replica_groups=[1,8]<=[8], \
to_apply=%add
  %device.1 = u32[] partition-id()
  ROOT %part = bf16[8]{0} dynamic-slice(%all-reduce.2, %device.1), dynamic_slice_sizes={8}
}

ENTRY %main (p.5: bf16[8,16], p.6: bf16[32], p.7: bf16[64]) -> bf16[64] {
  %p.5 = bf16[8,16]{1,0:S(1)} parameter(0)
  %p.6 = bf16[32]{0:S(1)} parameter(1)
  %p.7 = bf16[64]{0} parameter(2)
  %parts = (bf16[1,16]{1,0:S(1)}, bf16[4]{0:S(1)}) fusion(%p.5, %p.6), kind=kCustom, \
calls=%all-reduce-scatter
  %more = bf16[8]{0} fusion(%p.7), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %all-gather.1 = bf16[64]{0} all-gather(%more), channel_id=1, replica_groups=[1,8]<=[8], \
dimensions={0}
}
"""

# A product that takes one of 18 layers' weights in a fusion within its own, and a part of its
# result that is fetched onto the chip beside other work.
NESTED = """\
%taken (p.0: bf16[18,8,64], p.1: s32[]) -> bf16[8,64] {
  %p.0 = bf16[18,8,64]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %dynamic-slice.1 = bf16[1,8,64]{2,1,0} dynamic-slice(%p.0, %p.1, %zero, %zero), \
dynamic_slice_sizes={1,8,64}
  ROOT %bitcast.1 = bf16[8,64]{1,0} bitcast(%dynamic-slice.1)
}

%widened (p.2: bf16[8,64]) -> f32[8,64] {
  %p.2 = bf16[8,64]{1,0} parameter(0)
  ROOT %convert.1 = f32[8,64]{1,0} convert(%p.2)
}

%product (p.3: f32[4,8], p.4: bf16[18,8,64], p.5: s32[]) -> f32[4,64] {
  %p.3 = f32[4,8]{1,0:S(1)} parameter(0)
  %p.4 = bf16[18,8,64]{2,1,0} parameter(1)
  %p.5 = s32[] parameter(2)
  %weights = bf16[8,64]{1,0} fusion(%p.4, %p.5), kind=kLoop, calls=%taken
  %wide = f32[8,64]{1,0} fusion(%weights), kind=kLoop, calls=%widened
  ROOT %convolution.1 = f32[4,64]{1,0} convolution(%p.3, %wide), dim_labels=bf_io->bf
}

ENTRY %main (p.6: f32[4,8], p.7: bf16[18,8,64], p.8: s32[]) -> f32[1,64] {
  %p.6 = f32[4,8]{1,0:S(1)} parameter(0)
  %p.7 = bf16[18,8,64]{2,1,0} parameter(1)
  %p.8 = s32[]{:S(6)} parameter(2)
  %result = f32[4,64]{1,0} fusion(%p.6, %p.7, %p.8), kind=kOutput, calls=%product
  %begun = ((f32[4,64]{1,0}), f32[1,64]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%result), \
slice={[0:1], [0:64]}
  ROOT %ended = f32[1,64]{1,0:S(1)} slice-done(%begun)
}
"""
