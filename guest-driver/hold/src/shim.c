// SPDX-License-Identifier: GPL-2.0
/* Out-of-line versions of what shim.h declares: no logic here, but what the kernel has as a macro only. */

#include <linux/capability.h>
#include <linux/irqflags.h>
#include <linux/preempt.h>
#include <linux/ptrace.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "shim.h"

struct pid *ersatz_hold_find_pid(unsigned int number, bool process)
{
	struct pid *pid;

	rcu_read_lock();
	pid = get_pid(find_vpid(number));
	if (pid && !pid_task(pid, process ? PIDTYPE_TGID : PIDTYPE_PID)) {
		put_pid(pid);
		pid = NULL;
	}
	rcu_read_unlock();
	return pid;
}

void ersatz_hold_put_pid(struct pid *pid)
{
	put_pid(pid);
}

unsigned int ersatz_hold_pid_number(struct pid *pid)
{
	return pid_nr(pid);
}

unsigned int ersatz_hold_current_thread(void)
{
	return current->pid;
}

unsigned int ersatz_hold_current_process(void)
{
	return current->tgid;
}

bool ersatz_hold_is_holdable(void)
{
	return in_task() && !irqs_disabled() && !is_idle_task(current);
}

bool ersatz_hold_is_permitted(void)
{
	return capable(CAP_SYS_ADMIN);
}

bool ersatz_hold_signal_pending(void)
{
	return task_sigpending(current);
}

unsigned long ersatz_hold_argument(struct pt_regs *regs, unsigned int number)
{
	return regs_get_kernel_argument(regs, number);
}

bool ersatz_hold_is_traced_entry(struct kprobe *probe)
{
	return kprobe_ftrace(probe);
}

void ersatz_hold_init_irq_work(struct irq_work *work, void (*function)(struct irq_work *))
{
	init_irq_work(work, function);
}

void ersatz_hold_init_waitqueue_head(struct wait_queue_head *head)
{
	init_waitqueue_head(head);
}
