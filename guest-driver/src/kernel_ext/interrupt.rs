// SPDX-License-Identifier: GPL-2.0
//! MSI-X vectors and their handlers, on their device's resource list.
//!
//! The `kernel` crate of Linux 7.2 hands out the first and the last vector of an allocation only, and that of 7.3 ties
//! handlers to a lifetime that driver data has, but not a resource list. Interrupts are needed for longer than driver data
//! lives: a CPU fault waits for one as long as there are device pages.

use super::{compat, raw::device_ptr};
use crate::bindings;
use core::marker::PhantomPinned;
use kernel::{
    device::{Bound, Device},
    devres,
    error::to_result,
    pci,
    prelude::*,
    sync::aref::ARef,
};

/// What happens at an interrupt.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Whether a thread handles the rest.
    const HAS_THREAD: bool = false;

    /// Handles an interrupt. Called in hard interrupt context, possibly on several CPUs at once for several vectors.
    fn handle(&self);

    /// Does what an interrupt needs that may sleep, in a thread of its own: once for any number of interrupts, after the last of them.
    fn handle_in_thread(&self) {}
}

/// The vectors of a device.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<'a> {
    dev: &'a Device<Bound>,
    count: u32,
}

impl<'a> Vectors<'a> {
    /// Allocates `count` vectors, until the device is unbound. Devices have at most one allocation at a time.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the device has fewer vectors; `EINVAL` if it has an allocation already; `ENOMEM`.
    pub(crate) fn allocate(pdev: &'a pci::Device<Bound>, count: u32) -> Result<Self> {
        let dev: &Device<Bound> = pdev.as_ref();
        // SAFETY: `dev` is the device inside a PCI device.
        let allocated = unsafe { bindings::ersatz_pci_alloc_msix_vectors(device_ptr(dev), count) };
        to_result(allocated.min(0))?;
        devres::register(dev, FreeVectors { dev: dev.into() }, GFP_KERNEL)?;
        Ok(Self { dev, count })
    }

    /// Calls `handler` at each interrupt of vector `index`, until the device is unbound; the vectors are freed after that.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such vector; `EBUSY` if it has a handler already; `ENOMEM`.
    pub(crate) fn register<H: Handler>(&self, index: u32, name: &'static CStr, handler: H) -> Result {
        if index >= self.count {
            return Err(EINVAL);
        }
        // SAFETY: `dev` is the device inside a PCI device.
        let irq = unsafe { bindings::ersatz_pci_irq_vector(device_ptr(self.dev), index) };
        to_result(irq.min(0))?;
        devres::register(self.dev, Registration::new(irq.unsigned_abs(), name, handler), GFP_KERNEL)
    }
}

struct FreeVectors {
    dev: ARef<Device>,
}

impl Drop for FreeVectors {
    fn drop(&mut self) {
        // SAFETY: `dev` is embedded in a PCI device, whose vectors were allocated; their handlers, which were registered
        // later, are gone.
        unsafe { bindings::ersatz_pci_free_irq_vectors(device_ptr(&self.dev)) };
    }
}

/// # Invariants
///
/// `irq` has [`handle_callback`]`::<H>` as its handler, and [`thread_callback`]`::<H>` if that has a thread, from construction to drop, with this value's address as cookie.
#[pin_data(PinnedDrop)]
struct Registration<H: Handler> {
    irq: u32,
    handler: H,
    #[pin]
    _pin: PhantomPinned,
}

impl<H: Handler> Registration<H> {
    fn new(irq: u32, name: &'static CStr, handler: H) -> impl PinInit<Self, Error> {
        // INVARIANT: If this succeeds the handler is registered.
        try_pin_init!(&this in Self {
            irq,
            handler,
            _pin: PhantomPinned,
            _: {
                // SAFETY: All fields are initialised, and the value stays in place until its drop, which frees the
                // interrupt first; `name` and the callback last as long as the module.
                to_result(unsafe {
                    bindings::request_threaded_irq(
                        *irq,
                        Some(handle_callback::<H>),
                        if H::HAS_THREAD { Some(thread_callback::<H>) } else { None },
                        0,
                        name.as_char_ptr(),
                        this.as_ptr().cast(),
                    )
                })?;
            },
        })
    }
}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Registration<H> {
    fn drop(self: Pin<&mut Self>) {
        let cookie = core::ptr::from_ref(&*self).cast_mut().cast();
        // SAFETY: By the type invariants the interrupt was requested with this cookie. This waits for running handlers.
        unsafe { bindings::free_irq(self.irq, cookie) };
    }
}

/// # Safety
///
/// `cookie` points to a live `Registration<H>`.
unsafe extern "C" fn handle_callback<H: Handler>(_irq: c_int, cookie: *mut c_void) -> bindings::irqreturn_t {
    // SAFETY: By the function's requirements.
    let registration = unsafe { &*cookie.cast_const().cast::<Registration<H>>() };
    registration.handler.handle();
    if H::HAS_THREAD {
        compat::IRQ_WAKE_THREAD
    } else {
        compat::IRQ_HANDLED
    }
}

/// # Safety
///
/// As for [`handle_callback`].
unsafe extern "C" fn thread_callback<H: Handler>(_irq: c_int, cookie: *mut c_void) -> bindings::irqreturn_t {
    // SAFETY: By the function's requirements.
    let registration = unsafe { &*cookie.cast_const().cast::<Registration<H>>() };
    registration.handler.handle_in_thread();
    compat::IRQ_HANDLED
}
