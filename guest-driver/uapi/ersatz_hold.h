/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR Apache-2.0 OR BSD-3-Clause */
/*
 * The contract between the module ersatz_hold and user space: the ioctls of /dev/ersatz_hold. src/hold.rs says the same in
 * Rust, and more about it; a test of that crate compares the two.
 *
 * Opening the file takes CAP_SYS_ADMIN. Errors common to all ioctls: EFAULT for a pointer that does not lead to memory, EINVAL
 * for a value that is not defined, ENOENT for an id that no hold of this file has.
 */
#ifndef ERSATZ_HOLD_H
#define ERSATZ_HOLD_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define ERSATZ_HOLD_NAME_SIZE 128 /* bytes of the field with a function's name, its NUL included */
#define ERSATZ_HOLD_MAX_HOLDS 16 /* most holds at a time, those of all files together */
#define ERSATZ_HOLD_MAX_DEADLINE_MS 10000 /* longest deadline */
#define ERSATZ_HOLD_ARGUMENTS 6 /* arguments that a condition can look at */

/* Which tasks a hold is for. */
#define ERSATZ_HOLD_TASK_ANY 0 /* any but the idle ones */
#define ERSATZ_HOLD_TASK_THREAD 1 /* one thread */
#define ERSATZ_HOLD_TASK_PROCESS 2 /* any thread of a process */

/* What a hold's condition looks at. */
#define ERSATZ_HOLD_CONDITION_NONE 0 /* nothing: every entry counts */
#define ERSATZ_HOLD_CONDITION_ARGUMENT 1 /* an argument of the function */
#define ERSATZ_HOLD_CONDITION_FIELD 2 /* a field of 64 bits in the structure that an argument points to */

/*
 * Arms a hold: the nth entry of a matching task to the function, counted from now, stops there. Errors: ENOENT if the kernel has no
 * function of this name; EINVAL if it cannot be probed where a task can be held, or for a value out of range; ESRCH if there is no
 * such thread or process; ENOSPC if there are ERSATZ_HOLD_MAX_HOLDS holds; EBUSY if holds at the same function could keep one task
 * from being scheduled for more than ERSATZ_HOLD_MAX_DEADLINE_MS together.
 */
struct ersatz_hold_arm {
	__u8 function[ERSATZ_HOLD_NAME_SIZE]; /* in: the function's name, with a NUL behind it */
	__u32 task_kind; /* in: ERSATZ_HOLD_TASK_* */
	__u32 task; /* in: the thread's or process's id; zero for any */
	__u32 nth; /* in: the number of the entry to stop, 1 for the first */
	__u32 deadline_ms; /* in: how long the task is held at most */
	__u32 condition_kind; /* in: ERSATZ_HOLD_CONDITION_* */
	__u32 argument; /* in: the number of the argument */
	__u64 offset; /* in: the offset of the field in bytes, at most 4095 */
	__u64 minimum; /* in: the smallest value that meets the condition */
	__u64 maximum; /* in: the largest value that meets the condition */
	__u32 id; /* out: the hold's id, unique in this file */
	__u32 reserved; /* zero */
};

/* What has become of a hold. */
#define ERSATZ_HOLD_ARMED 0 /* no task has made the entry yet */
#define ERSATZ_HOLD_HELD 1 /* a task is held */
#define ERSATZ_HOLD_RESUMED 2 /* a task was held and then resumed */
#define ERSATZ_HOLD_EXPIRED 3 /* a task was held until the deadline */
#define ERSATZ_HOLD_CANCELLED 4 /* cancelled before any task was held */

/* Waits until a hold is no longer armed. Errors: ETIMEDOUT; EINTR if a signal came first. */
struct ersatz_hold_wait {
	__u32 id; /* in: the hold */
	__u32 timeout_ms; /* in: how long to wait at most; zero to return at once */
	__u32 state; /* out: ERSATZ_HOLD_ARMED and so on */
	__u32 reserved; /* zero */
};

/* Resumes the task that is held. Errors: EAGAIN if no task is held. */
struct ersatz_hold_resume {
	__u32 id; /* in: the hold */
	__u32 reserved; /* zero */
};

/* Ends a hold: a task that is held goes on, and none is held from then on. */
struct ersatz_hold_cancel {
	__u32 id; /* in: the hold */
	__u32 reserved; /* zero */
};

/* What has become of a hold so far. Times are of CLOCK_MONOTONIC, in nanoseconds. */
struct ersatz_hold_query {
	__u32 id; /* in: the hold */
	__u32 state; /* out: ERSATZ_HOLD_ARMED and so on */
	__u64 hits; /* out: entries so far that were of a matching task and met the condition */
	__u64 unholdable; /* out: such entries made where no task can be held; they are not in hits */
	__u64 held_at_ns; /* out: when the task was stopped; zero if none was */
	__u64 released_at_ns; /* out: when it went on; zero if it has not */
	__u32 task; /* out: the thread id of the task; zero if none was held */
	__u32 reserved; /* zero */
};

#define ERSATZ_HOLD_IOC_ARM _IOWR(0xe5, 0x40, struct ersatz_hold_arm)
#define ERSATZ_HOLD_IOC_WAIT _IOWR(0xe5, 0x41, struct ersatz_hold_wait)
#define ERSATZ_HOLD_IOC_RESUME _IOWR(0xe5, 0x42, struct ersatz_hold_resume)
#define ERSATZ_HOLD_IOC_CANCEL _IOWR(0xe5, 0x43, struct ersatz_hold_cancel)
#define ERSATZ_HOLD_IOC_QUERY _IOWR(0xe5, 0x44, struct ersatz_hold_query)

#endif
