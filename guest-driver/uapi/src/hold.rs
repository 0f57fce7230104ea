// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR Apache-2.0 OR BSD-3-Clause
//! The contract between the module `ersatz_hold` and user space: the ioctls of `/dev/ersatz_hold`.
//!
//! A *hold* stops a task at the entry of a function of the kernel. It is armed for one entry; the task that makes this entry spins
//! there, with interrupts on and preemption off, until it is resumed or a deadline passes. A hold belongs to the open file that it was
//! armed by; closing the file ends all of them. `ersatz_hold.h` says the same in C (a test compares the two).
//!
//! Opening the file takes `CAP_SYS_ADMIN` (`EPERM`). Errors common to all ioctls: `EFAULT` for a pointer that does not lead to memory,
//! `EINVAL` for a value that is not defined, `ENOENT` for an id that no hold of this file has.

use super::iowr;

/// `ERSATZ_HOLD_IOC_ARM`: performs an [`Arm`].
pub const IOC_ARM: u32 = iowr::<Arm>(0x40);
/// `ERSATZ_HOLD_IOC_WAIT`: performs a [`Wait`].
pub const IOC_WAIT: u32 = iowr::<Wait>(0x41);
/// `ERSATZ_HOLD_IOC_RESUME`: performs a [`Resume`].
pub const IOC_RESUME: u32 = iowr::<Resume>(0x42);
/// `ERSATZ_HOLD_IOC_CANCEL`: performs a [`Cancel`].
pub const IOC_CANCEL: u32 = iowr::<Cancel>(0x43);
/// `ERSATZ_HOLD_IOC_QUERY`: fills in a [`Query`].
pub const IOC_QUERY: u32 = iowr::<Query>(0x44);

/// Size in bytes of the field with a function's name, its NUL included.
pub const NAME_SIZE: usize = 128;
/// Most holds that can be armed or held at a time, those of all files together.
pub const MAX_HOLDS: usize = 16;
/// Longest deadline, in milliseconds: half of what the kernel's soft lockup detector waits for.
pub const MAX_DEADLINE_MS: u32 = 10_000;
/// Number of arguments that a condition can look at: those that are passed in registers.
pub const ARGUMENTS: u32 = 6;

/// Which tasks a hold is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TaskKind {
    /// Any task but the idle ones.
    Any = 0,
    /// One thread, by its thread id.
    Thread = 1,
    /// Any thread of a process, by the process id.
    Process = 2,
}

/// What a hold's condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ConditionKind {
    /// Nothing: every entry counts.
    None = 0,
    /// An argument of the function.
    Argument = 1,
    /// A field of 64 bits in the structure that an argument of the function points to.
    Field = 2,
}

/// Arms a hold: the `nth` entry of a matching task to the function, counted from now, stops there.
///
/// Errors: `ENOENT` if the kernel has no function of this name; `EINVAL` if it cannot be probed where a task can be held (the kernel
/// does not trace its entry, or excludes it from probing), or for a value out of range; `ESRCH` if there is no such thread or
/// process; `ENOSPC` if there are [`MAX_HOLDS`] holds; `EBUSY` if this hold and others at the same function could keep one task from
/// being scheduled for more than [`MAX_DEADLINE_MS`] together. If there are ended holds to remove, arming can wait for tasks that
/// are held.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Arm {
    /// In: the function's name, with a NUL behind it. `MODULE:NAME` names a function of one module.
    pub function: [u8; NAME_SIZE],
    /// In: a [`TaskKind`].
    pub task_kind: u32,
    /// In: the thread's or process's id in the caller's pid namespace; zero for [`TaskKind::Any`].
    pub task: u32,
    /// In: the number of the entry to stop, 1 for the first.
    pub nth: u32,
    /// In: how long the task is held at most, in milliseconds, 1 to [`MAX_DEADLINE_MS`].
    pub deadline_ms: u32,
    /// In: a [`ConditionKind`]. An entry that does not meet the condition is not counted.
    pub condition_kind: u32,
    /// In: the number of the argument, below [`ARGUMENTS`]; zero without a condition.
    pub argument: u32,
    /// In: the offset of the field in bytes, at most 4095; zero unless the condition is [`ConditionKind::Field`].
    pub offset: u64,
    /// In: the smallest value that meets the condition; zero without a condition.
    pub minimum: u64,
    /// In: the largest value that meets the condition; zero without a condition.
    pub maximum: u64,
    /// Out: the hold's id, unique in this file.
    pub id: u32,
    /// Zero.
    pub reserved: u32,
}

impl Default for Arm {
    fn default() -> Self {
        Self {
            function: [0; NAME_SIZE],
            task_kind: 0,
            task: 0,
            nth: 0,
            deadline_ms: 0,
            condition_kind: 0,
            argument: 0,
            offset: 0,
            minimum: 0,
            maximum: 0,
            id: 0,
            reserved: 0,
        }
    }
}

/// What has become of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// No task has made the entry yet.
    Armed = 0,
    /// A task is held.
    Held = 1,
    /// A task was held and then resumed.
    Resumed = 2,
    /// A task was held until the deadline.
    Expired = 3,
    /// The hold was cancelled before any task was held.
    Cancelled = 4,
}

/// Waits until a hold is no longer armed: a task is held, or all is over. Errors: `ETIMEDOUT`; `EINTR` if a signal came first.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Wait {
    /// In: the hold.
    pub id: u32,
    /// In: how long to wait at most, in milliseconds; zero to return at once.
    pub timeout_ms: u32,
    /// Out: a [`State`].
    pub state: u32,
    /// Zero.
    pub reserved: u32,
}

/// Resumes the task that is held. Errors: `EAGAIN` if no task is held.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Resume {
    /// In: the hold.
    pub id: u32,
    /// Zero.
    pub reserved: u32,
}

/// Ends a hold: a task that is held goes on, and none is held from then on. The id remains valid for [`Query`] until the file
/// needs room for another hold.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Cancel {
    /// In: the hold.
    pub id: u32,
    /// Zero.
    pub reserved: u32,
}

/// What has become of a hold so far. Times are of `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Query {
    /// In: the hold.
    pub id: u32,
    /// Out: a [`State`].
    pub state: u32,
    /// Out: entries so far that were of a matching task and met the condition. Those after the held one are not counted.
    pub hits: u64,
    /// Out: such entries made where no task can be held: with interrupts off, or by an interrupt handler. They are not in `hits`.
    pub unholdable: u64,
    /// Out: when the task was stopped; zero if none was.
    pub held_at_ns: u64,
    /// Out: when it went on; zero if it has not.
    pub released_at_ns: u64,
    /// Out: the thread id of the task, in the initial pid namespace; zero if none was held.
    pub task: u32,
    /// Zero.
    pub reserved: u32,
}
