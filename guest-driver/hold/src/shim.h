/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Rust cannot reach by itself: inline functions and macros of the kernel. bindgen reads this header for the Rust side
 * (src/bindings.rs), the compiler reads it for shim.c, so the two agree.
 */
#ifndef ERSATZ_HOLD_SHIM_H
#define ERSATZ_HOLD_SHIM_H

#include <linux/irq_work.h>
#include <linux/kprobes.h>
#include <linux/pid.h>
#include <linux/wait.h>

/* Takes a reference to the pid of a thread, or of a process, that has this number in the current pid namespace. NULL if there is none. */
struct pid *ersatz_hold_find_pid(unsigned int number, bool process);
void ersatz_hold_put_pid(struct pid *pid);
/* The number in the initial pid namespace. */
unsigned int ersatz_hold_pid_number(struct pid *pid);

/* Thread id and process id of the current task, in the initial pid namespace. */
unsigned int ersatz_hold_current_thread(void);
unsigned int ersatz_hold_current_process(void);

/* Whether the current code may spin for long: a task's own, not the idle one's, with interrupts on. */
bool ersatz_hold_is_holdable(void);
/* Whether the current task may stop others. */
bool ersatz_hold_is_permitted(void);
bool ersatz_hold_signal_pending(void);

/* The argument of this number of a function that has just been entered. */
unsigned long ersatz_hold_argument(struct pt_regs *regs, unsigned int number);
/* Whether a registered probe is reached by the function tracer, not by a breakpoint. */
bool ersatz_hold_is_traced_entry(struct kprobe *probe);

void ersatz_hold_init_irq_work(struct irq_work *work, void (*function)(struct irq_work *));
void ersatz_hold_init_waitqueue_head(struct wait_queue_head *head);

#endif
