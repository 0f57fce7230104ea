// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MSI-X by event descriptors that the client hands over, one a vector.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use ersatz_device_model::interrupt::InterruptSink;
use vmm_sys_util::eventfd::EventFd;

use super::notifier::Notifier;

/// The event descriptors that are connected now.
#[derive(Debug)]
pub struct ClientInterrupts {
    vectors: RwLock<Vec<Option<EventFd>>>,
    notifier: Notifier,
}

impl ClientInterrupts {
    /// For a device with this many vectors, none connected.
    pub fn new(vectors: u16) -> Self {
        Self { vectors: RwLock::new((0..vectors).map(|_| None).collect()), notifier: Notifier::new() }
    }

    fn vectors(&self) -> RwLockWriteGuard<'_, Vec<Option<EventFd>>> {
        self.vectors.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects `count` vectors from `start` to descriptors, or disconnects them if there are none.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a vector does not exist, the number of descriptors is neither zero nor `count`, or one is not an eventfd
    /// (raising anything else is refused each time).
    pub fn connect(&self, start: u32, count: u32, files: Vec<File>) -> io::Result<()> {
        let events = files.into_iter().map(eventfd).collect::<io::Result<Vec<_>>>()?;
        let mut vectors = self.vectors();
        let slots = range(start, count).and_then(|range| vectors.get_mut(range)).ok_or_else(invalid)?;
        if events.is_empty() {
            slots.fill_with(|| None);
        } else if events.len() == slots.len() {
            slots.iter_mut().zip(events).for_each(|(slot, event)| *slot = Some(event));
        } else {
            return Err(invalid());
        }
        Ok(())
    }

    /// Disconnects all vectors.
    pub fn disconnect_all(&self) {
        self.vectors().fill_with(|| None);
    }

    /// Number of connected vectors.
    pub fn connected(&self) -> usize {
        self.vectors().iter().flatten().count()
    }
}

impl InterruptSink for ClientInterrupts {
    fn signal(&self, vector: u16) {
        let vectors = self.vectors.read().unwrap_or_else(PoisonError::into_inner);
        // A vector the client did not connect is one its guest did not ask for.
        if let Some(event) = vectors.get(usize::from(vector)).and_then(Option::as_ref) {
            if let Err(error) = self.notifier.raise(event) {
                log::warn!("vfio-user: the client's event of vector {vector} cannot be signalled: {error}");
            }
        }
    }

    fn keeps_table(&self) -> bool {
        true
    }
}

fn range(start: u32, count: u32) -> Option<std::ops::Range<usize>> {
    let end = start.checked_add(count)?;
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

/// The descriptor as an eventfd, if it is one.
fn eventfd(file: File) -> io::Result<EventFd> {
    let target = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if target.as_os_str() != "anon_inode:[eventfd]" {
        return Err(invalid());
    }
    // SAFETY: `into_raw_fd` gives up an open descriptor that nothing else owns.
    Ok(unsafe { EventFd::from_raw_fd(file.into_raw_fd()) })
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An eventfd twice: to read here, and as the file that a client would send.
    fn event() -> (EventFd, File) {
        let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let other = event.try_clone().unwrap();
        // SAFETY: `into_raw_fd` gives up an open descriptor that nothing else owns.
        let file = unsafe { File::from_raw_fd(other.into_raw_fd()) };
        (event, file)
    }

    #[test]
    fn a_connected_vector_is_signalled_and_no_other() {
        let interrupts = ClientInterrupts::new(4);
        let (event, file) = event();
        interrupts.connect(2, 1, vec![file]).unwrap();
        interrupts.signal(1);
        interrupts.signal(4);
        assert!(event.read().is_err());
        interrupts.signal(2);
        assert_eq!(event.read().unwrap(), 1);
        interrupts.connect(2, 1, Vec::new()).unwrap();
        interrupts.signal(2);
        assert!(event.read().is_err());
    }

    #[test]
    fn vectors_beyond_the_last_are_refused() {
        let interrupts = ClientInterrupts::new(4);
        for (start, count) in [(4, 1), (0, 5), (u32::MAX, 1), (1, u32::MAX)] {
            assert!(interrupts.connect(start, count, Vec::new()).is_err(), "{start} {count}");
        }
        assert!(interrupts.connect(0, 2, vec![event().1]).is_err());
        assert_eq!(interrupts.connected(), 0);
    }

    #[test]
    fn a_full_event_that_blocks_does_not_block_us_and_goes_on_blocking() {
        let interrupts = ClientInterrupts::new(1);
        let event = EventFd::new(0).unwrap();
        let other = event.try_clone().unwrap();
        // SAFETY: `into_raw_fd` gives up an open descriptor that nothing else owns.
        let file = unsafe { File::from_raw_fd(other.into_raw_fd()) };
        event.write(u64::MAX - 1).unwrap();
        interrupts.connect(0, 1, vec![file]).unwrap();
        interrupts.signal(0);
        assert!(event.read().unwrap() >= u64::MAX - 1);
        interrupts.signal(0);
        assert_eq!(event.read().unwrap(), 1);
        // SAFETY: a system call on a descriptor that is open.
        let flags = unsafe { libc::fcntl(event.as_raw_fd(), libc::F_GETFL) };
        assert_eq!(flags & libc::O_NONBLOCK, 0, "the client's descriptor was changed");
    }

    #[test]
    fn what_is_no_eventfd_is_refused() {
        let interrupts = ClientInterrupts::new(1);
        assert!(interrupts.connect(0, 1, vec![File::open("/dev/null").unwrap()]).is_err());
    }
}
