/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the abstractions of zone_device/, and those of kernel_ext/ that they stand on, cannot reach by themselves: inline functions and
 * macros of the kernel. bindgen reads this header for the Rust side, the compiler reads it for shim.c beside it, so the two agree.
 */
#ifndef ERSATZ_ZONE_DEVICE_SHIM_H
#define ERSATZ_ZONE_DEVICE_SHIM_H

#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/hmm.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pci.h>
#include <linux/rmap.h>

/* Pages. */
struct page *ersatz_pfn_to_page(unsigned long pfn);
unsigned long ersatz_page_to_pfn(struct page *page);
struct dev_pagemap *ersatz_page_pgmap(struct page *page);
struct page *ersatz_folio_page(struct folio *folio);
unsigned int ersatz_folio_order(struct folio *folio);
unsigned int ersatz_page_order(struct page *page);
unsigned long ersatz_page_linear_index(struct page *page);
void ersatz_lock_page(struct page *page);
void ersatz_unlock_page(struct page *page);
void ersatz_put_page(struct page *page);
/* Of a node if that has memory, NUMA_NO_NODE (-1) being the local one. */
struct page *ersatz_alloc_folio_node(unsigned int order, int node);
struct page *ersatz_alloc_folio_vma(unsigned int order, struct vm_area_struct *vma, unsigned long address);

bool ersatz_has_many_nodes(void);
int ersatz_page_node(struct page *page);
/* The node on which the NUMA policy of the VMA, or else the current task's, has its page at a linear index (pgoff_t) made first. */
int ersatz_vma_node(struct vm_area_struct *vma, unsigned long index);

/* Whether the folio of a page is memory that the kernel lets go to a device: anonymous, not shared by KSM, the system's. */
bool ersatz_page_may_leave(struct page *page);
/* Whether a page frame is the system's memory, not a device's. */
bool ersatz_pfn_is_system(unsigned long pfn);
bool ersatz_pfn_is_zero(unsigned long pfn);
/* Whether anything maps the page's folio. A hint: the page may be free, or change at any time. */
bool ersatz_page_is_mapped(struct page *page);
/* Whether an isolated folio of a device has its content still: one that has migrated and is only kept by references has not. */
bool ersatz_page_has_owner(struct page *page);
/* Number of references to the page's folio. */
int ersatz_page_references(struct page *page);
/* Marks a page as unusable for good, by the flag that the memory manager heeds. */
void ersatz_page_set_poisoned(struct page *page);
/* Notes that a page was written. The caller keeps it from being truncated. */
void ersatz_page_mark_dirty(struct page *page);
/* Number of pages from the current process's `address` to the end of the large folio mapped there; 0 if it maps no large folio. */
unsigned long ersatz_large_folio_rest(unsigned long address);
/* Brings the current process's page at `address` to the system if it is in the coherent memory of a device. */
int ersatz_bring_to_system(unsigned long address);
unsigned long ersatz_totalram_pages(void);

/* Runs `work` on each CPU that is online, one after the other, until it returns something else than zero. Sleeps. */
long ersatz_on_each_online_cpu(long (*work)(void *), void *argument);

/* Resources. */
struct resource *ersatz_request_free_mem_region(unsigned long size, const char *name);
void ersatz_release_mem_region(resource_size_t start, resource_size_t length);
/* The device is the one embedded in a struct pci_dev. */
int ersatz_pci_request_region(struct device *dev, int bar, const char *name);
void ersatz_pci_release_region(struct device *dev, int bar);

/* Memory maps of processes. */
struct vm_area_struct *ersatz_find_vma(struct mm_struct *mm, unsigned long address);
bool ersatz_vma_is_anonymous(struct vm_area_struct *vma);
bool ersatz_vma_has_userfaultfd(struct vm_area_struct *vma);
bool ersatz_vma_is_thp_disabled(struct vm_area_struct *vma);
/* Whether get_user_pages() refuses the VMA for what it maps: device mappings and secret memory. */
bool ersatz_vma_refuses_gup(struct vm_area_struct *vma);

/* Interval notifiers. */
bool ersatz_mmu_interval_read_retry(struct mmu_interval_notifier *notifier, unsigned long seq);
void ersatz_mmu_interval_set_seq(struct mmu_interval_notifier *notifier, unsigned long seq);
bool ersatz_mmu_notifier_range_blockable(const struct mmu_notifier_range *range);
/* Whether pages of the range are made exclusive for a device on behalf of `owner`. */
bool ersatz_mmu_notifier_range_is_exclusive_of(const struct mmu_notifier_range *range, const void *owner);
/* Gives a device exclusive access to a page. Returns it, with `folio` locked and referenced, or an error pointer. */
struct page *ersatz_make_device_exclusive(struct mm_struct *mm, unsigned long address, void *owner, struct folio **folio);
void ersatz_folio_unlock_put(struct folio *folio);
unsigned int ersatz_hmm_pfn_map_order(unsigned long entry);

/* DMA. */
dma_addr_t ersatz_dma_map_page(struct device *dev, struct page *page, size_t length, enum dma_data_direction direction);
int ersatz_dma_mapping_error(struct device *dev, dma_addr_t address);
bool ersatz_dma_need_sync(struct device *dev, dma_addr_t address);
size_t ersatz_dma_max_mapping_size(struct device *dev);
bool ersatz_dma_iova_alloc(struct device *dev, struct dma_iova_state *state, unsigned long pfn, size_t length);
int ersatz_dma_iova_link(struct device *dev, struct dma_iova_state *state, unsigned long pfn, size_t offset,
			 size_t length, enum dma_data_direction direction);
int ersatz_dma_iova_sync(struct device *dev, struct dma_iova_state *state, size_t length);
void ersatz_dma_iova_destroy(struct device *dev, struct dma_iova_state *state, size_t linked,
			     enum dma_data_direction direction);
void ersatz_dma_unmap_page(struct device *dev, dma_addr_t address, size_t length, enum dma_data_direction direction);

/* Whether the module is not being unloaded; it is not until the use has ended. */
bool ersatz_module_get(void);
void ersatz_module_put(void);

/* Signals of the current task. */
bool ersatz_current_signal_pending(void);
bool ersatz_current_fatal_signal_pending(void);

#endif
