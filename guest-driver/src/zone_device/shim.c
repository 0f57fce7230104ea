// SPDX-License-Identifier: GPL-2.0
/* Out-of-line versions of what shim.h beside this file declares: no logic here, but what the kernel has as a macro only. */

#include <linux/cpu.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/magic.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/userfaultfd_k.h>
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

unsigned int ersatz_folio_order(struct folio *folio)
{
	return folio_order(folio);
}

unsigned int ersatz_page_order(struct page *page)
{
	return folio_order(page_folio(page));
}

unsigned long ersatz_page_linear_index(struct page *page)
{
	return page_folio(page)->index;
}

bool ersatz_page_may_leave(struct page *page)
{
	struct folio *folio = page_folio(page);

	/* Nothing in the core keeps a KSM folio from being migrated to a device, where ksmd then looks for it. */
	return folio_test_anon(folio) && !folio_test_ksm(folio) && !folio_is_zone_device(folio);
}

bool ersatz_pfn_is_system(unsigned long pfn)
{
	return pfn_valid(pfn) && !is_zone_device_page(pfn_to_page(pfn));
}

bool ersatz_pfn_is_zero(unsigned long pfn)
{
	return is_zero_pfn(pfn);
}

bool ersatz_page_is_mapped(struct page *page)
{
	return folio_mapped(page_folio(page));
}

bool ersatz_page_has_owner(struct page *page)
{
	/* Migrating a folio hands its charge on. Where nothing is charged, nothing on the LRU lists depends on it either. */
	return mem_cgroup_disabled() || folio_memcg_charged(page_folio(page));
}

int ersatz_page_references(struct page *page)
{
	return folio_ref_count(page_folio(page));
}

void ersatz_page_set_poisoned(struct page *page)
{
	SetPageHWPoison(page);
}

void ersatz_page_mark_dirty(struct page *page)
{
	folio_mark_dirty(page_folio(page));
}

unsigned long ersatz_large_folio_rest(unsigned long address)
{
	unsigned long rest = 0;
	struct folio *folio;
	struct page *page;

	if (get_user_pages_fast_only(address, 1, 0, &page) != 1)
		return 0;
	folio = page_folio(page);
	if (folio_test_large(folio))
		rest = folio_nr_pages(folio) - folio_page_idx(folio, page);
	put_page(page);
	return rest;
}

int ersatz_bring_to_system(unsigned long address)
{
	struct page *page;
	int pinned;

	/* Memory of devices is not pinned for long: the core moves it to the system. */
	pinned = pin_user_pages_fast(address, 1, FOLL_LONGTERM, &page);
	if (pinned != 1)
		return pinned < 0 ? pinned : -EFAULT;
	unpin_user_page(page);
	return 0;
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

/* A large folio is worth an attempt, but not the kernel's last resorts: single pages do as well. */
static gfp_t folio_gfp(unsigned int order)
{
	return order ? GFP_TRANSHUGE | __GFP_NORETRY | __GFP_NOWARN : GFP_HIGHUSER_MOVABLE | __GFP_NOWARN;
}

static struct page *head_page(struct folio *folio)
{
	return folio ? &folio->page : NULL;
}

struct page *ersatz_alloc_folio_node(unsigned int order, int node)
{
	return head_page(__folio_alloc_node(folio_gfp(order), order, node == NUMA_NO_NODE ? numa_mem_id() : node));
}

bool ersatz_module_get(void)
{
	return try_module_get(THIS_MODULE);
}

void ersatz_module_put(void)
{
	module_put(THIS_MODULE);
}

bool ersatz_has_many_nodes(void)
{
	return nr_node_ids > 1;
}

int ersatz_page_node(struct page *page)
{
	return page_to_nid(page);
}

int ersatz_vma_node(struct vm_area_struct *vma, unsigned long index)
{
	int local = numa_mem_id(), node;
#ifdef CONFIG_NUMA
	struct mempolicy *policy = vma->vm_policy ?: current->mempolicy;

	if (!policy || nodes_empty(policy->nodes))
		return local;
	switch (policy->mode) {
	case MPOL_BIND:
	case MPOL_PREFERRED:
	case MPOL_PREFERRED_MANY:
		node = policy->home_node == NUMA_NO_NODE ? local : policy->home_node;
		return nearest_node_nodemask(node, &policy->nodes);
	case MPOL_INTERLEAVE:
	case MPOL_WEIGHTED_INTERLEAVE:
		/* Not by weight, which is the kernel's secret, but spread all the same. */
		index %= nodes_weight(policy->nodes);
		for_each_node_mask(node, policy->nodes)
			if (!index--)
				return node;
	}
#endif
	return local;
}

struct page *ersatz_alloc_folio_vma(unsigned int order, struct vm_area_struct *vma, unsigned long address)
{
	return head_page(vma_alloc_folio(folio_gfp(order), order, vma, address));
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

bool ersatz_vma_is_anonymous(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma);
}

bool ersatz_vma_has_userfaultfd(struct vm_area_struct *vma)
{
	return userfaultfd_armed(vma);
}

bool ersatz_vma_is_thp_disabled(struct vm_area_struct *vma)
{
	return vma_thp_disabled(vma, vma->vm_flags, false);
}

bool ersatz_vma_refuses_gup(struct vm_area_struct *vma)
{
	/* vma_is_secretmem() is not exported. */
	return (vma->vm_flags & (VM_IO | VM_PFNMAP)) ||
	       (vma->vm_file && file_inode(vma->vm_file)->i_sb->s_magic == SECRETMEM_MAGIC);
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

bool ersatz_mmu_notifier_range_is_exclusive_of(const struct mmu_notifier_range *range, const void *owner)
{
	return range->event == MMU_NOTIFY_EXCLUSIVE && range->owner == owner;
}

struct page *ersatz_make_device_exclusive(struct mm_struct *mm, unsigned long address, void *owner, struct folio **folio)
{
	return make_device_exclusive(mm, address, owner, folio);
}

void ersatz_folio_unlock_put(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

unsigned int ersatz_hmm_pfn_map_order(unsigned long entry)
{
	return hmm_pfn_to_map_order(entry);
}

dma_addr_t ersatz_dma_map_page(struct device *dev, struct page *page, size_t length, enum dma_data_direction direction)
{
	return dma_map_page(dev, page, 0, length, direction);
}

int ersatz_dma_mapping_error(struct device *dev, dma_addr_t address)
{
	return dma_mapping_error(dev, address);
}

bool ersatz_dma_need_sync(struct device *dev, dma_addr_t address)
{
	return dma_need_sync(dev, address);
}

void ersatz_dma_unmap_page(struct device *dev, dma_addr_t address, size_t length, enum dma_data_direction direction)
{
	dma_unmap_page(dev, address, length, direction);
}

size_t ersatz_dma_max_mapping_size(struct device *dev)
{
	return dma_max_mapping_size(dev);
}

bool ersatz_dma_iova_alloc(struct device *dev, struct dma_iova_state *state, unsigned long pfn, size_t length)
{
	return dma_iova_try_alloc(dev, state, PFN_PHYS(pfn), length);
}

int ersatz_dma_iova_link(struct device *dev, struct dma_iova_state *state, unsigned long pfn, size_t offset,
			 size_t length, enum dma_data_direction direction)
{
	return dma_iova_link(dev, state, PFN_PHYS(pfn), offset, length, direction, 0);
}

int ersatz_dma_iova_sync(struct device *dev, struct dma_iova_state *state, size_t length)
{
	return dma_iova_sync(dev, state, 0, length);
}

void ersatz_dma_iova_destroy(struct device *dev, struct dma_iova_state *state, size_t linked,
			     enum dma_data_direction direction)
{
	dma_iova_destroy(dev, state, linked, direction, 0);
}

int ersatz_pci_request_region(struct device *dev, int bar, const char *name)
{
	return pci_request_region(to_pci_dev(dev), bar, name);
}

void ersatz_pci_release_region(struct device *dev, int bar)
{
	pci_release_region(to_pci_dev(dev), bar);
}

bool ersatz_current_signal_pending(void)
{
	return task_sigpending(current);
}

bool ersatz_current_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}
