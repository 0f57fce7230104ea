// SPDX-License-Identifier: GPL-2.0
/* Out-of-line versions of what shim.h declares, and the module's parameters and tracepoints. */

#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

#include "shim.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

int ersatz_memory_failure(unsigned long pfn)
{
#ifdef CONFIG_MEMORY_FAILURE
	return memory_failure(pfn, 0);
#else
	return -EOPNOTSUPP;
#endif
}

void ersatz_dma_wmb(void)
{
	dma_wmb();
}

void ersatz_dma_rmb(void)
{
	dma_rmb();
}

int ersatz_pci_domain_nr(struct device *dev)
{
	return pci_domain_nr(to_pci_dev(dev)->bus);
}

void ersatz_pci_disable_device(struct device *dev)
{
	pci_disable_device(to_pci_dev(dev));
}

void ersatz_pci_set_master(struct device *dev)
{
	pci_set_master(to_pci_dev(dev));
}

void ersatz_pci_clear_master(struct device *dev)
{
	pci_clear_master(to_pci_dev(dev));
}

int ersatz_pci_alloc_msix_vectors(struct device *dev, unsigned int count)
{
	return pci_alloc_irq_vectors(to_pci_dev(dev), count, count, PCI_IRQ_MSIX);
}

int ersatz_pci_irq_vector(struct device *dev, unsigned int index)
{
	return pci_irq_vector(to_pci_dev(dev), index);
}

void ersatz_pci_free_irq_vectors(struct device *dev)
{
	pci_free_irq_vectors(to_pci_dev(dev));
}

void ersatz_init_waitqueue_head(struct wait_queue_head *head)
{
	init_waitqueue_head(head);
}

void ersatz_trace_copy(struct device *dev, unsigned int channel, u64 fence, u64 address, const char *cause,
		       size_t cause_length)
{
	trace_ersatz_copy(dev, channel, fence, address, cause, cause_length);
}

void ersatz_trace_migrate(struct device *dev, unsigned int channel, u64 fence, u64 address, u64 pages, u64 moved)
{
	trace_ersatz_migrate(dev, channel, fence, address, pages, moved);
}

void ersatz_trace_cpu_fault(struct device *dev, u64 address, u64 pages, unsigned int end)
{
	trace_ersatz_cpu_fault(dev, address, pages, end);
}

void ersatz_trace_evict(struct device *dev, u64 block, u64 pages)
{
	trace_ersatz_evict(dev, block, pages);
}

void ersatz_trace_free(struct device *dev, u64 page, u64 pages)
{
	trace_ersatz_free(dev, page, pages);
}

static char *memory = "private";
module_param(memory, charp, 0444);
MODULE_PARM_DESC(memory, "how VRAM is registered: private or coherent; a comma list gives one per device (default: private)");

static char *region = "free";
module_param(region, charp, 0444);
MODULE_PARM_DESC(region, "where private pages get their pfns: bar, or free for an unused physical range (default: free)");

static char *vram_limit = "0";
module_param(vram_limit, charp, 0444);
MODULE_PARM_DESC(vram_limit, "most VRAM to register per device, with suffix K, M, G or T; 0 takes what its struct pages let fit in an eighth of RAM, for each further device an eighth of the rest (default: 0)");

static unsigned int timeout_ms = 30000;
module_param(timeout_ms, uint, 0444);
MODULE_PARM_DESC(timeout_ms, "how long the device may take for one batch of copies, in milliseconds (default: 30000)");

const char *ersatz_parameter_memory(void)
{
	return memory;
}

const char *ersatz_parameter_region(void)
{
	return region;
}

unsigned long long ersatz_parameter_vram_limit(void)
{
	return memparse(vram_limit, NULL);
}

unsigned int ersatz_parameter_timeout_ms(void)
{
	return timeout_ms;
}

/* Written at run time by some: read it once each time. */
static unsigned int fault_chunk = 65536;
module_param(fault_chunk, uint, 0644);
MODULE_PARM_DESC(fault_chunk, "how much of the memory around a page that a CPU touches comes back with it, in bytes, from 4096 to 2097152; a huge folio comes back whole (default: 65536)");

unsigned int ersatz_parameter_fault_chunk(void)
{
	return READ_ONCE(fault_chunk);
}

static bool hmm_dmirror;
module_param(hmm_dmirror, bool, 0444);
MODULE_PARM_DESC(hmm_dmirror, "also offer /dev/hmm_dmirror0 and 1 (private memory), 2 and 3 (coherent), with the ioctls of the kernel's test driver for HMM (default: off)");

bool ersatz_parameter_hmm_dmirror(void)
{
	return hmm_dmirror;
}
