// SPDX-License-Identifier: GPL-2.0
//! Probes at the entry of functions.
//!
//! C header: [`include/linux/kprobes.h`](srctree/include/linux/kprobes.h)

use crate::bindings;
use core::{marker::PhantomData, ptr};
use kernel::{error::to_result, prelude::*, str::CString, types::Opaque};

/// What a [`Probe`] calls.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Looks at an entry to the function. Preemption is off; interrupts may be. Must neither sleep nor take a lock: the
    /// function can be any that the kernel lets be probed.
    ///
    /// What this calls in turn is not probed: the kernel skips probes on a CPU that is in a handler.
    fn entered(&self, entry: &Entry<'_>);
}

/// An entry to a probed function: the moment before its first instruction.
pub(crate) struct Entry<'a> {
    regs: *mut bindings::pt_regs,
    _registers: PhantomData<&'a bindings::pt_regs>,
}

impl Entry<'_> {
    /// Returns an argument that is passed in a register; zero beyond those.
    pub(crate) fn argument(&self, number: u32) -> u64 {
        // SAFETY: The registers are those of the entry, valid while `self` is; the function looks at the number.
        unsafe { bindings::ersatz_hold_argument(self.regs, number) as u64 }
    }

    /// Reads 64 bits of the kernel's memory, `offset` bytes behind where an argument points to; `None` if nothing can be read there.
    pub(crate) fn field(&self, number: u32, offset: u64) -> Option<u64> {
        let address = usize::try_from(self.argument(number).checked_add(offset)?).ok()?;
        let mut value = 0_u64;
        let source = ptr::without_provenance::<c_void>(address);
        // SAFETY: The function reads any address, or fails. `value` is valid for writes of its size.
        let result = unsafe { bindings::copy_from_kernel_nofault((&raw mut value).cast(), source, size_of::<u64>()) };
        (result == 0).then_some(value)
    }

    /// Whether this is where a task can be kept: its own code, not an interrupt's, with interrupts on.
    pub(crate) fn is_holdable(&self) -> bool {
        // SAFETY: There are no requirements.
        unsafe { bindings::ersatz_hold_is_holdable() }
    }
}

/// A probe at the entry of a function, there until it is dropped. Dropping waits for handlers that run.
///
/// # Invariants
///
/// `kprobe` is registered from construction to drop, for the function `name`, with [`pre_handler`] of `T`.
#[pin_data(PinnedDrop)]
pub(crate) struct Probe<T: Handler> {
    #[pin]
    kprobe: Opaque<bindings::kprobe>,
    name: CString,
    handler: T,
}

// SAFETY: A probe may be unregistered by any thread.
unsafe impl<T: Handler> Send for Probe<T> {}
// SAFETY: A shared reference gives the address only, which does not change.
unsafe impl<T: Handler> Sync for Probe<T> {}

impl<T: Handler> Probe<T> {
    /// Puts a probe at the entry of a function.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such function; `EINVAL` if it must not be probed, or its entry is not traced, so that the handler would
    /// run with interrupts off; `ENOMEM`.
    pub(crate) fn register(name: CString, handler: T) -> impl PinInit<Self, Error> {
        let name_ptr = name.as_char_ptr();
        try_pin_init!(Self {
            name,
            handler,
            // The last one: the handler can be called from here on.
            kprobe <- Opaque::try_ffi_init(move |slot: *mut bindings::kprobe| {
                let kprobe = bindings::kprobe {
                    // The string is on the heap, and stays there as long as the probe.
                    symbol_name: name_ptr,
                    pre_handler: Some(pre_handler::<T>),
                    ..Default::default()
                };
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(kprobe) };
                // SAFETY: `slot` was just initialised, and stays in place until it is unregistered.
                to_result(unsafe { bindings::register_kprobe(slot) })?;
                // SAFETY: The probe is registered.
                if !unsafe { bindings::ersatz_hold_is_traced_entry(slot) } {
                    // SAFETY: As above; the slot is given up.
                    unsafe { bindings::unregister_kprobe(slot) };
                    return Err(EINVAL);
                }
                // INVARIANT: The probe is registered.
                Ok(())
            }),
        })
    }

    /// Returns the address of the probe, which all probes of one function share.
    pub(crate) fn address(&self) -> usize {
        // SAFETY: By the type invariants the probe is registered, and its address does not change.
        unsafe { (*self.kprobe.get()).addr }.addr()
    }
}

#[pinned_drop]
impl<T: Handler> PinnedDrop for Probe<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the probe is registered. The call returns once no handler runs.
        unsafe { bindings::unregister_kprobe(self.kprobe.get()) };
    }
}

/// # Safety
///
/// To be called by the kernel alone, for the `kprobe` of a [`Probe<T>`], with the registers of the entry.
unsafe extern "C" fn pre_handler<T: Handler>(kprobe: *mut bindings::kprobe, regs: *mut bindings::pt_regs) -> c_int {
    let kprobe = Opaque::cast_from(kprobe.cast_const());
    // SAFETY: By the function's contract the probe is part of a `Probe<T>`. The other fields were initialised before it was
    // registered, and stay until it is unregistered, which waits for this.
    let handler = unsafe { &(*kernel::container_of!(kprobe, Probe<T>, kprobe)).handler };
    handler.entered(&Entry { regs, _registers: PhantomData });
    // The function goes on.
    0
}
