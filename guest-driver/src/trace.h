/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The driver's tracepoints. Channel and fence name a batch in the device's own trace, too; so does the address, which is the tag of the
 * batch's commands.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM ersatz

#if !defined(ERSATZ_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define ERSATZ_TRACE_H

#include <linux/device.h>
#include <linux/tracepoint.h>

/* The device was given a batch. */
TRACE_EVENT(ersatz_copy,
	TP_PROTO(struct device *dev, unsigned int channel, u64 fence, u64 address, const char *cause, size_t cause_length),
	TP_ARGS(dev, channel, fence, address, cause, cause_length),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(unsigned int, channel)
		__field(u64, fence)
		__field(u64, address)
		__string_len(cause, cause, cause_length)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->channel = channel;
		__entry->fence = fence;
		__entry->address = address;
		__assign_str(cause);
	),
	TP_printk("dev=%s channel=%u fence=%llu address=%#llx cause=%s", __get_str(dev), __entry->channel,
		  __entry->fence, __entry->address, __get_str(cause))
);

/* What a batch copied has taken the place of its sources, as far as nothing held on to those. */
TRACE_EVENT(ersatz_migrate,
	TP_PROTO(struct device *dev, unsigned int channel, u64 fence, u64 address, u64 pages, u64 moved),
	TP_ARGS(dev, channel, fence, address, pages, moved),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(unsigned int, channel)
		__field(u64, fence)
		__field(u64, address)
		__field(u64, pages)
		__field(u64, moved)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->channel = channel;
		__entry->fence = fence;
		__entry->address = address;
		__entry->pages = pages;
		__entry->moved = moved;
	),
	TP_printk("dev=%s channel=%u fence=%llu address=%#llx pages=%llu moved=%llu", __get_str(dev), __entry->channel,
		  __entry->fence, __entry->address, __entry->pages, __entry->moved)
);

/* A CPU touched a private page: the end of the fault is 0 for a retry, else the kernel's VM_FAULT_ bits. */
TRACE_EVENT(ersatz_cpu_fault,
	TP_PROTO(struct device *dev, u64 address, u64 pages, unsigned int end),
	TP_ARGS(dev, address, pages, end),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, address)
		__field(u64, pages)
		__field(unsigned int, end)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->address = address;
		__entry->pages = pages;
		__entry->end = end;
	),
	TP_printk("dev=%s address=%#llx pages=%llu end=%#x", __get_str(dev), __entry->address, __entry->pages,
		  __entry->end)
);

/* A block of VRAM is to be evicted. */
TRACE_EVENT(ersatz_evict,
	TP_PROTO(struct device *dev, u64 block, u64 pages),
	TP_ARGS(dev, block, pages),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, block)
		__field(u64, pages)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->block = block;
		__entry->pages = pages;
	),
	TP_printk("dev=%s block=%llu pages=%llu", __get_str(dev), __entry->block, __entry->pages)
);

/* Nobody uses a folio of VRAM any more. */
TRACE_EVENT(ersatz_free,
	TP_PROTO(struct device *dev, u64 page, u64 pages),
	TP_ARGS(dev, page, pages),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, page)
		__field(u64, pages)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->page = page;
		__entry->pages = pages;
	),
	TP_printk("dev=%s page=%llu pages=%llu", __get_str(dev), __entry->page, __entry->pages)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
