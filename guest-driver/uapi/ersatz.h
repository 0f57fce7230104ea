/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR Apache-2.0 OR BSD-3-Clause */
/*
 * The contract between the Ersatz driver and user space: the ioctls of /dev/ersatzN. src/lib.rs says the same in Rust,
 * and more about it; a test of that crate compares the two.
 *
 * An address range belongs to the calling process's memory and is page-aligned; unless said otherwise it may cross
 * mappings and holes. Errors common to all: EINVAL for a range that is empty, unaligned or wraps, or for a flag that is
 * not defined; EFAULT for a pointer that does not lead to memory; ENODEV once the device is unbound or gone; EIO if the
 * device reported an error; EINTR if a signal came first.
 */
#ifndef ERSATZ_H
#define ERSATZ_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define ERSATZ_IOC_MAGIC 0xe5

/* How VRAM is registered with the kernel. */
#define ERSATZ_MEMORY_PRIVATE 0 /* no CPU access; a touch migrates the page back */
#define ERSATZ_MEMORY_COHERENT 1 /* the CPU reads and writes VRAM in place */

/* What the device and its driver are. */
struct ersatz_info {
	__u32 abi_version; /* out: the device's ABI version */
	__u32 memory_type; /* out: ERSATZ_MEMORY_* */
	__u64 vram_bytes; /* out: bytes of VRAM registered as pages */
	__u64 vram_free; /* out: bytes of it that no page uses now */
	__u64 cpu_faults; /* out: CPU faults on device pages answered since the driver was bound */
	__u64 cpu_faults_failed; /* out: CPU faults that ended in SIGBUS */
	__u32 pci_address; /* out: PCI segment (31:16), bus (15:8), device (7:3), function (2:0) */
	__u32 reserved; /* zero */
};

/* Where ERSATZ_IOC_MIGRATE takes pages. */
#define ERSATZ_TO_DEVICE 0 /* to the device's VRAM */
#define ERSATZ_TO_SYSTEM 1 /* back to system memory */

/*
 * Moves the pages of a range. A page that cannot move now stays where it is: that is counted, not an error. When VRAM runs out, memory
 * that was used longest ago makes room, but nothing that this call has moved. A signal ends the call early.
 */
struct ersatz_migrate {
	__u64 address; /* in: first byte of the range */
	__u64 length; /* in: length in bytes */
	__u32 direction; /* in: ERSATZ_TO_* */
	__u32 flags; /* in: zero */
	__u64 moved; /* out: pages that this call moved */
	__u64 left; /* out: pages of the range that are not where they were asked to go, holes included; at most that, after a signal */
};

/* Where a page is. */
#define ERSATZ_PAGE_NONE 0 /* nothing is mapped there */
#define ERSATZ_PAGE_SYSTEM 1 /* in system memory */
#define ERSATZ_PAGE_DEVICE 2 /* in this device's VRAM */
#define ERSATZ_PAGE_SWAPPED 3 /* anonymous memory that is swapped out, or otherwise not there for the moment */

/* Where each page of a range is, seen without faulting anything in. */
struct ersatz_residency {
	__u64 address; /* in: first byte of the range */
	__u64 length; /* in: length in bytes */
	__u64 states; /* in: pointer to one byte a page; out: an ERSATZ_PAGE_* each */
};

/* Has the device read each page where it is and report its CRC-32C. A range with a hole in it is EFAULT. */
struct ersatz_digest {
	__u64 address; /* in: first byte of the range */
	__u64 length; /* in: length in bytes */
	__u64 digests; /* in: pointer to one __u64 a page; out: the CRC-32C of each */
	__u64 in_vram; /* out: how many of the pages the device read in VRAM */
};

/* The device's own counters, read from its registers. */
struct ersatz_counters {
	__u64 values[64]; /* out: by number; those the device does not have are zero */
};

/* Moves every page of every process off the device. Pages that stay busy are left. */
struct ersatz_evict {
	__u64 moved; /* out: pages moved */
	__u64 left; /* out: pages still on the device */
};

/* Puts a number into the device's trace log. */
struct ersatz_mark {
	__u64 value; /* in: the number */
};

/*
 * Makes the address space of the calling process the device's, for the work launched through this open file, until that is closed. EBUSY if
 * the file has one already; EOPNOTSUPP if the device cannot work by virtual addresses; ENOSPC if all its address spaces are taken.
 */
struct ersatz_bind {
	__u32 flags; /* in: zero */
	__u32 asid; /* out: number of the device's address space */
};

/* Kernels; operands: what first, value, second, count and result are. The others are zero; a word is eight bytes. */
#define ERSATZ_KERNEL_READ 0 /* source, -, -, bytes, - */
#define ERSATZ_KERNEL_WRITE 1 /* destination, seed, -, bytes, -: word n becomes seed + n */
#define ERSATZ_KERNEL_SET 2 /* destination, pattern, -, bytes, -: each word becomes the pattern */
#define ERSATZ_KERNEL_SUM 3 /* source, -, -, bytes, address of the sum of the words */
#define ERSATZ_KERNEL_SAXPY 4 /* x, factor (32 bits), y, bytes, -: y[n] = factor * x[n] + y[n], floats */
#define ERSATZ_KERNEL_ATOMIC_ADD 5 /* target, addend, -, bytes, - */
#define ERSATZ_KERNEL_COMPARE_AND_SWAP 6 /* target, expected, replacement, -, address of the old value */
#define ERSATZ_KERNEL_CHASE 7 /* start, -, -, steps, address of the last word */
#define ERSATZ_KERNEL_RANDOM_UPDATE 8 /* table, seed (not 0), bytes (a power of two), updates, - */
#define ERSATZ_KERNEL_COPY 9 /* source, -, destination, bytes, -: the two do not overlap */

#define ERSATZ_FAULT_READ 0
#define ERSATZ_FAULT_WRITE 1
#define ERSATZ_FAULT_ATOMIC 2

/*
 * Runs a kernel on the device over plain addresses of the calling process, and waits for its end. EFAULT, with the last fields filled in, if
 * the process itself could not have accessed an address so; EINVAL for operands that are not valid, or if no address space is bound; EPERM
 * if another process's is; ENOMEM; EHWPOISON if it met memory of the device that has lost its content; EIO if the device failed or took too
 * long.
 */
struct ersatz_launch {
	__u32 kernel; /* in: ERSATZ_KERNEL_* */
	__u32 flags; /* in: zero */
	__u64 first; /* in */
	__u64 value; /* in */
	__u64 second; /* in */
	__u64 count; /* in */
	__u64 result; /* in */
	__u64 fault_address; /* out, after EFAULT: the address that could not be accessed */
	__u32 fault_access; /* out, after EFAULT: ERSATZ_FAULT_* */
	__u32 reserved; /* zero */
};

/*
 * Gives the device exclusive access to pages of the bound address space, each until a CPU touches it, or it is unmapped, moved, protected or
 * inherited by a child. Stops at a page that cannot be had. EINVAL if no address space is bound; EPERM if another process's is, or the process
 * may not write to a page; EFAULT for a hole; EOPNOTSUPP for memory that is not anonymous; EBUSY.
 */
struct ersatz_exclusive {
	__u64 address;
	__u64 length;
	__u64 done; /* out: pages that the device has been given */
};

/* Where memory is wanted while the device works on it. */
#define ERSATZ_ADVICE_NONE 0 /* where it is: a fault of the device moves nothing */
#define ERSATZ_ADVICE_PREFER_DEVICE 1 /* on the device: a fault moves the memory around it there, up to 2 MiB, holes included */
#define ERSATZ_ADVICE_PREFER_SYSTEM 2 /* in system memory: a fault brings back what is on the device */
#define ERSATZ_ADVICE_BY_ACCESS 3 /* where it is, until the device has accessed it often: then on the device */
#define ERSATZ_ADVICE_ACCESSED_BY 4 /* where it is, and mapped for the device before it faults: at once, and again after a move */
#define ERSATZ_ADVICE_READ_MOSTLY 5 /* the same for reading only, for what both sides read; there are no copies */

/*
 * Says where the memory of a range of the bound address space is wanted, until other advice comes or the file is closed. It concerns the
 * addresses, whatever is mapped there. Nothing moves at once. What cannot move, or was taken back by a CPU soon after it moved, is used where
 * it is. What is to be mapped is mapped again by ERSATZ_IOC_MIGRATE and by a CPU's touch, as far as they have moved it, and by
 * ERSATZ_IOC_LAUNCH if others have. EINVAL for other advice, or if no address space is bound; EPERM if another process's is; EFAULT for addresses from 2^47 on; ENOSPC
 * for more than 1024 ranges; ENOMEM; EIO.
 */
struct ersatz_advise {
	__u64 address; /* in: first byte of the range */
	__u64 length; /* in: length in bytes */
	__u32 advice; /* in: ERSATZ_ADVICE_* */
	__u32 flags; /* in: zero */
};

#define ERSATZ_IOC_INFO _IOWR(ERSATZ_IOC_MAGIC, 1, struct ersatz_info)
#define ERSATZ_IOC_MIGRATE _IOWR(ERSATZ_IOC_MAGIC, 2, struct ersatz_migrate)
#define ERSATZ_IOC_RESIDENCY _IOWR(ERSATZ_IOC_MAGIC, 3, struct ersatz_residency)
#define ERSATZ_IOC_DIGEST _IOWR(ERSATZ_IOC_MAGIC, 4, struct ersatz_digest)
#define ERSATZ_IOC_COUNTERS _IOWR(ERSATZ_IOC_MAGIC, 5, struct ersatz_counters)
#define ERSATZ_IOC_EVICT _IOWR(ERSATZ_IOC_MAGIC, 6, struct ersatz_evict)
#define ERSATZ_IOC_MARK _IOWR(ERSATZ_IOC_MAGIC, 7, struct ersatz_mark)
#define ERSATZ_IOC_BIND _IOWR(ERSATZ_IOC_MAGIC, 8, struct ersatz_bind)
#define ERSATZ_IOC_LAUNCH _IOWR(ERSATZ_IOC_MAGIC, 9, struct ersatz_launch)
#define ERSATZ_IOC_EXCLUSIVE _IOWR(ERSATZ_IOC_MAGIC, 10, struct ersatz_exclusive)
#define ERSATZ_IOC_ADVISE _IOWR(ERSATZ_IOC_MAGIC, 11, struct ersatz_advise)

#endif
