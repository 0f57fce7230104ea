// SPDX-License-Identifier: GPL-2.0
//! All holds, and the limits on them.

use crate::{hold::Hold, probe::Probe, uapi::hold as uapi};
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{Arc, Mutex},
};

/// The holds of all files.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    table: Mutex<Table>,
}

struct Table {
    /// At most [`uapi::MAX_HOLDS`].
    entries: KVec<Registered>,
    last_session: u64,
    last_id: u32,
}

/// A hold and its probe. Dropping it removes the probe, which waits for tasks that are held at any probe.
struct Registered {
    session: u64,
    id: u32,
    hold: Arc<Hold>,
    /// Nothing while it is being put in place.
    probe: Option<Pin<KBox<Probe<Arc<Hold>>>>>,
}

impl Registry {
    /// Creates it empty.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let entries = KVec::with_capacity(uapi::MAX_HOLDS, GFP_KERNEL)?;
        let table = Table { entries, last_session: 0, last_id: 0 };
        Arc::pin_init(pin_init!(Self { table <- new_mutex!(table) }), GFP_KERNEL)
    }

    /// Returns the number of a new session.
    pub(crate) fn begin_session(&self) -> u64 {
        let mut table = self.table.lock();
        table.last_session += 1;
        table.last_session
    }

    /// Ends all holds of a session, and waits until none of its tasks is held.
    pub(crate) fn end_session(&self, session: u64) {
        // All tasks go on before the first probe is removed: that waits for them.
        self.table.lock().of(session).for_each(|entry| entry.hold.cancel());
        while self.remove_first(|entry| entry.session == session) {}
    }

    /// Arms a hold and returns its id.
    ///
    /// # Errors
    ///
    /// As [`Probe::register`]; `ENOSPC` if there is no room; `EBUSY` if holds at this function could keep one task too long.
    pub(crate) fn arm(&self, session: u64, function: CString, hold: Arc<Hold>) -> Result<u32> {
        let id = loop {
            if let Some(id) = self.table.lock().reserve(session, &hold)? {
                break id;
            }
            if !self.remove_first(|entry| entry.probe.is_some() && entry.hold.has_ended()) {
                return Err(ENOSPC);
            }
        };
        // Not under the lock: a task that is held may have what this waits for, and must still be found to be resumed.
        let armed = KBox::pin_init(Probe::register(function, hold), GFP_KERNEL)
            .and_then(|probe| self.table.lock().put_in_place(id, probe));
        match armed {
            Ok(()) => Ok(id),
            Err(error) => {
                self.remove_first(|entry| entry.id == id);
                Err(error)
            }
        }
    }

    /// Returns a hold of a session.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the session has none with this id.
    pub(crate) fn find(&self, session: u64, id: u32) -> Result<Arc<Hold>> {
        self.table.lock().of(session).find(|entry| entry.id == id).map(|entry| entry.hold.clone()).ok_or(ENOENT)
    }

    /// Removes a hold; returns whether there was one.
    fn remove_first(&self, is_meant: impl Fn(&Registered) -> bool) -> bool {
        let removed = {
            let mut table = self.table.lock();
            let index = table.entries.iter().position(is_meant);
            index.and_then(|index| table.entries.remove(index).ok())
        };
        // Dropped without the lock, since that waits.
        removed.is_some()
    }
}

impl Table {
    fn of(&self, session: u64) -> impl Iterator<Item = &Registered> {
        self.entries.iter().filter(move |entry| entry.session == session)
    }

    /// Makes an entry for a hold and returns its id; `None` if there is no room.
    fn reserve(&mut self, session: u64, hold: &Arc<Hold>) -> Result<Option<u32>> {
        if self.entries.len() >= uapi::MAX_HOLDS {
            return Ok(None);
        }
        let id = self.last_id.checked_add(1).ok_or(ENOSPC)?;
        self.entries.push(Registered { session, id, hold: hold.clone(), probe: None }, GFP_KERNEL)?;
        self.last_id = id;
        Ok(Some(id))
    }

    /// Gives a reserved entry its probe and arms the hold.
    fn put_in_place(&mut self, id: u32, probe: Pin<KBox<Probe<Arc<Hold>>>>) -> Result {
        let index = self.entries.iter().position(|entry| entry.id == id).ok_or(ENOENT)?;
        let new = self.entries.get(index).ok_or(ENOENT)?;
        // The kernel calls the handlers of one function one after the other, and schedules no other task between them.
        let others = self.entries.iter().filter(|other| {
            other.id != id && other.probe.as_ref().is_some_and(|other| other.address() == probe.address())
        });
        let together =
            others.fold(new.hold.adds_ms(&new.hold), |sum, other| sum.saturating_add(other.hold.adds_ms(&new.hold)));
        if together > uapi::MAX_DEADLINE_MS {
            return Err(EBUSY);
        }
        let entry = self.entries.get_mut(index).ok_or(ENOENT)?;
        entry.probe = Some(probe);
        entry.hold.arm();
        Ok(())
    }
}
