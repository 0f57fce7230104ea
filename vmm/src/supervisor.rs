// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Watching over a running guest: time limit, panics, interruption by the user. The same for KVM and for QEMU.
//!
//! The machine runs on the calling thread; the supervisor watches from one of its own and ends the machine when it must.
//! Afterwards the machine's end, the supervisor's reason and the console's log together make the [`Outcome`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::collect::GuestLink;
use crate::console::log::ConsoleLog;
use crate::gpu::registry::GpuRegistry;
use crate::machine::{End, MachineHandle};
use crate::outcome::Outcome;
use crate::threads::{Role, spawn_scoped};

/// How often the console is looked at for a panic.
const TICK: Duration = Duration::from_millis(100);
/// How long a panicking kernel may take to print its messages and to reset the machine.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a kernel that hangs may take to answer an NMI with backtraces of all CPUs and a reset.
const BACKTRACE: Duration = Duration::from_secs(8);
/// How long a guest that was asked to end its command, and to send files, may send nothing.
const ANSWER: Duration = Duration::from_secs(10);
/// Most lines of backtraces to show.
const BACKTRACE_LINES: usize = 60;
/// Starts of lines of a backtrace that do not contain a place in the kernel: registers, bytes of code, the machine's name.
const NOT_A_PLACE: [&str; 17] = [
    "RSP:",
    "RAX:",
    "RDX:",
    "RBP:",
    "R10:",
    "R13:",
    "ORIG_RAX:",
    "FS:",
    "CS:",
    "CR2:",
    "DR0:",
    "DR3:",
    "PKRU:",
    "Code:",
    "Hardware name:",
    "<",
    "Kernel Offset:",
];

/// What a supervisor can do with a machine, from any thread.
pub trait Controls: Sync {
    /// Returns where each vCPU is, in one line per vCPU.
    fn vcpus(&self) -> Vec<String>;
    /// Sends an NMI to all vCPUs.
    fn inject_nmi(&self);
    /// Ends the machine soon.
    fn stop(&self);
}

impl Controls for MachineHandle {
    fn vcpus(&self) -> Vec<String> {
        MachineHandle::vcpus(self).iter().map(ToString::to_string).collect()
    }

    fn inject_nmi(&self) {
        MachineHandle::inject_nmi(self);
    }

    fn stop(&self) {
        MachineHandle::stop(self);
    }
}

/// An event that stays set once it has happened; clones share it.
#[derive(Clone, Debug)]
pub struct Event(Arc<OwnedFd>);

impl Event {
    /// Returns an event that has not happened.
    ///
    /// # Errors
    ///
    /// Fails if there is no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Sets the event.
    pub fn set(&self) {
        // It fails only if it was set 2^64 times before.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Waits until it happens or the time is over. Returns whether it has happened.
    pub fn wait(&self, limit: Duration) -> bool {
        first_of([self], limit).is_some()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for the first of some events. Returns its index, or `None` when the time is over.
pub fn first_of<const N: usize>(events: [&Event; N], limit: Duration) -> Option<usize> {
    let deadline = Instant::now() + limit;
    loop {
        let mut polled = events.map(|event| PollFd::new(event, PollFlags::IN));
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        match poll(&mut polled, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return polled.iter().position(|event| !event.revents().is_empty()),
        }
    }
}

/// A run, for those who watch over it.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The guest's console log.
    pub log: ConsoleLog,
    /// How long the guest may run.
    pub limit: Option<Duration>,
    /// How long its console may be silent.
    pub silence: Option<Duration>,
    /// Set when the user interrupts the run.
    pub stop: Event,
    /// Where its GPUs are entered, so that others reach them while it runs.
    pub gpus: GpuRegistry,
    /// The link to a guest that sends files at its end.
    pub collect: Option<GuestLink>,
}

/// Why the supervisor ended a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    Interrupted,
    TimedOut(Vec<String>),
    Silent(Vec<String>),
    Panicked,
}

/// What has come of watching over a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Why the machine was ended, if it was.
    reason: Option<Reason>,
    /// Whether the guest was asked to end its command, so the command's status means nothing.
    was_asked: bool,
}

/// Runs a machine (`body` returns when it has ended) under supervision.
///
/// # Errors
///
/// Those of `body`, unless the supervisor had ended the machine.
pub fn supervise<E: From<io::Error>>(
    watch: &Watch,
    controls: &dyn Controls,
    body: impl FnOnce() -> Result<End, E>,
) -> Result<Outcome, E> {
    let ended = Event::new()?;
    let (end, verdict) = thread::scope(|scope| {
        let supervisor = spawn_scoped(scope, Role::Supervisor, || oversee(watch, controls, &ended))?;
        let end = {
            let _set = SetOnDrop(&ended);
            body()
        };
        let verdict = supervisor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, io::Error>((end, verdict))
    })?;
    match (end, verdict.reason) {
        // The machine may end while the supervisor ends it; a status takes precedence over a reason.
        (Ok(End::Exited(status)), _) if !verdict.was_asked => Ok(exited(status, &watch.log)),
        (_, Some(Reason::Interrupted)) => Ok(Outcome::Interrupted),
        (_, Some(Reason::TimedOut(lines))) => Ok(Outcome::TimedOut(lines)),
        (_, Some(Reason::Silent(lines))) => Ok(Outcome::Silent(lines)),
        (_, Some(Reason::Panicked)) => Ok(Outcome::Panicked),
        (Ok(End::Exited(status)), None) => Ok(exited(status, &watch.log)),
        (Ok(_), None) if watch.log.panic().is_some() => Ok(Outcome::Panicked),
        (Ok(_), None) => Ok(Outcome::Stopped),
        (Err(error), None) => Err(error),
    }
}

/// A command's exit status as an outcome: success does not count if the kernel complained.
fn exited(status: u8, log: &ConsoleLog) -> Outcome {
    match log.complaint() {
        Some(line) if status == 0 => Outcome::Splat(line),
        _ => Outcome::Exited(status),
    }
}

/// Sets an event however the scope is left.
struct SetOnDrop<'a>(&'a Event);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Watches until the machine has ended, and ends it if it must.
fn oversee(watch: &Watch, controls: &dyn Controls, ended: &Event) -> Verdict {
    let started = Instant::now();
    let mut last = (watch.log.mark(), started);
    let reason = loop {
        match first_of([ended, &watch.stop], TICK) {
            Some(0) => return Verdict::default(),
            Some(_) if collects(watch, ended) => return Verdict::asked(Reason::Interrupted),
            Some(_) => break Reason::Interrupted,
            None => {}
        }
        if watch.log.panic().is_some() {
            // The kernel resets the machine by itself when it is done.
            if ended.wait(LAST_WORDS) {
                return Verdict::default();
            }
            break Reason::Panicked;
        }
        if watch.limit.is_some_and(|limit| started.elapsed() >= limit) {
            if watch.collect.is_some() {
                let lines = controls.vcpus();
                if collects(watch, ended) {
                    return Verdict::asked(Reason::TimedOut(lines));
                }
            }
            break Reason::TimedOut(whereabouts(&watch.log, controls, ended));
        }
        let mark = watch.log.mark();
        if mark != last.0 {
            last = (mark, Instant::now());
        } else if watch.silence.is_some_and(|silence| last.1.elapsed() >= silence) {
            break Reason::Silent(whereabouts(&watch.log, controls, ended));
        }
    };
    controls.stop();
    Verdict { reason: Some(reason), was_asked: false }
}

impl Verdict {
    /// The guest was asked to end, and has ended.
    fn asked(reason: Reason) -> Self {
        Self { reason: Some(reason), was_asked: true }
    }
}

/// Asks a guest that sends files at its end to end its command, and waits while they come. Returns whether the machine has ended; it
/// has not if the guest no longer answers.
fn collects(watch: &Watch, ended: &Event) -> bool {
    let Some(link) = &watch.collect else { return false };
    link.end_command();
    let mut last = (link.received(), Instant::now());
    while !ended.wait(TICK) {
        let received = link.received();
        if received != last.0 {
            last = (received, Instant::now());
        } else if last.1.elapsed() >= ANSWER || watch.log.panic().is_some() {
            return false;
        }
    }
    true
}

/// Returns where a guest hangs: its vCPUs as they are, then its kernel's answer to an NMI.
fn whereabouts(log: &ConsoleLog, controls: &dyn Controls, ended: &Event) -> Vec<String> {
    let mut lines = controls.vcpus();
    let mark = log.mark();
    controls.inject_nmi();
    // The kernel was told to panic on an NMI it cannot explain, and a panic to reset, which ends the machine.
    ended.wait(BACKTRACE);
    let said = log.since(mark);
    if said.is_empty() {
        lines.push("the kernel does not answer an NMI".to_owned());
    }
    lines.extend(said.into_iter().filter(|line| is_place(line)).take(BACKTRACE_LINES));
    lines
}

/// Whether a line of a backtrace contains a place in the kernel.
fn is_place(line: &str) -> bool {
    let text = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(line, |(_, text)| text).trim_start();
    !text.is_empty() && !NOT_A_PLACE.iter().any(|start| text.starts_with(start))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::collect::Collector;
    use crate::guest_port::GuestPort;

    /// A machine that does nothing but end when told to.
    struct Fake {
        stopped: Event,
        answered: Event,
        log: ConsoleLog,
    }

    impl Controls for Fake {
        fn vcpus(&self) -> Vec<String> {
            vec!["vCPU 0: here".to_owned()]
        }

        fn inject_nmi(&self) {
            self.log
                .push(b"[  9.0] NMI backtrace\n[  9.1] RIP: 0010:spin+0x1/0x2\n[  9.2] RAX: 0000000000000000 RBX: 1\n");
            self.answered.set();
        }

        fn stop(&self) {
            self.stopped.set();
        }
    }

    fn run(limit: Option<Duration>, body: impl FnOnce(&Fake, &Watch) -> End) -> Outcome {
        run_with((limit, None), body)
    }

    fn run_with(
        (limit, silence): (Option<Duration>, Option<Duration>),
        body: impl FnOnce(&Fake, &Watch) -> End,
    ) -> Outcome {
        let log = ConsoleLog::new();
        let fake = Fake { stopped: Event::new().unwrap(), answered: Event::new().unwrap(), log: log.clone() };
        let watch =
            Watch { log, limit, silence, stop: Event::new().unwrap(), gpus: GpuRegistry::default(), collect: None };
        supervise::<io::Error>(&watch, &fake, || Ok(body(&fake, &watch))).unwrap()
    }

    fn until_stopped(fake: &Fake) -> End {
        assert!(fake.stopped.wait(Duration::from_secs(60)), "nobody stops the machine");
        End::Stopped
    }

    #[test]
    fn an_exit_status_is_the_outcome() {
        assert_eq!(run(None, |_, _| End::Exited(3)), Outcome::Exited(3));
        assert_eq!(run(None, |_, _| End::PoweredOff), Outcome::Stopped);
    }

    #[test]
    fn success_with_a_complaint_does_not_count_and_failure_stays_failure() {
        let complain = |_: &Fake, watch: &Watch, status| {
            watch.log.push(b"[ 1.0] WARNING: CPU: 0\n");
            End::Exited(status)
        };
        assert_eq!(run(None, |f, w| complain(f, w, 0)), Outcome::Splat("[ 1.0] WARNING: CPU: 0".to_owned()));
        assert_eq!(run(None, |f, w| complain(f, w, 1)), Outcome::Exited(1));
    }

    #[test]
    fn a_reset_after_a_panic_is_a_panic() {
        let outcome = run(None, |_, watch| {
            watch.log.push(b"[ 1.0] Kernel panic - not syncing: x\n");
            End::Reset
        });
        assert_eq!(outcome, Outcome::Panicked);
    }

    #[test]
    fn the_user_can_end_it() {
        let outcome = run(None, |fake, watch| {
            watch.stop.set();
            until_stopped(fake)
        });
        assert_eq!(outcome, Outcome::Interrupted);
    }

    #[test]
    fn a_guest_that_falls_silent_hangs() {
        let outcome = run_with((None, Some(Duration::from_millis(1))), |fake, _| {
            assert!(fake.answered.wait(Duration::from_secs(60)), "nobody asks the kernel where it is");
            End::Reset
        });
        let Outcome::Silent(lines) = outcome else { panic!("{outcome:?}") };
        assert_eq!(lines[0], "vCPU 0: here");
    }

    /// Runs a guest that sends files at its end, until the time limit; `body` gets the guest's end of the port.
    fn run_collecting(body: impl FnOnce(&Fake, &mut GuestPort) -> End) -> Outcome {
        let (collector, mut port) = Collector::start(Vec::new()).unwrap();
        let log = ConsoleLog::new();
        let fake = Fake { stopped: Event::new().unwrap(), answered: Event::new().unwrap(), log: log.clone() };
        let watch = Watch {
            log,
            limit: Some(Duration::from_millis(1)),
            silence: None,
            stop: Event::new().unwrap(),
            gpus: GpuRegistry::default(),
            collect: Some(collector.link()),
        };
        supervise::<io::Error>(&watch, &fake, || Ok(body(&fake, &mut port))).unwrap()
    }

    #[test]
    fn a_guest_that_sends_files_is_asked_to_end_its_command_at_the_limit() {
        let outcome = run_collecting(|_, port| {
            port.end.read_exact(&mut [0]).unwrap();
            End::Exited(128 + 15)
        });
        // The status is that of a command that was ended.
        assert_eq!(outcome, Outcome::TimedOut(vec!["vCPU 0: here".to_owned()]));
    }

    #[test]
    fn a_guest_that_panics_instead_of_sending_files_hangs_all_the_same() {
        let outcome = run_collecting(|fake, port| {
            port.end.read_exact(&mut [0]).unwrap();
            fake.log.push(b"[ 1.0] Kernel panic - not syncing: x\n");
            assert!(fake.answered.wait(Duration::from_secs(60)), "nobody asks the kernel where it is");
            End::Reset
        });
        assert!(matches!(outcome, Outcome::TimedOut(_)), "{outcome:?}");
    }

    #[test]
    fn a_hang_ends_at_the_limit_and_says_where() {
        // As a kernel does: it resets the machine once it has said where it was.
        let outcome = run(Some(Duration::from_millis(1)), |fake, _| {
            assert!(fake.answered.wait(Duration::from_secs(60)), "nobody asks the kernel where it is");
            End::Reset
        });
        let Outcome::TimedOut(lines) = outcome else { panic!("{outcome:?}") };
        assert_eq!(lines[0], "vCPU 0: here");
        assert!(lines.iter().any(|line| line.contains("spin+0x1")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("RAX")), "{lines:?}");
    }
}
