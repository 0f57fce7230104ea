// SPDX-License-Identifier: GPL-2.0
//! Lets threads in to what belongs to a bound device, and keeps unbind waiting until they have left.
//!
//! A file may stay open for long after its device is gone. Each of its calls asks to be admitted, gets the proof that the
//! device is bound for the time of the call, or is turned away. (`Devres` does the like under RCU, where one cannot sleep.)

use core::ops::Deref;
use kernel::{
    device::{Bound, Device},
    devres, new_condvar, new_mutex,
    prelude::*,
    sync::{aref::ARef, Arc, CondVar, Mutex},
};

/// A door to `T` that shuts when the device is unbound.
#[pin_data]
pub(crate) struct Admission<T> {
    dev: ARef<Device>,
    #[pin]
    room: Mutex<Room<T>>,
    #[pin]
    left: CondVar,
}

struct Room<T> {
    /// `None` once closed.
    content: Option<Arc<T>>,
    visits: usize,
}

struct CloseOnUnbind<T: Send + Sync + 'static> {
    admission: Arc<Admission<T>>,
}

impl<T: Send + Sync + 'static> Drop for CloseOnUnbind<T> {
    fn drop(&mut self) {
        self.admission.close();
    }
}

impl<T: Send + Sync + 'static> Admission<T> {
    /// Opens the door to `content`, until `dev` is unbound or [`Admission::close`] is called.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn open(dev: &Device<Bound>, content: Arc<T>) -> Result<Arc<Self>> {
        let admission = Arc::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                room <- new_mutex!(Room { content: Some(content), visits: 0 }, "ersatz_admission"),
                left <- new_condvar!("ersatz_admission_left"),
            }),
            GFP_KERNEL,
        )?;
        devres::register(dev, CloseOnUnbind { admission: admission.clone() }, GFP_KERNEL)?;
        Ok(admission)
    }

    /// Lets the caller in; `None` once the door is closed.
    pub(crate) fn enter(&self) -> Option<Visit<'_, T>> {
        let mut room = self.room.lock();
        let content = room.content.clone()?;
        room.visits += 1;
        Some(Visit { admission: self, content })
    }

    /// Closes the door, and waits until everybody has left.
    pub(crate) fn close(&self) {
        let mut room = self.room.lock();
        let content = room.content.take();
        while room.visits > 0 {
            self.left.wait(&mut room);
        }
        drop(room);
        drop(content);
    }
}

/// A visit to an [`Admission`].
///
/// # Invariants
///
/// The visit is counted, so the device is bound: unbinding it closes the door, which waits for the visit to end.
pub(crate) struct Visit<'a, T: Send + Sync + 'static> {
    admission: &'a Admission<T>,
    content: Arc<T>,
}

impl<T: Send + Sync + 'static> Deref for Visit<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

impl<T: Send + Sync + 'static> Drop for Visit<'_, T> {
    fn drop(&mut self) {
        let mut room = self.admission.room.lock();
        room.visits -= 1;
        if room.visits == 0 {
            self.admission.left.notify_all();
        }
    }
}
