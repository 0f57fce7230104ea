// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Raising a client's event without ever waiting for the client.
//!
//! A write to an eventfd whose counter is full waits, unless the open file is non-blocking. The client shares that file: it
//! can fill the counter and change the flag at any moment, also between a look at them and the write. The kernel, when it
//! raises an event itself, never waits, and it does so whenever an asynchronous read that asks for it is done. So what is
//! done here to raise an event is to read nothing, asynchronously, from `/dev/null`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::aio::{IOCB_CMD_PREAD, IOCB_FLAG_RESFD, IoContext, IoControlBlock, IoEvent};
use vmm_sys_util::eventfd::EventFd;

/// Reads whose end nobody has looked at yet: at most one for each thread that raises events at this moment.
const READS: usize = 64;

/// Raises events, from any thread.
#[derive(Debug)]
pub struct Notifier {
    /// `None` on a kernel that has no asynchronous I/O, or none to spare.
    reads: Option<Reads>,
}

#[derive(Debug)]
struct Reads {
    context: IoContext,
    null: File,
}

impl Notifier {
    /// One that never waits, if the kernel has asynchronous I/O for us. Otherwise one that can be made to wait by a client
    /// that fills its counter at the right moment, and says so in the log.
    pub fn new() -> Self {
        let reads = Reads::new();
        if let Err(error) = &reads {
            log::warn!("vfio-user: no asynchronous I/O ({error}): a hostile client can make the device wait for it");
        }
        Self { reads: reads.ok() }
    }

    /// Raises an event by one; one whose counter is full stays as it is, or shows an overflow.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses.
    pub fn raise(&self, event: &EventFd) -> io::Result<()> {
        match &self.reads {
            Some(reads) => reads.raise(event.as_raw_fd()),
            None if has_room(event)? => event.write(1),
            None => Ok(()),
        }
    }
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Reads {
    fn new() -> io::Result<Self> {
        Ok(Self { context: IoContext::new(READS as u32)?, null: File::open("/dev/null")? })
    }

    fn raise(&self, event: RawFd) -> io::Result<()> {
        let descriptor = |fd: RawFd| u32::try_from(fd).map_err(|_| io::ErrorKind::InvalidInput);
        let mut read = IoControlBlock {
            aio_lio_opcode: IOCB_CMD_PREAD as u16,
            aio_fildes: descriptor(self.null.as_raw_fd())?,
            aio_flags: IOCB_FLAG_RESFD,
            aio_resfd: descriptor(event)?,
            ..IoControlBlock::default()
        };
        // The null device has done the read, and the kernel raised the event, when this returns.
        let mut submitted = self.context.submit(&[&mut read]);
        if submitted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.forget()?;
            submitted = self.context.submit(&[&mut read]);
        }
        submitted?;
        self.forget()
    }

    /// Takes the results of reads that are done, which make room for others and say nothing.
    fn forget(&self) -> io::Result<()> {
        let mut at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        self.context.get_events(0, &mut [IoEvent::default(); READS], Some(&mut at_once)).map(drop)
    }
}

/// Whether an event's counter could be raised without waiting when this was called.
fn has_room(event: &EventFd) -> io::Result<bool> {
    // SAFETY: the descriptor is the event's, which is borrowed for as long as the result lives.
    let descriptor = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(polled[0].revents().contains(PollFlags::OUT))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The largest value a counter can be written to.
    const FULL: u64 = u64::MAX - 1;

    /// Both ways to raise an event.
    fn notifiers() -> [Notifier; 2] {
        [Notifier { reads: Some(Reads::new().unwrap()) }, Notifier { reads: None }]
    }

    #[test]
    fn each_raise_counts() {
        for notifier in notifiers() {
            let event = EventFd::new(0).unwrap();
            for _ in 0..3 * READS {
                notifier.raise(&event).unwrap();
            }
            assert_eq!(event.read().unwrap(), 3 * READS as u64);
        }
    }

    #[test]
    fn a_full_counter_of_a_blocking_event_does_not_block() {
        for notifier in notifiers() {
            let event = EventFd::new(0).unwrap();
            event.write(FULL).unwrap();
            notifier.raise(&event).unwrap();
            assert!(event.read().unwrap() >= FULL);
        }
    }

    #[test]
    fn threads_share_a_notifier() {
        let (notifier, event) = (Notifier::new(), EventFd::new(0).unwrap());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| notifier.raise(&event).unwrap()));
            }
        });
        assert_eq!(event.read().unwrap(), 4000);
    }
}
