// SPDX-License-Identifier: GPL-2.0
//! Which entries to a function a hold is for.

use crate::{
    probe::Entry,
    task::{self, PidRef},
    uapi::hold as uapi,
};
use core::ops::RangeInclusive;
use kernel::prelude::*;

/// Largest offset of a field in a structure.
const MAX_OFFSET: u64 = 4095;

/// A task and a condition on arguments.
pub(crate) struct Filter {
    task: TaskFilter,
    condition: Condition,
}

enum TaskFilter {
    Any,
    Thread { number: u32, _pid: PidRef },
    Process { number: u32, _pid: PidRef },
}

enum Condition {
    None,
    Argument { number: u32, values: RangeInclusive<u64> },
    Field { number: u32, offset: u64, values: RangeInclusive<u64> },
}

impl Filter {
    /// Returns the filter of a request.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a value that is not defined or out of range; `ESRCH` if there is no such task.
    pub(crate) fn of(request: &uapi::Arm) -> Result<Self> {
        // The request first: its errors do not depend on which tasks there are.
        let condition = Condition::of(request)?;
        Ok(Self { task: TaskFilter::of(request)?, condition })
    }

    /// Whether an entry of the current task is one that the hold is for. Callable from any context.
    pub(crate) fn matches(&self, entry: &Entry<'_>) -> bool {
        self.task.matches_current() && self.condition.is_met(entry)
    }

    /// Whether one task can match both filters.
    pub(crate) fn may_share_task(&self, other: &Self) -> bool {
        match (&self.task, &other.task) {
            (TaskFilter::Thread { number, .. }, TaskFilter::Thread { number: other, .. })
            | (TaskFilter::Process { number, .. }, TaskFilter::Process { number: other, .. }) => number == other,
            // A thread may be one of the process.
            _ => true,
        }
    }
}

impl TaskFilter {
    fn of(request: &uapi::Arm) -> Result<Self> {
        const ANY: u32 = uapi::TaskKind::Any as u32;
        const THREAD: u32 = uapi::TaskKind::Thread as u32;
        const PROCESS: u32 = uapi::TaskKind::Process as u32;
        match (request.task_kind, request.task) {
            (ANY, 0) => Ok(Self::Any),
            (THREAD, number) => {
                let pid = PidRef::of_thread(number)?;
                Ok(Self::Thread { number: pid.number(), _pid: pid })
            }
            (PROCESS, number) => {
                let pid = PidRef::of_process(number)?;
                Ok(Self::Process { number: pid.number(), _pid: pid })
            }
            _ => Err(EINVAL),
        }
    }

    fn matches_current(&self) -> bool {
        match self {
            Self::Any => true,
            Self::Thread { number, .. } => *number == task::current_thread(),
            Self::Process { number, .. } => *number == task::current_process(),
        }
    }
}

impl Condition {
    fn of(request: &uapi::Arm) -> Result<Self> {
        const NONE: u32 = uapi::ConditionKind::None as u32;
        const ARGUMENT: u32 = uapi::ConditionKind::Argument as u32;
        const FIELD: u32 = uapi::ConditionKind::Field as u32;
        let &uapi::Arm { argument: number, offset, minimum, maximum, .. } = request;
        if number >= uapi::ARGUMENTS || offset > MAX_OFFSET || minimum > maximum {
            return Err(EINVAL);
        }
        match request.condition_kind {
            NONE if (number, offset, maximum) == (0, 0, 0) => Ok(Self::None),
            ARGUMENT if offset == 0 => Ok(Self::Argument { number, values: minimum..=maximum }),
            FIELD => Ok(Self::Field { number, offset, values: minimum..=maximum }),
            _ => Err(EINVAL),
        }
    }

    fn is_met(&self, entry: &Entry<'_>) -> bool {
        match self {
            Self::None => true,
            Self::Argument { number, values } => values.contains(&entry.argument(*number)),
            Self::Field { number, offset, values } => {
                entry.field(*number, *offset).is_some_and(|value| values.contains(&value))
            }
        }
    }
}
