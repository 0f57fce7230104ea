// SPDX-License-Identifier: GPL-2.0
/* Out-of-line versions of what shim.h declares: no logic here, but what the kernel has as a macro only. */

#include <linux/cpu.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/workqueue.h>

#include "shim.h"

struct page *ersatz_pfn_to_page(unsigned long pfn)
{
	return pfn_to_page(pfn);
}

unsigned long ersatz_page_to_pfn(struct page *page)
{
	return page_to_pfn(page);
}

struct dev_pagemap *ersatz_page_pgmap(struct page *page)
{
	return page_pgmap(page);
}

struct page *ersatz_folio_page(struct folio *folio)
{
	return &folio->page;
}

unsigned long ersatz_page_linear_index(struct page *page)
{
	return page_folio(page)->index;
}

bool ersatz_page_is_anonymous(struct page *page)
{
	return folio_test_anon(page_folio(page));
}

void ersatz_lock_page(struct page *page)
{
	lock_page(page);
}

void ersatz_unlock_page(struct page *page)
{
	unlock_page(page);
}

void ersatz_put_page(struct page *page)
{
	put_page(page);
}

struct page *ersatz_alloc_page(void)
{
	return alloc_page(GFP_HIGHUSER_MOVABLE | __GFP_NOWARN);
}

struct page *ersatz_alloc_page_vma(struct vm_area_struct *vma, unsigned long address)
{
	struct folio *folio = vma_alloc_folio(GFP_HIGHUSER_MOVABLE, 0, vma, address);

	return folio ? &folio->page : NULL;
}

unsigned long ersatz_totalram_pages(void)
{
	return totalram_pages();
}

long ersatz_on_each_online_cpu(long (*work)(void *), void *argument)
{
	unsigned int cpu;
	long result = 0;

	cpus_read_lock();
	for_each_online_cpu(cpu) {
		result = work_on_cpu(cpu, work, argument);
		if (result)
			break;
	}
	cpus_read_unlock();
	return result;
}

struct resource *ersatz_request_free_mem_region(unsigned long size, const char *name)
{
	return request_free_mem_region(&iomem_resource, size, name);
}

void ersatz_release_mem_region(resource_size_t start, resource_size_t length)
{
	release_mem_region(start, length);
}

struct vm_area_struct *ersatz_find_vma(struct mm_struct *mm, unsigned long address)
{
	return find_vma(mm, address);
}

bool ersatz_mmu_interval_read_retry(struct mmu_interval_notifier *notifier, unsigned long seq)
{
	return mmu_interval_read_retry(notifier, seq);
}

void ersatz_mmu_interval_set_seq(struct mmu_interval_notifier *notifier, unsigned long seq)
{
	mmu_interval_set_seq(notifier, seq);
}

bool ersatz_mmu_notifier_range_blockable(const struct mmu_notifier_range *range)
{
	return mmu_notifier_range_blockable(range);
}

dma_addr_t ersatz_dma_map_page(struct device *dev, struct page *page, size_t length, enum dma_data_direction direction)
{
	return dma_map_page(dev, page, 0, length, direction);
}

int ersatz_dma_mapping_error(struct device *dev, dma_addr_t address)
{
	return dma_mapping_error(dev, address);
}

void ersatz_dma_unmap_page(struct device *dev, dma_addr_t address, size_t length, enum dma_data_direction direction)
{
	dma_unmap_page(dev, address, length, direction);
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

int ersatz_pci_request_region(struct device *dev, int bar, const char *name)
{
	return pci_request_region(to_pci_dev(dev), bar, name);
}

void ersatz_pci_release_region(struct device *dev, int bar)
{
	pci_release_region(to_pci_dev(dev), bar);
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

static char *memory = "private";
module_param(memory, charp, 0444);
MODULE_PARM_DESC(memory, "how VRAM is registered: private or coherent; a comma list gives one per device (default: private)");

static char *region = "free";
module_param(region, charp, 0444);
MODULE_PARM_DESC(region, "where private pages get their pfns: bar, or free for an unused physical range (default: free)");

static char *vram_limit = "0";
module_param(vram_limit, charp, 0444);
MODULE_PARM_DESC(vram_limit, "most VRAM to register per device, with suffix K, M, G or T; 0 takes what its struct pages let fit in an eighth of RAM (default: 0)");

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
