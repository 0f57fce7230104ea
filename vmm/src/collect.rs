// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files out of a guest (`--collect`): what the guest sends when its command has ended is put in its places on this machine.
//!
//! The guest is hostile here: names, kinds and lengths are its claims. What it sends can create and replace files, folders and links
//! in the places that the user named, and nothing elsewhere ([`folder`]); it is kept in no memory ([`unpack`]).

mod folder;
mod report;
mod target;
mod unpack;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use ersatz_guest_image::collect::{COLLECT_PORT, END_COMMAND, RECEIVED};

pub use self::report::Report;
pub use self::target::Target;
use crate::guest_port::GuestPort;
use crate::threads::{Role, spawn};

/// Takes what a guest sends, on a thread of its own.
#[derive(Debug)]
pub struct Collector {
    thread: JoinHandle<Report>,
    link: GuestLink,
}

/// What others can ask of a guest that sends files, and see of it. Clones are of one guest.
#[derive(Clone, Debug)]
pub struct GuestLink {
    port: Arc<UnixStream>,
    received: Arc<AtomicU64>,
}

impl Collector {
    /// Starts to take files. Returns the guest's end of the port, too.
    ///
    /// # Errors
    ///
    /// Fails if there is no descriptor or thread left.
    pub fn start(targets: Vec<Target>) -> io::Result<(Self, GuestPort)> {
        let (port, end) = UnixStream::pair()?;
        let link = GuestLink { port: Arc::new(port), received: Arc::default() };
        let source = link.clone();
        let thread = spawn(Role::Collector, move || collect(&targets, &source))?;
        Ok((Self { thread, link }, GuestPort { name: COLLECT_PORT, end }))
    }

    /// The link to the guest.
    pub fn link(&self) -> GuestLink {
        self.link.clone()
    }

    /// Returns what has arrived. The guest's end must be closed.
    pub fn finish(self) -> Report {
        // A thread that panicked has said so.
        self.thread.join().unwrap_or_default()
    }
}

impl GuestLink {
    /// Asks the guest to end its command, and to send the files.
    pub fn end_command(&self) {
        // A guest that is gone is noticed by others.
        let _ = (&*self.port).write_all(&[END_COMMAND]);
    }

    /// Bytes that have arrived until now.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Unpacks what comes, tells the guest when that is all, and takes the rest, so nothing waits for this end.
fn collect(targets: &[Target], link: &GuestLink) -> Report {
    let mut counted = Counted { link };
    let report = unpack::unpack(targets, &mut io::BufReader::with_capacity(unpack::PIECE, &mut counted));
    let _ = (&*link.port).write_all(&[RECEIVED]);
    let _ = io::copy(&mut counted, &mut io::sink());
    report
}

struct Counted<'a> {
    link: &'a GuestLink,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&*self.link.port).read(buffer)?;
        self.link.received.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use ersatz_guest_image::collect::Packer;

    use super::*;

    #[test]
    fn a_guest_is_told_when_all_has_arrived_and_when_it_is_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::write(&source, "content").unwrap();
        let place = folder.path().join("place");
        let target = Target::parse(&format!("/x:{}", place.display())).unwrap();
        let (collector, port) = Collector::start(vec![target]).unwrap();
        let mut guest = port.end;
        collector.link().end_command();
        let mut byte = [0];
        guest.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [END_COMMAND]);
        let mut packer = Packer::new(&guest);
        packer.add(0, &source).unwrap();
        packer.finish().unwrap();
        guest.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [RECEIVED]);
        drop(guest);
        assert!(collector.link().received() > 0);
        assert_eq!(collector.finish().lines(), [""; 0]);
        assert_eq!(std::fs::read(place).unwrap(), b"content");
    }

    #[test]
    fn a_guest_that_sends_nonsense_is_not_held_up() {
        let (collector, mut port) = Collector::start(vec![Target::parse("/x:y").unwrap()]).unwrap();
        port.end.write_all(&vec![b'x'; 1 << 20]).unwrap();
        drop(port);
        let report = collector.finish();
        assert!(report.has_failed() && report.lines().len() == 1, "{report:?}");
    }
}
