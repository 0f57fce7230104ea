// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Handling SIGBUS: memory that is taken from under a map.
//!
//! A page of a mapped file that the file no longer has, because it was truncated, or cannot get, because its file system is
//! full, raises SIGBUS in the thread that touches it, which by default ends the process. Maps come from clients, and only some of
//! their files are sealed against shrinking. So a thread registers each access to a map beforehand ([`Watch::touch`]). If
//! the signal is raised then, its handler replaces all of the map by zeroed memory, notes that it is lost, and lets the
//! access go on. The result of that access is not valid, nor is that of any later one.
//!
//! Any other SIGBUS goes to the handler that was there before, or ends the process as ever.

use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};

use vm_memory::MmapRegion;

/// Whether the memory of a map is lost.
#[derive(Debug, Default)]
pub(super) struct Watch {
    lost: AtomicBool,
    reported: AtomicBool,
}

impl Watch {
    /// Installs the handler that lets this process outlive the loss of maps.
    pub(super) fn prepare() {
        static HANDLED: OnceLock<()> = OnceLock::new();
        HANDLED.get_or_init(|| {
            #[cfg(test)]
            without_looms_handler();
            install();
        });
    }

    /// Runs `access`, which touches this region; `None` if the region is lost, be it before or meanwhile.
    pub(super) fn touch<R>(&self, region: &MmapRegion, access: impl FnOnce() -> R) -> Option<R> {
        let result = {
            let _touching = Touching::begin(region, &self.lost);
            access()
        };
        (!self.lost.load(Ordering::Acquire)).then_some(result)
    }

    /// Whether this is called for the first time.
    pub(super) fn is_news(&self) -> bool {
        !self.reported.swap(true, Ordering::Relaxed)
    }
}

/// What a thread touches right now.
#[derive(Clone, Copy)]
struct Touched {
    start: usize,
    length: usize,
    lost: *const AtomicBool,
}

const NOTHING: Touched = Touched { start: 0, length: 0, lost: ptr::null() };

thread_local! {
    /// Read by the signal handler, on the same thread: needs no initialisation and no destructor.
    static TOUCHED: Cell<Touched> = const { Cell::new(NOTHING) };
}

/// While it lives, the calling thread touches a region.
struct Touching(Touched);

impl Touching {
    fn begin(region: &MmapRegion, lost: &AtomicBool) -> Self {
        let touched = Touched { start: region.as_ptr() as usize, length: region.size(), lost };
        let before = TOUCHED.replace(touched);
        // The handler, on this thread, must find it if the access faults.
        compiler_fence(Ordering::SeqCst);
        Self(before)
    }
}

impl Drop for Touching {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        TOUCHED.set(self.0);
    }
}

/// What handled SIGBUS before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// The threads of loom's models come with a handler that aborts outside of them. It is installed once: here, and removed.
#[cfg(test)]
fn without_looms_handler() {
    loom::model(|| ());
    // SAFETY: the default action needs no handler; the signal is not blocked or raised by this.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

fn install() {
    // SAFETY: all bits zero is a valid sigaction.
    let (mut previous, mut action): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    // SAFETY: the system writes one sigaction, to where there is one.
    unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) };
    // Known before it is replaced: the handler may run at once.
    let _ = PREVIOUS.set(previous);
    action.sa_sigaction = handle as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the type that these flags call for, and does only what a signal handler may.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
}

/// The handler. Makes system calls and touches atomics and the thread's own cell only.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo.
    let info = unsafe { &mut *info };
    // SAFETY: for SIGBUS it has an address.
    let (code, address) = (info.si_code, unsafe { info.si_addr() } as usize);
    let touched = TOUCHED.get();
    // Poisoned memory has another code: replacing its map would hide the error.
    let is_ours = code == libc::BUS_ADRERR && address.wrapping_sub(touched.start) < touched.length;
    if !(is_ours && replace(touched)) {
        pass_on(signal, info, context);
    }
}

/// Puts zeroed memory in the place of a region.
fn replace(touched: Touched) -> bool {
    // SAFETY: the cell holds a pointer only while `Touching` borrows what it points to, on this thread.
    let lost = unsafe { &*touched.lost };
    // A thread that sees the zeroes sees this, too.
    lost.store(true, Ordering::Release);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // The error number belongs to the code that was interrupted.
    // SAFETY: has no preconditions.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: points to this thread's own error number.
    let before = unsafe { *errno };
    // SAFETY: the range is exactly that of a region that is mapped for as long as it is touched. It is touched
    // by volatile and atomic accesses alone, which find other memory there.
    let at = unsafe { libc::mmap(touched.start as *mut libc::c_void, touched.length, protection, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { *errno = before };
    at != libc::MAP_FAILED
}

/// Does what would have been done without this handler.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get().filter(|action| ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction));
    match previous {
        Some(action) if action.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: with this flag the kernel would have called it as such a function.
            let handler: Handler = unsafe { std::mem::transmute(action.sa_sigaction) };
            handler(signal, info, context);
        }
        Some(action) => {
            // SAFETY: without the flag the kernel would have called it as such a function.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(action.sa_sigaction) };
            handler(signal);
        }
        // The access is done once more, and ends the process.
        // SAFETY: the default disposition runs no code of this process.
        None => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}
