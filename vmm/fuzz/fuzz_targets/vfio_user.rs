// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any conversation a vfio-user client may hold, descriptors included: the server neither crashes nor hangs, and the next client
//! finds the device as new.
#![no_main]

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{LazyLock, Mutex};
use std::thread;

use arbitrary::Arbitrary;
use ersatz::gpu::{self, GpuAddress};
use ersatz::spec::GpuSpec;
use ersatz::vfio_user::backend::FunctionBackend;
use ersatz::vfio_user::session;
use libfuzzer_sys::fuzz_target;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const VRAM: u64 = 2 << 20;
const MEMORY: u64 = 1 << 20;

/// What comes along with a message.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Attached {
    Nothing,
    Memory,
    Event,
    Null,
    Two,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Raw(Vec<u8>),
    Message {
        command: u8,
        flags: u8,
        body: Vec<u8>,
        attached: Attached,
    },
    Version,
    Read {
        region: u8,
        offset: u32,
        count: u16,
    },
    Write {
        region: u8,
        offset: u32,
        data: Vec<u8>,
    },
    /// In pages.
    Map {
        flags: u8,
        offset: u8,
        address: u8,
        size: u8,
        attached: Attached,
    },
    Unmap {
        flags: u8,
        address: u8,
        size: u8,
    },
    Irqs {
        flags: u8,
        index: u8,
        start: u8,
        count: u8,
        attached: Attached,
    },
    Reset,
    /// Not said but done: the client gives its memory another size, in pages.
    Truncate(u8),
}

/// Descriptors to send, made once.
struct Files {
    memory: OwnedFd,
    event: OwnedFd,
    null: OwnedFd,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let memory = memfd_create("fuzz", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, MEMORY).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    Files { memory, event: eventfd(0, EventfdFlags::CLOEXEC).unwrap(), null: null.into() }
});

static BACKEND: LazyLock<Mutex<FunctionBackend>> =
    LazyLock::new(|| Mutex::new(gpu::build_backend(&GpuSpec::new(VRAM), &GpuAddress::default(), false).unwrap()));

fn message(command: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0, command, 0];
    bytes.extend((16 + body.len() as u32).to_ne_bytes());
    bytes.extend(u32::from(flags).to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

fn numbers(words: &[u32], long: &[u64], more: &[u32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(long.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.extend(more.iter().flat_map(|word| word.to_ne_bytes()));
    bytes
}

impl Step {
    fn encode(&self) -> (Vec<u8>, Attached) {
        let page = |number: &u8| u64::from(*number) << 12;
        match self {
            Self::Raw(bytes) => (bytes.clone(), Attached::Nothing),
            Self::Message { command, flags, body, attached } => (message(*command, *flags, body), *attached),
            Self::Version => (message(1, 0, b"\0\0\0\0{}\0"), Attached::Nothing),
            Self::Read { region, offset, count } => {
                let body = numbers(&[], &[u64::from(*offset)], &[u32::from(*region), u32::from(*count)]);
                (message(9, 0, &body), Attached::Nothing)
            }
            Self::Write { region, offset, data } => {
                let mut body = numbers(&[], &[u64::from(*offset)], &[u32::from(*region), data.len() as u32]);
                body.extend(data);
                (message(10, 0, &body), Attached::Nothing)
            }
            Self::Map { flags, offset, address, size, attached } => {
                let body = numbers(&[32, u32::from(*flags)], &[page(offset), page(address), page(size)], &[]);
                (message(2, 0, &body), *attached)
            }
            Self::Unmap { flags, address, size } => (
                message(3, 0, &numbers(&[24, u32::from(*flags)], &[page(address), page(size)], &[])),
                Attached::Nothing,
            ),
            Self::Irqs { flags, index, start, count, attached } => {
                let words = [20, *flags, *index, *start, *count].map(u32::from);
                (message(8, 0, &numbers(&words, &[], &[])), *attached)
            }
            Self::Reset => (message(13, 0, &[]), Attached::Nothing),
            Self::Truncate(_) => (vec![], Attached::Nothing),
        }
    }
}

/// Sends as a client would; false once the server has hung up.
fn send(client: &UnixStream, bytes: &[u8], attached: Attached) -> bool {
    let files: Vec<BorrowedFd<'_>> = match attached {
        Attached::Nothing => vec![],
        Attached::Memory => vec![FILES.memory.as_fd()],
        Attached::Event => vec![FILES.event.as_fd()],
        Attached::Null => vec![FILES.null.as_fd()],
        Attached::Two => vec![FILES.event.as_fd(), FILES.memory.as_fd()],
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    }
    match sendmsg(client, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
        Ok(sent) => (&mut &*client).write_all(&bytes[sent..]).is_ok(),
        Err(_) => false,
    }
}

/// Holds a conversation; what the server said.
fn talk(backend: &mut FunctionBackend, speak: impl FnOnce(&UnixStream)) -> Vec<u8> {
    let (client, server) = UnixStream::pair().unwrap();
    let description = backend.meet_client(None);
    let heard = thread::scope(|scope| {
        let server = scope.spawn(|| {
            let _ = session::serve(server, &description, backend);
        });
        let listener = scope.spawn(|| {
            let mut heard = Vec::new();
            let _ = (&client).read_to_end(&mut heard);
            heard
        });
        speak(&client);
        let _ = client.shutdown(Shutdown::Write);
        let heard = listener.join().unwrap();
        // The scope would not wait for the very end of the thread, which a check for leaks in between takes for one.
        server.join().unwrap();
        heard
    });
    backend.forget_client();
    heard
}

fuzz_target!(|steps: Vec<Step>| {
    let mut backend = BACKEND.lock().unwrap();
    ftruncate(&FILES.memory, MEMORY).unwrap();
    talk(&mut backend, |client| {
        let _ = send(client, &Step::Version.encode().0, Attached::Nothing)
            && steps.iter().take(64).all(|step| {
                if let Step::Truncate(pages) = step {
                    ftruncate(&FILES.memory, MEMORY.min(u64::from(*pages) << 12)).unwrap();
                }
                let (bytes, attached) = step.encode();
                bytes.is_empty() || send(client, &bytes, attached)
            });
    });
    // The next client: identity, the command register as after power-on.
    let heard = talk(&mut backend, |client| {
        for step in [Step::Version, Step::Read { region: 7, offset: 0, count: 8 }] {
            assert!(send(client, &step.encode().0, Attached::Nothing));
        }
    });
    let config = heard.last_chunk::<8>().expect("an answer");
    assert_eq!(config[..6], [0x34, 0x12, 0x2a, 0xe5, 0, 0]);
});
