// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a bad client gets: an error or the end of its connection, never the end of the server.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vm_memory::{FileOffset, MmapRegion};

use crate::rig::{BUS, CONFIG, Driver, Memory, Served, entry, system, vram, wait_for};

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const GET_INFO: u16 = 4;
const GET_REGION_INFO: u16 = 5;
const GET_IRQ_INFO: u16 = 7;
const SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
const RESET: u16 = 13;

/// A client by hand.
struct Raw(UnixStream);

/// A message whose header is right.
fn message(command: u16, body: &[u8]) -> Vec<u8> {
    message_of_size(command, body, u32::try_from(16 + body.len()).unwrap())
}

fn message_of_size(command: u16, body: &[u8], size: u32) -> Vec<u8> {
    let mut bytes = vec![0x34, 0x12];
    bytes.extend(command.to_ne_bytes());
    bytes.extend(size.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn map(flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut body = words(&[32, flags]);
    [offset, address, size].iter().for_each(|number| body.extend(number.to_ne_bytes()));
    message(DMA_MAP, &body)
}

fn access(command: u16, offset: u64, region: u32, count: u32, data: &[u8]) -> Vec<u8> {
    let mut body = offset.to_ne_bytes().to_vec();
    body.extend(words(&[region, count]));
    body.extend(data);
    message(command, &body)
}

impl Raw {
    /// Connects and agrees on a version.
    fn new(served: &Served) -> Self {
        wait_for("a client is served", || {
            let mut raw = Self(UnixStream::connect(served.path()).ok()?);
            raw.ask(&message(VERSION, b"\0\0\0\0{}\0"))?.ok()?;
            Some(raw)
        })
    }

    /// Sends a message; its reply's body, the reply's errno, or `None` if the connection ended.
    fn ask(&mut self, message: &[u8]) -> Option<Result<Vec<u8>, u32>> {
        self.0.write_all(message).ok()?;
        self.reply(message)
    }

    fn ask_with(&mut self, message: &[u8], file: impl AsFd) -> Option<Result<Vec<u8>, u32>> {
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        let sent = sendmsg(&self.0, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL).ok()?;
        assert_eq!(sent, message.len());
        self.reply(message)
    }

    fn reply(&mut self, message: &[u8]) -> Option<Result<Vec<u8>, u32>> {
        let mut header = [0; 16];
        self.0.read_exact(&mut header).ok()?;
        assert_eq!(header[..4], message[..4], "the reply is to another message");
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let mut body = vec![0; word(4) as usize - 16];
        self.0.read_exact(&mut body).unwrap();
        Some(match word(8) {
            1 => Ok(body),
            0x21 => Err(word(12)),
            other => panic!("flags {other:#x}"),
        })
    }
}

/// Whether the server is there, and another message of the same client works.
fn still_works(raw: &mut Raw) {
    let reply = raw.ask(&access(REGION_READ, 0, CONFIG, 4, &[])).unwrap().unwrap();
    assert_eq!(reply[16..18], ersatz_abi::pci::VENDOR_ID.to_le_bytes());
}

const EINVAL: u32 = libc::EINVAL as u32;

#[test]
fn malformed_messages_are_refused_and_the_next_one_works() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let mut big = access(REGION_WRITE, 0, 2, 4, &[0; 4]);
    big[28..32].copy_from_slice(&u32::MAX.to_ne_bytes());
    for (what, message, errno) in [
        ("an unknown command", message(4711, &[1; 100]), libc::ENOSYS as u32),
        ("a command of servers", message(11, &[0; 16]), libc::ENOSYS as u32),
        ("a second version", message(VERSION, b"\0\0\0\0{}\0"), EINVAL),
        ("a version string without end", message(VERSION, b"\0\0\0\0{}"), EINVAL),
        ("a truncated map", message(DMA_MAP, &[0; 31]), EINVAL),
        ("an overlong map", message(DMA_MAP, &[0; 33]), EINVAL),
        ("a truncated unmap", message(DMA_UNMAP, &[0; 3]), EINVAL),
        ("info with no body", message(GET_INFO, &[]), EINVAL),
        ("a region that does not exist", message(GET_REGION_INFO, &words(&[32, 0, 9, 0, 0, 0, 0, 0])), EINVAL),
        ("an interrupt that does not exist", message(GET_IRQ_INFO, &words(&[16, 0, 5, 0])), EINVAL),
        ("vectors that do not exist", message(SET_IRQS, &words(&[20, 0x24, 2, 31, 2])), EINVAL),
        ("vectors that wrap", message(SET_IRQS, &words(&[20, 0x24, 2, 1, u32::MAX])), EINVAL),
        ("interrupts by mask", message(SET_IRQS, &words(&[20, 0x09, 2, 0, 1])), EINVAL),
        ("a read beyond the end", access(REGION_READ, 4095, CONFIG, 2, &[]), EINVAL),
        ("a read that wraps", access(REGION_READ, u64::MAX, CONFIG, 2, &[]), EINVAL),
        ("a read of 4 GiB", access(REGION_READ, 0, 2, u32::MAX, &[]), EINVAL),
        ("a read of no region", access(REGION_READ, 0, 1, 4, &[]), EINVAL),
        ("a read of an unknown region", access(REGION_READ, 0, 77, 4, &[]), EINVAL),
        ("a write that claims more than it has", big, EINVAL),
        ("a write beyond the end", access(REGION_WRITE, 1 << 40, 2, 4, &[0; 4]), EINVAL),
        ("a reset with a body", message(RESET, &[0; 4]), EINVAL),
        ("a map without rights", map(0, 0, BUS, 4096), EINVAL),
        ("a map with unknown flags", map(0xff, 0, BUS, 4096), EINVAL),
    ] {
        assert_eq!(raw.ask(&message), Some(Err(errno)), "{what}");
        still_works(&mut raw);
    }
}

#[test]
fn a_message_that_wants_no_reply_gets_none() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let mut unknown = message(4711, &[]);
    unknown[8] = 0x10;
    raw.0.write_all(&unknown).unwrap();
    let mut write = access(REGION_WRITE, 4, CONFIG, 2, &[6, 0]);
    write[8] = 0x10;
    raw.0.write_all(&write).unwrap();
    // The next reply is to the next message, which `reply` checks.
    let command = raw.ask(&access(REGION_READ, 4, CONFIG, 2, &[])).unwrap().unwrap();
    assert_eq!(command[16..], [6, 0]);
}

#[test]
fn a_size_that_loses_the_place_ends_the_connection() {
    let served = Served::new(false);
    for size in [0, 15, 1 << 20, u32::MAX] {
        let mut raw = Raw::new(&served);
        assert_eq!(raw.ask(&message_of_size(GET_INFO, &[0; 16], size)), None, "{size}");
    }
    still_works(&mut Raw::new(&served));
}

#[test]
fn nothing_works_before_the_version() {
    let served = Served::new(false);
    let mut raw = Raw(UnixStream::connect(served.path()).unwrap());
    assert_eq!(raw.ask(&access(REGION_READ, 0, CONFIG, 4, &[])), Some(Err(EINVAL)));
    assert_eq!(raw.ask(&message(VERSION, b"\x01\0\0\0")), Some(Err(libc::ENOTSUP as u32)));
    assert_eq!(raw.ask(&message(RESET, &[])), None, "another version ends the connection");
}

#[test]
fn a_client_may_vanish_after_any_byte() {
    let served = Served::new(false);
    let whole = map(3, 0, BUS, 4096);
    for cut in 0..=whole.len() {
        let mut raw = Raw::new(&served);
        raw.0.write_all(&whole[..cut]).unwrap();
    }
    still_works(&mut Raw::new(&served));
}

#[test]
fn a_client_may_vanish_while_the_engine_works_for_it() {
    let served = Served::new(false);
    for _ in 0..5 {
        let mut driver = Driver::new(served.connect());
        let work = vec![entry(system(0), vram(0), 2 << 20); 4096];
        driver.copy(&work, 1);
    }
    still_works(&mut Raw::new(&served));
}

#[test]
fn a_second_client_is_turned_away_and_the_first_one_stays() {
    let served = Served::new(false);
    let mut first = Raw::new(&served);
    let mut second = Raw(UnixStream::connect(served.path()).unwrap());
    assert_eq!(second.ask(&message(VERSION, b"\0\0\0\0{}\0")), None);
    still_works(&mut first);
}

#[test]
fn maps_may_not_overlap_and_unknown_ones_may_be_unmapped() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let memory = Memory::new(0x4000);
    assert!(raw.ask_with(&map(3, 0, BUS, 0x2000), &memory.file).unwrap().is_ok());
    assert_eq!(raw.ask_with(&map(3, 0, BUS + 0x1000, 0x1000), &memory.file), Some(Err(libc::EEXIST as u32)));
    assert_eq!(raw.ask_with(&map(3, 0x3000, BUS + 0x8000, 0x2000), &memory.file), Some(Err(EINVAL)), "beyond the file");
    assert_eq!(raw.ask_with(&map(3, 1, BUS + 0x8000, 0x1000), &memory.file), Some(Err(EINVAL)), "unaligned");
    let null = File::open("/dev/null").unwrap();
    assert_eq!(raw.ask_with(&map(3, 0, BUS + 0x8000, 0x1000), &null), Some(Err(EINVAL)), "no memory");
    let unmap = |address: u64, size: u64, flags: u32| {
        let mut body = words(&[24, flags]);
        [address, size].iter().for_each(|number| body.extend(number.to_ne_bytes()));
        message(DMA_UNMAP, &body)
    };
    assert!(raw.ask(&unmap(0x5000_0000, 0x1000, 0)).unwrap().is_ok(), "unknown");
    assert_eq!(raw.ask(&unmap(BUS, 0x1000, 0)), Some(Err(EINVAL)), "half a map");
    assert_eq!(raw.ask(&unmap(BUS, 0x2000, 2)), Some(Err(libc::ENOTSUP as u32)), "dirty pages");
    assert!(raw.ask(&unmap(0, 0, 4)).unwrap().is_ok(), "all");
    assert!(raw.ask_with(&map(3, 0, BUS + 0x1000, 0x1000), &memory.file).unwrap().is_ok(), "free again");
}

#[test]
fn maps_without_a_file_are_fine_where_there_is_no_ram() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    assert!(raw.ask(&map(1, 0, 0xc_0000, 0x2000)).unwrap().is_ok(), "a ROM");
    assert!(raw.ask(&map(3, 0, 0xfe00_0000, 0x10_0000)).unwrap().is_ok(), "a BAR");
}

#[test]
fn ram_that_is_not_shared_is_refused_for_good() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    assert_eq!(raw.ask(&map(3, 0, 0, 0xa_0000)), Some(Err(EINVAL)), "RAM without a file");
    assert_eq!(raw.ask(&message(GET_INFO, &[0; 16])), Some(Err(EINVAL)), "and everything after it");

    drop(raw);
    let mut raw = Raw::new(&served);
    let memory = Memory::new(0x4000);
    let file = FileOffset::new(memory.file.try_clone().unwrap(), 0);
    let flags = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_NORESERVE);
    let private = MmapRegion::<()>::build(Some(file), 0x4000, flags.0, flags.1).unwrap();
    assert_eq!(raw.ask_with(&map(3, 0, 0, 0x4000), &memory.file), Some(Err(EINVAL)), "mapped privately");
    drop(private);
    drop(raw);
    still_works(&mut Raw::new(&served));
}

#[test]
fn what_is_no_event_cannot_be_signalled() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let null = File::options().write(true).open("/dev/null").unwrap();
    assert_eq!(raw.ask_with(&message(SET_IRQS, &words(&[20, 0x24, 2, 0, 1])), &null), Some(Err(EINVAL)));
    still_works(&mut raw);
}
