// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Holds: tasks stopped at the entry of a function of the unmodified kernel, by the module `ersatz_hold`.
//!
//! [`Holder::open`] opens the module's device; [`Holder::arm`] arms a [`Hold`] as a [`Spec`] describes it. Any thread may wait for
//! a hold, resume it and look at it. Dropping the last [`Hold`] and the [`Holder`] closes the file, which ends all of its holds.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ersatz_guest_image::run::HOLD_MODULE_PATH;
use ersatz_init::driver::ModuleError;
use ersatz_uapi::hold::{Arm, Cancel, ConditionKind, NAME_SIZE, Query, Resume, TaskKind, Wait};
pub use ersatz_uapi::hold::{MAX_DEADLINE_MS, MAX_HOLDS, State};
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};
use nix::unistd::Pid;
use thiserror::Error;

/// The device file.
pub const PATH: &str = "/dev/ersatz_hold";

/// How long a task is held if its [`Spec`] does not say.
pub const DEADLINE: Duration = Duration::from_secs(4);

mod ioctls {
    use ersatz_uapi::hold::{Arm, Cancel, IOC_ARM, IOC_CANCEL, IOC_QUERY, IOC_RESUME, IOC_WAIT, Query, Resume, Wait};

    nix::ioctl_readwrite_bad!(
        /// [`IOC_ARM`].
        arm, IOC_ARM, Arm
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_WAIT`].
        wait, IOC_WAIT, Wait
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_RESUME`].
        resume, IOC_RESUME, Resume
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_CANCEL`].
        cancel, IOC_CANCEL, Cancel
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_QUERY`].
        query, IOC_QUERY, Query
    );
}

/// Why a hold cannot be had.
#[derive(Debug, Error)]
pub enum HoldError {
    /// The module could not be loaded.
    #[error("cannot load the module that holds tasks")]
    Load(#[source] ModuleError),
    /// The device could not be opened.
    #[error("cannot open {PATH}")]
    Open(#[source] io::Error),
    /// The name is empty, too long, or has a NUL byte in it.
    #[error("{0:?} is not the name of a function of the kernel")]
    Name(String),
    /// The kernel has no such function: it has another name, or the compiler inlined it.
    #[error("the running kernel has no function {0} (inlined, or of another version?)")]
    NoFunction(String),
    /// A task cannot be held there.
    #[error("no task can be held at {0}: the kernel does not trace its entry, or excludes it from probing")]
    NotProbeable(String),
    /// The thread or process does not exist.
    #[error("there is no {0}")]
    NoTask(String),
    /// There are too many holds.
    #[error("there are {MAX_HOLDS} holds already")]
    TooMany,
    /// Holds at one function could add up for one task.
    #[error("holds at {0} could keep one task from being scheduled for more than {MAX_DEADLINE_MS} ms")]
    TooLong(String),
    /// The module refused for another reason.
    #[error("cannot arm a hold at {0}")]
    Arm(String, #[source] Errno),
}

/// Which tasks a hold is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Any task.
    Any,
    /// One thread, by its thread id.
    Thread(Pid),
    /// Any thread of a process.
    Process(Pid),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any task"),
            Self::Thread(id) => write!(f, "thread {id}"),
            Self::Process(id) => write!(f, "process {id}"),
        }
    }
}

impl Task {
    /// The calling thread.
    pub fn current() -> Self {
        Self::Thread(nix::unistd::gettid())
    }
}

/// A condition on what the function is called with. Bounds are inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The argument of this number (0 to 5) is in the range.
    Argument(u32, RangeInclusive<u64>),
    /// The 64-bit field at this offset of the structure that the argument points to is in the range.
    Field {
        /// The number of the argument, 0 to 5.
        argument: u32,
        /// The field's offset in bytes, at most 4095.
        offset: u64,
        /// The values that meet the condition.
        values: RangeInclusive<u64>,
    },
}

/// What to hold, where.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The function's name, as in `/proc/kallsyms`. Of several functions with one name it is any.
    pub function: String,
    /// Which tasks.
    pub task: Task,
    /// The number of the entry that stops, counted from when the hold is armed; 1 for the first.
    pub nth: u32,
    /// What an entry must meet to count.
    pub condition: Option<Condition>,
    /// How long the task is held at most: 1 ms to [`MAX_DEADLINE_MS`].
    pub deadline: Duration,
}

impl Spec {
    /// The next entry of a task to a function, for at most [`DEADLINE`].
    pub fn new(function: &str, task: Task) -> Self {
        Self { function: function.to_owned(), task, nth: 1, condition: None, deadline: DEADLINE }
    }

    /// The same for another entry than the first.
    #[must_use]
    pub fn nth(self, nth: u32) -> Self {
        Self { nth, ..self }
    }

    /// The same with a condition.
    #[must_use]
    pub fn condition(self, condition: Condition) -> Self {
        Self { condition: Some(condition), ..self }
    }

    /// The same with another deadline.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// What the module is asked.
    fn request(&self) -> Result<Arm, HoldError> {
        let name = self.function.as_bytes();
        if name.is_empty() || name.len() >= NAME_SIZE || name.contains(&0) {
            return Err(HoldError::Name(self.function.clone()));
        }
        let mut request = Arm {
            nth: self.nth,
            deadline_ms: u32::try_from(self.deadline.as_millis()).unwrap_or(u32::MAX),
            ..Arm::default()
        };
        request.function[..name.len()].copy_from_slice(name);
        let (kind, task) = match self.task {
            Task::Any => (TaskKind::Any, 0),
            Task::Thread(id) => (TaskKind::Thread, number(id)?),
            Task::Process(id) => (TaskKind::Process, number(id)?),
        };
        (request.task_kind, request.task) = (kind as u32, task);
        let (kind, argument, offset, values) = match &self.condition {
            None => (ConditionKind::None, 0, 0, &(0..=0)),
            Some(Condition::Argument(argument, values)) => (ConditionKind::Argument, *argument, 0, values),
            Some(Condition::Field { argument, offset, values }) => (ConditionKind::Field, *argument, *offset, values),
        };
        (request.condition_kind, request.argument, request.offset) = (kind as u32, argument, offset);
        (request.minimum, request.maximum) = (*values.start(), *values.end());
        Ok(request)
    }
}

/// An open device of the module.
#[derive(Debug)]
pub struct Holder {
    file: Arc<File>,
}

impl Holder {
    /// Opens the device; loads the module if it is not there.
    ///
    /// # Errors
    ///
    /// If the module cannot be loaded, or the device not be opened.
    pub fn open() -> Result<Self, HoldError> {
        load()?;
        let file = OpenOptions::new().read(true).write(true).open(PATH).map_err(HoldError::Open)?;
        Ok(Self { file: Arc::new(file) })
    }

    /// The descriptor, for calls that no wrapper fits.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Arms a hold. The entries that it counts are those from now on.
    ///
    /// # Errors
    ///
    /// See [`HoldError`].
    pub fn arm(&self, spec: &Spec) -> Result<Hold, HoldError> {
        let function = || spec.function.clone();
        let request = spec.request()?;
        let done = self.try_arm_raw(request).map_err(|error| match error {
            Errno::ENOENT => HoldError::NoFunction(function()),
            // The values that a `Spec` cannot rule out are looked at by the module, too.
            Errno::EINVAL => HoldError::NotProbeable(function()),
            Errno::ESRCH => HoldError::NoTask(spec.task.to_string()),
            Errno::ENOSPC => HoldError::TooMany,
            Errno::EBUSY => HoldError::TooLong(function()),
            error => HoldError::Arm(function(), error),
        })?;
        Ok(Hold { file: Arc::clone(&self.file), id: done.id, function: function() })
    }

    /// `ERSATZ_HOLD_IOC_ARM` with any values.
    pub fn try_arm_raw(&self, mut request: Arm) -> Result<Arm, Errno> {
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call.
        unsafe { ioctls::arm(self.descriptor(), &mut request) }.map(|_| request)
    }
}

/// One hold. Dropping it leaves it as it is: the file's end ends it.
#[derive(Clone, Debug)]
pub struct Hold {
    file: Arc<File>,
    id: u32,
    function: String,
}

/// What has become of a hold. Times are of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// Matching entries so far, the held one included; those after it are not counted.
    pub hits: u64,
    /// Matching entries where no task can be held: interrupts were off, or it was in an interrupt.
    pub unholdable: u64,
    /// When the task was stopped, in nanoseconds.
    pub held_at_ns: Option<u64>,
    /// When it went on, in nanoseconds.
    pub released_at_ns: Option<u64>,
    /// The thread that was held.
    pub task: Option<Pid>,
}

impl Hold {
    /// The function's name.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// Waits until the hold is no longer armed, and returns its state: `Held`, unless the task has gone on already.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if no task came; `EINTR` if a signal did.
    pub fn wait_held(&self, timeout: Duration) -> Result<State, Errno> {
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let mut request = Wait { id: self.id, timeout_ms, ..Wait::default() };
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call.
        unsafe { ioctls::wait(self.file.as_raw_fd(), &mut request) }?;
        Ok(state(request.state))
    }

    /// Resumes the task that is held.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if no task is held: none came yet, or it has gone on already.
    pub fn resume(&self) -> Result<(), Errno> {
        let mut request = Resume { id: self.id, ..Resume::default() };
        // SAFETY: the structure is the one the ioctl reads, and lives through the call.
        unsafe { ioctls::resume(self.file.as_raw_fd(), &mut request) }.map(drop)
    }

    /// Ends the hold: resumes the task that is held; if there is none, no task will be.
    pub fn cancel(&self) {
        let mut request = Cancel { id: self.id, ..Cancel::default() };
        // SAFETY: the structure is the one the ioctl reads, and lives through the call.
        unsafe { ioctls::cancel(self.file.as_raw_fd(), &mut request) }
            .unwrap_or_else(|error| panic!("ERSATZ_HOLD_IOC_CANCEL: {error}"));
    }

    /// What has become of it.
    pub fn status(&self) -> Status {
        let mut query = Query { id: self.id, ..Query::default() };
        // SAFETY: the structure is the one the ioctl writes, and lives through the call.
        unsafe { ioctls::query(self.file.as_raw_fd(), &mut query) }
            .unwrap_or_else(|error| panic!("ERSATZ_HOLD_IOC_QUERY: {error}"));
        let time = |ns: u64| Some(ns).filter(|&ns| ns != 0);
        Status {
            state: state(query.state),
            hits: query.hits,
            unholdable: query.unholdable,
            held_at_ns: time(query.held_at_ns),
            released_at_ns: time(query.released_at_ns),
            task: i32::try_from(query.task).ok().filter(|&task| task != 0).map(Pid::from_raw),
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.status().state
    }
}

/// A thread's or process's id as the module takes it.
fn number(id: Pid) -> Result<u32, HoldError> {
    u32::try_from(id.as_raw()).map_err(|_| HoldError::NoTask(format!("task {id}")))
}

fn state(raw: u32) -> State {
    [State::Armed, State::Held, State::Resumed, State::Expired, State::Cancelled]
        .into_iter()
        .find(|&state| state as u32 == raw)
        .unwrap_or_else(|| panic!("{PATH} reports {raw}, which is not a state"))
}

/// Loads the module if its device is not there.
///
/// # Errors
///
/// If it cannot be loaded.
pub fn load() -> Result<(), HoldError> {
    if Path::new(PATH).exists() {
        return Ok(());
    }
    match ersatz_init::driver::load(Path::new(HOLD_MODULE_PATH), "") {
        // Another process was quicker.
        Err(ModuleError::Refused { source: Errno::EEXIST, .. }) => Ok(()),
        result => result.map_err(HoldError::Load),
    }
}

/// Unloads the module.
///
/// # Errors
///
/// `EWOULDBLOCK` if a file is open.
pub fn unload() -> Result<(), Errno> {
    delete_module(c"ersatz_hold", DeleteModuleFlags::O_NONBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_with_its_nul() {
        let spec = |length| Spec::new(&"f".repeat(length), Task::Any);
        let request = spec(NAME_SIZE - 1).request().unwrap();
        assert_eq!(request.function[NAME_SIZE - 1], 0);
        for length in [0, NAME_SIZE] {
            assert!(matches!(spec(length).request(), Err(HoldError::Name(_))), "{length}");
        }
        assert!(matches!(Spec::new("a\0b", Task::Any).request(), Err(HoldError::Name(_))));
    }

    #[test]
    fn what_a_spec_says_reaches_the_module() {
        let spec = Spec::new("migrate_vma_pages", Task::Thread(Pid::from_raw(7))).nth(3).condition(Condition::Field {
            argument: 1,
            offset: 24,
            values: 5..=9,
        });
        let request = spec.deadline(Duration::from_secs(2)).request().unwrap();
        assert_eq!((request.task_kind, request.task), (TaskKind::Thread as u32, 7));
        assert_eq!((request.nth, request.deadline_ms), (3, 2000));
        assert_eq!((request.condition_kind, request.argument), (ConditionKind::Field as u32, 1));
        assert_eq!((request.offset, request.minimum, request.maximum), (24, 5, 9));
    }
}
