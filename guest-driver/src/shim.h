/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Rust cannot reach by itself: inline functions and macros of the kernel, and string parameters of the module.
 * bindgen reads this header for the Rust side (src/bindings.rs), the compiler reads it for shim.c, so the two agree.
 */
#ifndef ERSATZ_SHIM_H
#define ERSATZ_SHIM_H

#include <linux/device.h>
#include <linux/pci.h>
#include <linux/wait.h>

#include "zone_device/shim.h"

/* EOPNOTSUPP if the kernel has no handling of memory failures. */
int ersatz_memory_failure(unsigned long pfn);

/* DMA. */
void ersatz_dma_wmb(void);
void ersatz_dma_rmb(void);

/* PCI; the device is the one embedded in a struct pci_dev. */
int ersatz_pci_domain_nr(struct device *dev);
void ersatz_pci_disable_device(struct device *dev);
void ersatz_pci_set_master(struct device *dev);
void ersatz_pci_clear_master(struct device *dev);
int ersatz_pci_alloc_msix_vectors(struct device *dev, unsigned int count);
int ersatz_pci_irq_vector(struct device *dev, unsigned int index);
void ersatz_pci_free_irq_vectors(struct device *dev);

/* Waiting. */
void ersatz_init_waitqueue_head(struct wait_queue_head *head);

/* Tracepoints (trace.h). */
void ersatz_trace_copy(struct device *dev, unsigned int channel, u64 fence, u64 address, const char *cause,
		       size_t cause_length);
void ersatz_trace_migrate(struct device *dev, unsigned int channel, u64 fence, u64 address, u64 pages, u64 moved);
void ersatz_trace_cpu_fault(struct device *dev, u64 address, u64 pages, unsigned int end);
void ersatz_trace_evict(struct device *dev, u64 block, u64 pages);
void ersatz_trace_free(struct device *dev, u64 page, u64 pages);

/* Module parameters. */
const char *ersatz_parameter_memory(void);
const char *ersatz_parameter_region(void);
unsigned long long ersatz_parameter_vram_limit(void);
unsigned int ersatz_parameter_timeout_ms(void);
unsigned int ersatz_parameter_fault_chunk(void);
bool ersatz_parameter_hmm_dmirror(void);

#endif
