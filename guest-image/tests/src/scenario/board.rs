// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that all processes of an attempt share: who has come how far, and what came of each step.
//!
//! The monitor reads it while the processes write, and after they are gone; so nothing is lost when one is killed. There are no
//! locks in it, which a killed process could keep.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};

use ersatz_scenario::limits::{BARRIERS, CHILDREN, STEPS, THREADS};
use ersatz_scenario::report::StepOutcome;
use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::WaitStatus;

/// Bytes that an outcome may have, as JSON.
const OUTCOME_BYTES: usize = 1600;

/// The shared memory.
#[derive(Debug)]
#[repr(C)]
pub struct Board {
    /// Threads that are ready to begin.
    pub ready: AtomicU32,
    /// 1 once they may.
    pub gate: AtomicU32,
    /// Threads that have come to each barrier.
    pub barriers: [AtomicU32; BARRIERS],
    /// Forked processes, in the order in which the scenario forks them.
    pub children: [ProcessBoard; CHILDREN],
    /// Setup, the threads, finally.
    pub sequences: [SequenceBoard; THREADS + 2],
}

/// A forked process.
#[derive(Debug)]
#[repr(C)]
pub struct ProcessBoard {
    /// Its process id, once it is forked.
    pub pid: AtomicI32,
    end: AtomicU32,
}

const EXITED: u32 = 1 << 16;
const SIGNALED: u32 = 2 << 16;

impl ProcessBoard {
    /// Notes how it ended.
    pub fn set_end(&self, status: WaitStatus) {
        let end = match status {
            WaitStatus::Exited(_, code) => EXITED | u32::from(code as u8),
            WaitStatus::Signaled(_, signal, _) => SIGNALED | signal as u32,
            _ => return,
        };
        self.end.store(end, Ordering::Release);
    }

    /// How it ended, in words; `None` while it runs.
    pub fn end(&self) -> Option<String> {
        let end = self.end.load(Ordering::Acquire);
        let value = end & 0xffff;
        match end & !0xffff {
            EXITED => Some(format!("exit status {value}")),
            SIGNALED => Some(format!("signal {value}")),
            _ => None,
        }
    }
}

/// How far a sequence of steps has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// It has not begun.
    Waiting = 0,
    /// It does its steps.
    Running = 1,
    /// It has done them.
    Done = 2,
}

/// Where a thread's hold is on its way. Each state is left by one side only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum HoldState {
    /// There is none. The thread goes to `Asked`.
    None = 0,
    /// The thread asks for it. The keeper goes to `Armed`, or to `Failed`.
    Asked = 1,
    /// The call may begin. The keeper goes to `Held`.
    Armed = 2,
    /// The call is held. A thread that resumes it goes to `Resuming`; the keeper, after the longest time, to `Free`.
    Held = 3,
    /// Another thread has resumed it. The keeper goes to `Free`.
    Resuming = 4,
    /// The call goes on.
    Free = 5,
    /// It cannot be held.
    Failed = 6,
    /// The call is over: the thread came here from wherever it was. The keeper goes to `None`.
    Over = 7,
}

/// A thread's hold.
#[derive(Debug)]
#[repr(C)]
pub struct HoldBoard {
    state: AtomicU32,
    /// The step that says where.
    pub step: AtomicU32,
    /// The condition on an address: the first, and one past the last. Equal if there is none.
    pub addresses: [AtomicU64; 2],
    /// Holds that are over, held or not.
    pub over: AtomicU32,
}

impl HoldBoard {
    /// The state.
    pub fn state(&self) -> HoldState {
        let raw = self.state.load(Ordering::Acquire);
        [
            HoldState::None,
            HoldState::Asked,
            HoldState::Armed,
            HoldState::Held,
            HoldState::Resuming,
            HoldState::Free,
            HoldState::Failed,
        ]
        .into_iter()
        .find(|&state| state as u32 == raw)
        .unwrap_or(HoldState::Over)
    }

    /// Sets the state, whatever it was.
    pub fn set(&self, state: HoldState) {
        self.state.store(state as u32, Ordering::Release);
    }

    /// Goes from one state to another; false if it was not in the first.
    pub fn advance(&self, from: HoldState, to: HoldState) -> bool {
        self.state.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// A sequence of steps.
#[derive(Debug)]
#[repr(C)]
pub struct SequenceBoard {
    phase: AtomicU32,
    /// The id of its thread.
    pub thread: AtomicI32,
    /// Its hold.
    pub hold: HoldBoard,
    /// Its steps.
    pub steps: [StepBoard; STEPS],
}

impl SequenceBoard {
    /// How far it has come.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Waiting,
            1 => Phase::Running,
            _ => Phase::Done,
        }
    }

    /// Notes how far it has come.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::Release);
    }
}

/// A step.
#[derive(Debug)]
#[repr(C)]
pub struct StepBoard {
    began: AtomicU64,
    ended: AtomicU64,
    length: AtomicU32,
    outcome: [AtomicU8; OUTCOME_BYTES],
}

impl StepBoard {
    /// Notes when it began, in nanoseconds.
    pub fn begin(&self, now: u64) {
        self.began.store(now, Ordering::Release);
    }

    /// Notes when it ended, and how.
    pub fn end(&self, now: u64, outcome: &StepOutcome) {
        let text = serde_json::to_string(outcome).expect("outcomes have no maps and no foreign types");
        let text = if text.len() <= OUTCOME_BYTES { text } else { r#"{"how":"failed","value":"a long story"}"#.into() };
        for (byte, slot) in text.bytes().zip(&self.outcome) {
            slot.store(byte, Ordering::Relaxed);
        }
        self.length.store(text.len() as u32, Ordering::Relaxed);
        self.ended.store(now, Ordering::Release);
    }

    /// When it began, if it has.
    pub fn began(&self) -> Option<u64> {
        Some(self.began.load(Ordering::Acquire)).filter(|&began| began != 0)
    }

    /// When it ended, and how, if it has.
    pub fn ended(&self) -> Option<(u64, StepOutcome)> {
        let ended = Some(self.ended.load(Ordering::Acquire)).filter(|&ended| ended != 0)?;
        let length = self.length.load(Ordering::Relaxed) as usize;
        let text: Vec<u8> = self.outcome.iter().take(length).map(|byte| byte.load(Ordering::Relaxed)).collect();
        let outcome = serde_json::from_slice(&text);
        Some((ended, outcome.unwrap_or_else(|error| StepOutcome::Failed(format!("an outcome that is none: {error}")))))
    }
}

/// A new board, shared with the processes that are forked from now on.
#[derive(Debug)]
pub struct SharedBoard(NonNull<Board>);

impl SharedBoard {
    /// Maps one.
    ///
    /// # Errors
    ///
    /// If there is not enough memory.
    pub fn new() -> Result<Self, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
        let pointer = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Board>(),
                protection,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        NonNull::new(pointer.cast()).filter(|_| pointer != libc::MAP_FAILED).map(Self).ok_or_else(Errno::last)
    }
}

impl Board {
    /// Has this process map all of it, so that no step faults there, which would wait for a step that has the address space's lock.
    pub fn populate(&self) {
        // SAFETY: the advice changes no content. A kernel that refuses it maps the pages as they are used.
        let _ = unsafe {
            libc::madvise(std::ptr::from_ref(self).cast_mut().cast(), size_of::<Self>(), libc::MADV_POPULATE_WRITE)
        };
    }
}

impl Deref for SharedBoard {
    type Target = Board;

    fn deref(&self) -> &Board {
        // SAFETY: the mapping is large enough, aligned to a page, and lives as long as `self`. A board is made of atomics
        // alone, for which zeros, the content of new memory, are valid, and which other processes may change at any time.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedBoard {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and references to it do not outlive it.
        let _ = unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Board>()) };
    }
}

/// Now, in nanoseconds of the monotonic clock.
pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is the one the call writes, and lives through it.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use ersatz_scenario::report::{Content, PageContent, Run};

    use super::*;

    #[test]
    fn a_step_is_read_as_it_was_written() {
        let board = SharedBoard::new().unwrap();
        let step = &board.sequences[3].steps[255];
        assert_eq!((step.began(), step.ended()), (None, None));
        step.begin(5);
        step.end(9, &StepOutcome::Signal(7));
        assert_eq!((step.began(), step.ended()), (Some(5), Some((9, StepOutcome::Signal(7)))));
    }

    #[test]
    fn the_longest_content_fits() {
        let board = SharedBoard::new().unwrap();
        let run = Run { pages: u32::MAX, content: PageContent::Digest(u32::MAX) };
        let content = Content { digest: u32::MAX, runs: vec![run; super::super::content::RUNS], more: u32::MAX };
        let outcome = StepOutcome::Content(content);
        board.sequences[0].steps[0].end(1, &outcome);
        assert_eq!(board.sequences[0].steps[0].ended(), Some((1, outcome)));
    }
}
