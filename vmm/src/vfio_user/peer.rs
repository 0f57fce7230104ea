// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the memory a client offers for DMA is the memory its guest uses.
//!
//! QEMU sends a file for RAM that it has mapped privately (`share=off`) too. The device would then read and write the file, the
//! guest its private copies of the pages, and nothing would fail: it would just be wrong. The protocol cannot tell,
//! but the client's own list of mappings can.

use std::fs::{self, File};
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pid: i32,
    user: u32,
}

impl Peer {
    /// Asks the kernel who it is. `None` if that is beyond what can be seen from here (another PID namespace).
    pub fn of(stream: &UnixStream) -> Option<Self> {
        let credentials = getsockopt(stream, PeerCredentials).ok()?;
        // Zero stands for a process that has no number here.
        (credentials.pid() != 0).then(|| Self { pid: credentials.pid(), user: credentials.uid() })
    }

    /// The process id.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it runs as the same user as this process.
    pub fn is_of_this_user(self) -> bool {
        self.user == rustix::process::geteuid().as_raw()
    }

    /// Whether the process has a file mapped, and every mapping of it is private. `false` also if that cannot be seen.
    pub fn maps_only_privately(self, file: &File) -> bool {
        let (Ok(metadata), Ok(maps)) = (file.metadata(), fs::read_to_string(format!("/proc/{}/maps", self.pid))) else {
            log::debug!("vfio-user: the mappings of process {} cannot be seen", self.pid);
            return false;
        };
        private_only(&maps, metadata.st_dev(), metadata.st_ino())
    }
}

/// Looks for the mappings of one inode in a `/proc/PID/maps`.
fn private_only(maps: &str, device: u64, inode: u64) -> bool {
    let device = format!("{:02x}:{:02x}", rustix::fs::major(device), rustix::fs::minor(device));
    let inode = inode.to_string();
    let mut shared = maps.lines().filter_map(|line| {
        // address perms offset dev inode path; the last letter of perms is p or s.
        let mut columns = line.split_whitespace().skip(1);
        let permissions = columns.next()?;
        let is_it = columns.nth(1)? == device && columns.next()? == inode;
        is_it.then(|| permissions.ends_with('s'))
    });
    shared.next().is_some_and(|first| !first && !shared.any(|other| other))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f0000000000-7f0040000000 rw-p 00000000 00:01 4711                       /memfd:ram (deleted)
7f1000000000-7f1040000000 rw-s 00000000 00:01 4712                       /memfd:ram (deleted)
7f2000000000-7f2040000000 rw-p 00000000 00:01 4713                       /memfd:ram (deleted)
7f3000000000-7f3040000000 r--s 00000000 00:01 4713                       /memfd:ram (deleted)
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn a_private_mapping_is_told_from_a_shared_one() {
        assert!(private_only(MAPS, 1, 4711));
        assert!(!private_only(MAPS, 1, 4712));
        assert!(!private_only(MAPS, 1, 4713), "one of two is shared");
        assert!(!private_only(MAPS, 1, 4714), "not mapped at all");
        assert!(!private_only(MAPS, 2, 4711), "another device");
        assert!(!private_only("garbage\n\n- -", 1, 1));
    }

    #[test]
    fn a_connection_knows_its_peer() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&stream).unwrap();
        assert_eq!(u32::try_from(peer.pid()).unwrap(), std::process::id());
        assert!(!peer.maps_only_privately(&File::open("/dev/null").unwrap()));
    }
}
