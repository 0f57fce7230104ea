// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Accesses to memory that may fail: a SIGBUS or SIGSEGV ends the access and is its result.
//!
//! The accesses are two instructions in assembly, whose addresses the signal handler knows. A signal at one of them goes on behind
//! it, with the signal's number in the register of the result, as the kernel's exception tables do it. A signal anywhere else
//! ends the process, as it would without the handler.

use std::arch::global_asm;
use std::mem::MaybeUninit;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_void, siginfo_t, ucontext_t};

use super::ranges::Place;
use crate::pattern::PAGE;

// rdi: to, rsi: from, rdx: how many. Returns 0, or the signal.
global_asm!(
    ".pushsection .text",
    ".balign 16",
    "ersatz_guarded_copy:",
    "mov rcx, rdx",
    "xor eax, eax",
    "ersatz_guarded_copy_access:",
    "rep movsq",
    "ersatz_guarded_copy_end:",
    "ret",
    ".balign 16",
    "ersatz_guarded_byte:",
    "mov rcx, rdx",
    "xor eax, eax",
    "ersatz_guarded_byte_access:",
    "rep movsb",
    "ersatz_guarded_byte_end:",
    "ret",
    ".popsection",
);

// SAFETY: the assembly above defines these, with this calling convention and these arguments.
unsafe extern "sysv64" {
    fn ersatz_guarded_copy(to: *mut c_void, from: *const c_void, words: usize) -> c_int;
    fn ersatz_guarded_byte(to: *mut c_void, from: *const c_void, bytes: usize) -> c_int;
    fn ersatz_guarded_copy_access();
    fn ersatz_guarded_copy_end();
    fn ersatz_guarded_byte_access();
    fn ersatz_guarded_byte_end();
}

/// The error of an action that the hardware asks for when it likes (`BUS_MCEERR_AO`): nobody touched anything.
const MACHINE_CHECK_OPTIONAL: c_int = 5;

extern "C" fn handle(signal: c_int, information: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO this structure.
    let code = unsafe { (*information).si_code };
    // SAFETY: and this one, which nothing else refers to.
    let context = unsafe { &mut *context.cast::<ucontext_t>() };
    let registers = &mut context.uc_mcontext.gregs;
    let at = registers[libc::REG_RIP as usize];
    let is = |symbol: unsafe extern "sysv64" fn()| symbol as usize as i64;
    let end = if at == is(ersatz_guarded_copy_access) {
        is(ersatz_guarded_copy_end)
    } else if at == is(ersatz_guarded_byte_access) {
        is(ersatz_guarded_byte_end)
    } else {
        if !(signal == libc::SIGBUS && code == MACHINE_CHECK_OPTIONAL) {
            // SAFETY: from here on the signal has its usual effect, which is to end the process when the instruction is tried again.
            let _ = unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        return;
    };
    registers[libc::REG_RAX as usize] = signal.into();
    registers[libc::REG_RIP as usize] = end;
}

/// Has this process's accesses guarded from here on.
///
/// # Errors
///
/// If the system refuses the handler.
pub fn install() -> Result<(), Errno> {
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = handle;
    // SAFETY: zeros are a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    for signal in [libc::SIGBUS, libc::SIGSEGV] {
        // SAFETY: the handler touches nothing but what it is given, and calls only signal(2).
        Errno::result(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
    }
    Ok(())
}

/// A page's bytes, aligned as a page is.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct PageBuffer(pub [u8; PAGE]);

impl PageBuffer {
    /// A page of this byte.
    pub fn of(byte: u8) -> Self {
        Self([byte; PAGE])
    }
}

/// What came of an access: the signal that it got, if one.
pub type Access = Result<(), c_int>;

fn access(result: c_int) -> Access {
    if result == 0 { Ok(()) } else { Err(result) }
}

/// Copies a page of the place into the buffer.
pub fn read_page(place: Place, page: usize, buffer: &mut PageBuffer) -> Access {
    let from = place.pointer(page * PAGE);
    // SAFETY: the buffer is a page. What cannot be read ends the copy; the place is memory that only the scenario knows.
    access(unsafe { ersatz_guarded_copy(buffer.0.as_mut_ptr().cast(), from.cast_const(), PAGE / 8) })
}

/// Copies the buffer into a page of the place.
pub fn write_page(place: Place, page: usize, buffer: &PageBuffer) -> Access {
    let to = place.pointer(page * PAGE);
    // SAFETY: as in `read_page`; no references to the place's memory exist.
    access(unsafe { ersatz_guarded_copy(to, buffer.0.as_ptr().cast(), PAGE / 8) })
}

/// Reads the first byte of a page.
pub fn read_byte(place: Place, page: usize) -> Result<u8, c_int> {
    let (from, mut byte) = (place.pointer(page * PAGE), 0_u8);
    // SAFETY: as in `read_page`, for one byte.
    access(unsafe { ersatz_guarded_byte((&raw mut byte).cast(), from.cast_const(), 1) }).map(|()| byte)
}

/// Writes the first byte of a page.
pub fn write_byte(place: Place, page: usize, byte: u8) -> Access {
    let to = place.pointer(page * PAGE);
    // SAFETY: as in `write_page`, for one byte.
    access(unsafe { ersatz_guarded_byte(to, (&raw const byte).cast(), 1) })
}
