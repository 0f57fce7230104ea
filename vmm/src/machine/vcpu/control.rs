// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What other threads ask of a vCPU thread, and how they get its attention.
//!
//! Only the thread that runs a vCPU may use it. Others leave a request here and kick that thread out of `KVM_RUN` with
//! a signal. A signal that comes just before the thread enters `KVM_RUN` is lost, so a kick is repeated until the
//! request is taken.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::state::VcpuState;

/// Time between two kicks.
const KICK_INTERVAL: Duration = Duration::from_millis(2);

/// Installs the handler of the kick signal: one that does nothing, so that system calls return early.
///
/// # Errors
///
/// Fails if the system refuses.
pub fn install_kick_handler() -> io::Result<()> {
    extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}
    register_signal_handler(SIGRTMIN(), ignore).map_err(io::Error::from)
}

/// Requests to a vCPU that are not done yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Leave the run loop.
    pub stop: bool,
    /// Inject a non-maskable interrupt.
    pub nmi: bool,
    /// Say where the vCPU is.
    pub state: bool,
    /// Stay out of the guest.
    pub pause: bool,
}

impl Requests {
    /// Whether there is something to do, now or before the guest is entered.
    fn any(self) -> bool {
        self.stop || self.nmi || self.state || self.pause
    }
}

#[derive(Default)]
struct Inner {
    /// All that is requested but pauses.
    requests: Requests,
    /// How many want the thread to stay out of the guest.
    pauses: usize,
    state: Option<VcpuState>,
    /// The thread waits in [`VcpuControl::stay_out`].
    is_paused: bool,
    /// Set while the thread is in its run loop: only then may it be sent signals.
    thread: Option<libc::pthread_t>,
}

impl Inner {
    /// All that is requested.
    fn requests(&self) -> Requests {
        Requests { pause: self.pauses > 0, ..self.requests }
    }
}

/// One vCPU thread's mailbox.
#[derive(Default)]
pub struct VcpuControl {
    inner: Mutex<Inner>,
    /// The thread is in the guest, or about to enter it. Set under the lock only.
    is_in_guest: AtomicBool,
    /// Signalled when a request was taken, and when the thread leaves.
    changed: Condvar,
}

impl VcpuControl {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each critical section leaves the mailbox whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called by the vCPU thread when it starts its run loop; until the guard is dropped it can be kicked.
    pub fn enter(&self) -> Running<'_> {
        // SAFETY: has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        self.lock().thread = Some(thread);
        Running(self)
    }

    /// Called by the vCPU thread before it enters the guest: takes what is requested. If that is not to stop or to stay out, the
    /// thread must enter the guest next, and call [`VcpuControl::left_guest`] after that.
    pub fn take(&self) -> Requests {
        let mut inner = self.lock();
        let requests = inner.requests();
        if requests.any() {
            // A stop lasts.
            inner.requests = Requests { stop: requests.stop, ..Requests::default() };
            self.changed.notify_all();
        }
        // It may have left `stay_out` for something else than the end of the pause, which may have come since.
        inner.is_paused &= requests.pause;
        self.is_in_guest.store(!requests.stop && !requests.pause, Ordering::Relaxed);
        requests
    }

    /// Called by the vCPU thread when it has left the guest, before it serves the exit.
    pub fn left_guest(&self) {
        self.is_in_guest.store(false, Ordering::Release);
    }

    /// Called by the vCPU thread in answer to [`Requests::pause`]: waits until that has ended, or something else is requested.
    pub fn stay_out(&self) {
        let mut inner = self.lock();
        while inner.pauses > 0 && !inner.requests.any() {
            inner.is_paused = true;
            self.changed.notify_all();
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.is_paused = inner.pauses > 0;
    }

    /// Keeps the vCPU thread out of the guest, until [`VcpuControl::resume`] was called as often as this; returns once the thread waits, or has ended.
    pub fn pause(&self) {
        let mut inner = self.lock();
        inner.pauses += 1;
        while inner.thread.is_some() && !inner.is_paused {
            inner = self.kick(inner);
        }
    }

    /// Ends one [`VcpuControl::pause`].
    pub fn resume(&self) {
        let mut inner = self.lock();
        inner.pauses = inner.pauses.saturating_sub(1);
        self.changed.notify_all();
    }

    /// Keeps the vCPU out of the guest until what is returned is dropped; returns once it is out. Its thread may be serving an exit, then
    /// or meanwhile, and may be the one that calls this.
    pub fn keep_outside(&self) -> Outside<'_> {
        let mut inner = self.lock();
        inner.pauses += 1;
        // Pairs with `left_guest`: what the vCPU did in the guest is seen here.
        while inner.thread.is_some() && self.is_in_guest.load(Ordering::Acquire) {
            inner = self.kick(inner);
        }
        Outside(self)
    }

    /// Called by the vCPU thread in answer to [`Requests::state`].
    pub fn publish(&self, state: VcpuState) {
        self.lock().state = Some(state);
        self.changed.notify_all();
    }

    /// Tells the vCPU thread to leave its run loop, and kicks it until it has.
    pub fn stop(&self) {
        let mut inner = self.lock();
        inner.requests.stop = true;
        while inner.thread.is_some() {
            inner = self.kick(inner);
        }
    }

    /// Has a non-maskable interrupt injected; returns whether the thread took the request in time.
    pub fn inject_nmi(&self, patience: Duration) -> bool {
        let mut inner = self.lock();
        inner.requests.nmi = true;
        self.kick_while(inner, patience, |inner| inner.requests.nmi).is_some()
    }

    /// Where the vCPU is; `None` if its thread did not say in time.
    pub fn state(&self, patience: Duration) -> Option<VcpuState> {
        let mut inner = self.lock();
        inner.state = None;
        inner.requests.state = true;
        self.kick_while(inner, patience, |inner| inner.state.is_none())?.state
    }

    /// Kicks the thread while `pending`; `None` if that was still so when patience ended, or if there is no thread.
    fn kick_while<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        patience: Duration,
        pending: impl Fn(&Inner) -> bool,
    ) -> Option<MutexGuard<'a, Inner>> {
        let deadline = Instant::now() + patience;
        while pending(&inner) {
            if inner.thread.is_none() || Instant::now() >= deadline {
                return None;
            }
            inner = self.kick(inner);
        }
        Some(inner)
    }

    /// Kicks the thread once, if it runs, and gives it a moment.
    fn kick<'a>(&'a self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        // One that is paused waits for this.
        self.changed.notify_all();
        if let Some(thread) = inner.thread {
            // SAFETY: the thread has not ended: before it does it takes itself out of the mailbox, which is locked.
            let result = unsafe { libc::pthread_kill(thread, SIGRTMIN()) };
            if result != 0 {
                log::warn!("cannot signal a vCPU thread: {}", io::Error::from_raw_os_error(result));
            }
        }
        self.changed.wait_timeout(inner, KICK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Held by a vCPU thread while it is in its run loop.
pub struct Running<'a>(&'a VcpuControl);

/// Keeps a vCPU out of the guest.
pub struct Outside<'a>(&'a VcpuControl);

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().thread = None;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const STATE: VcpuState = VcpuState { vcpu: 0, rip: 1, rsp: 2, rflags: 3, cr3: 4, cpl: 0 };

    /// A thread that answers like a vCPU's, and sleeps where that would be in the guest.
    fn fake_vcpu(control: &Arc<VcpuControl>) -> thread::JoinHandle<u32> {
        install_kick_handler().unwrap();
        let control = Arc::clone(control);
        thread::spawn(move || {
            let _running = control.enter();
            let mut nmis = 0;
            loop {
                let requests = control.take();
                if requests.state {
                    control.publish(STATE);
                }
                nmis += u32::from(requests.nmi);
                if requests.stop {
                    return nmis;
                }
                if requests.pause {
                    control.stay_out();
                    continue;
                }
                // SAFETY: waits for a signal, nothing else.
                unsafe { libc::pause() };
                control.left_guest();
            }
        })
    }

    #[test]
    fn a_running_vcpu_answers_and_stops() {
        let control = Arc::new(VcpuControl::default());
        let thread = fake_vcpu(&control);
        let patience = Duration::from_secs(60);
        while control.state(patience) != Some(STATE) {} // until it has started
        assert!(control.inject_nmi(patience));
        control.stop();
        assert_eq!(thread.join().unwrap(), 1);
    }

    #[test]
    fn a_paused_vcpu_answers_goes_on_and_stops() {
        let control = Arc::new(VcpuControl::default());
        control.pause(); // before it has started
        let thread = fake_vcpu(&control);
        let patience = Duration::from_secs(60);
        for round in 0..100 {
            if round > 0 {
                control.pause();
            }
            while control.state(patience) != Some(STATE) {}
            assert!(control.inject_nmi(patience));
            assert!(control.lock().is_paused || control.lock().thread.is_none());
            control.resume();
            while control.state(patience) != Some(STATE) {}
            assert!(!control.lock().is_paused);
        }
        control.pause();
        control.stop();
        assert_eq!(thread.join().unwrap(), 100);
    }

    #[test]
    fn one_that_does_not_run_is_left_alone() {
        let control = VcpuControl::default();
        assert_eq!(control.state(Duration::from_secs(60)), None);
        assert!(!control.inject_nmi(Duration::from_secs(60)));
        control.stop();
        assert!(control.take().stop);
    }
}
