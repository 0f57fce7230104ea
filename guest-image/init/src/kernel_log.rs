// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds complaints in the kernel log: WARN, BUG, Oops, hung tasks, lockdep and the sanitizers.
//!
//! The host judges a run by what the console shows, and the console shows only what the log level lets through: PID 1 prints
//! what it finds here again once the command has ended. The guest-side tests look after each test, to name the culprit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// What a message of the kernel begins with when something is wrong.
const BEGINNINGS: &[&str] = &[
    "WARNING: ",
    "BUG: ",
    "Oops",
    "kernel BUG at ",
    "general protection fault",
    "Unable to handle kernel",
    "INFO: task ",
    "INFO: possible ",
    "INFO: trying to register non-static key",
    "INFO: lockdep is turned off",
    "INFO: rcu",
    "rcu: INFO: ",
    "watchdog: BUG: ",
    "UBSAN: ",
    "KASAN: ",
    "KCSAN: ",
    "refcount_t: ",
    "list_add corruption",
    "list_del corruption",
    "page dumped because",
    "RIP: ",
];

/// Longest record `/dev/kmsg` hands out, with room to spare.
const RECORD_BYTES: usize = 8192;

/// The kernel log, read from its oldest message on.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Opens the log.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses.
    pub fn open() -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open("/dev/kmsg")?;
        Ok(Self { file })
    }

    /// Returns the complaints since the last call, oldest first, with their time stamps.
    ///
    /// # Errors
    ///
    /// Fails if the log cannot be read.
    pub fn complaints(&mut self) -> io::Result<Vec<String>> {
        self.read(complaint)
    }

    /// Returns all that the kernel itself printed since the last call, oldest first, without time stamps.
    ///
    /// # Errors
    ///
    /// Fails if the log cannot be read.
    pub fn messages(&mut self) -> io::Result<Vec<String>> {
        self.read(|record| message(record).map(|(_, message)| message.to_owned()))
    }

    /// Returns what `choose` makes of the records since the last call.
    fn read(&mut self, choose: impl Fn(&str) -> Option<String>) -> io::Result<Vec<String>> {
        let mut record = vec![0; RECORD_BYTES];
        let mut found = Vec::new();
        loop {
            match self.file.read(&mut record) {
                Ok(0) => return Ok(found),
                Ok(length) => found.extend(choose(&String::from_utf8_lossy(&record[..length]))),
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => return Ok(found),
                    // Overwritten before it could be read; the next read goes on behind the gap.
                    Some(Errno::EPIPE) => found.push("(part of the kernel log was overwritten unread)".to_owned()),
                    Some(Errno::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

/// Returns the complaint in one record (`priority,sequence,microseconds,flags;message`), if anything.
fn complaint(record: &str) -> Option<String> {
    let (microseconds, message) = message(record)?;
    BEGINNINGS
        .iter()
        .any(|beginning| message.starts_with(beginning))
        .then(|| format!("[{:5}.{:06}] {message}", microseconds / 1_000_000, microseconds % 1_000_000))
}

/// Returns the time in microseconds and the first line of a record that is the kernel's own.
fn message(record: &str) -> Option<(u64, &str)> {
    let (header, body) = record.split_once(';')?;
    let mut fields = header.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let microseconds: u64 = fields.nth(1)?.parse().ok()?;
    // The facility is above the three bits of the level; zero is the kernel's own, others are written by programs.
    if priority >> 3 != 0 {
        return None;
    }
    Some((microseconds, body.lines().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_found_with_its_time() {
        let record = "4,512,12345678,-;WARNING: mm/memory.c:1 at do_fault+0x1/0x2\n SUBSYSTEM=mm\n";
        assert_eq!(complaint(record).unwrap(), "[   12.345678] WARNING: mm/memory.c:1 at do_fault+0x1/0x2");
    }

    #[test]
    fn harmless_lines_and_those_of_programs_are_not() {
        assert_eq!(complaint("6,1,0,-;Spectre V2 : WARNING: something optional is on"), None);
        assert_eq!(complaint("12,1,0,-;WARNING: written to /dev/kmsg by a program"), None);
    }

    #[test]
    fn malformed_records_are_passed_over() {
        for record in ["", ";", "x,y,z;BUG: ", "4,1;BUG: ", "4,1,2,-;"] {
            assert_eq!(complaint(record), None, "{record:?}");
        }
    }
}
