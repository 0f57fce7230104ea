// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One client, from its first message to its last.
//!
//! The crate `vfio_user` has a loop for this too, `Server::run`, and its vocabulary ([`ServerBackend`], flags,
//! commands) is what this one speaks. But that loop cannot be guarded from outside: it accepts the connection
//! itself and reads each message as it decodes it, so that a message whose length contradicts its content loses the
//! place in the stream, an unterminated version string panics, a count of 4 GiB is allocated, a client that stops in mid-message
//! holds the thread for good, and backend errors are answered with errno 0. A relay in front of it would cost
//! two more context switches for each register access. So the loop alone is replaced: a message is read whole, bounded by
//! [`MAX_MESSAGE_BYTES`](super::wire::MAX_MESSAGE_BYTES), and checked before anything acts on it.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ersatz_guest_image::error_chain::chain;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use thiserror::Error;
use vfio_bindings::bindings::vfio::{VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend};
use vmm_sys_util::eventfd::EventFd;

use super::description::{Description, Region};
use super::wire::{HEADER_BYTES, Header, MAX_DATA_BYTES, MAX_MESSAGE_FDS, Request, WireError};

/// How long a client may leave a message unfinished, or a reply unread.
const PATIENCE: Duration = Duration::from_secs(10);

/// The newest minor version of the protocol (major version 0) that this server speaks.
const MINOR_VERSION: u16 = 1;

/// Why a session ended other than by the client leaving between two messages.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The connection broke.
    #[error("the connection to the client broke while {0}")]
    Broken(&'static str, #[source] io::Error),
    /// The client left in the middle of a message.
    #[error("the client left in the middle of a message")]
    Truncated,
    /// The client sent the beginning of a message and then nothing, or does not read replies.
    #[error("the client stood still for {seconds} s while {0}", seconds = PATIENCE.as_secs())]
    Stalled(&'static str),
    /// The place in the stream is lost.
    #[error("the client cannot be understood any more")]
    Lost(#[source] WireError),
    /// The version that the client speaks is another one.
    #[error("the client speaks vfio-user {0}.{1}; this server speaks 0.{MINOR_VERSION}")]
    Version(u16, u16),
}

impl SessionError {
    fn io(doing: &'static str, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Stalled(doing),
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Broken(doing, error),
        }
    }
}

/// What serves the client's requests, and may have something to do without one.
pub trait Backend: ServerBackend {
    /// The event that is signalled when there is something to do without a request; the same one for the whole session.
    fn event(&self) -> Option<Arc<EventFd>>;

    /// Does what there is to do without a request.
    fn carry_out_pending(&mut self);
}

/// Serves one client until it leaves.
///
/// # Errors
///
/// Fails if the session ended in another way; the connection is of no use then. A request that is refused is no such error.
pub fn serve(stream: UnixStream, description: &Description, backend: &mut dyn Backend) -> Result<(), SessionError> {
    let setup = |error| SessionError::io("setting it up", error);
    stream.set_read_timeout(Some(PATIENCE)).map_err(setup)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(setup)?;
    let event = backend.event();
    let mut session = Session { stream, description, event, backend, agreed: false, refused: false };
    let mut body = Vec::new();
    loop {
        session.wait()?;
        let Some((header, files)) = session.receive(&mut body)? else { return Ok(()) };
        session.handle(&header, &body, files)?;
        body.clear();
        body.shrink_to(BODY_KEPT);
    }
}

/// The room for a message's body that is kept from one message to the next.
const BODY_KEPT: usize = 4096;

struct Session<'a> {
    stream: UnixStream,
    description: &'a Description,
    /// Signalled when there is something to do without a request.
    event: Option<Arc<EventFd>>,
    backend: &'a mut dyn Backend,
    /// Whether the version was agreed on; before that nothing else makes sense.
    agreed: bool,
    /// Whether the backend cannot work with this client. Everything it asks for is refused from then on, which makes a QEMU
    /// that sets up its device give up with a message; to close the connection on it makes QEMU 11.1 abort.
    refused: bool,
}

/// A header as it came, and the descriptors that came with it.
type RawHeader = ([u8; HEADER_BYTES], Vec<File>);

/// What a request is answered with.
struct Reply {
    body: Vec<u8>,
    file: Option<Arc<File>>,
}

impl From<Vec<u8>> for Reply {
    fn from(body: Vec<u8>) -> Self {
        Self { body, file: None }
    }
}

/// Why a request is refused.
enum Refusal {
    /// The client is told this `errno` and may go on.
    Errno(i32),
    /// There is no point in going on with this client.
    Final(io::Error),
}

impl From<i32> for Refusal {
    fn from(errno: i32) -> Self {
        Self::Errno(errno)
    }
}

/// A backend's errors have an `errno`; one that has none is final.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Final(error), Self::Errno)
    }
}

impl Session<'_> {
    /// Waits for the beginning of a message, or the end of the connection; meanwhile does what there is to do without one.
    fn wait(&mut self) -> Result<(), SessionError> {
        // Reading a message waits for it, too, in one system call less.
        let Some(event) = self.event.clone() else { return Ok(()) };
        loop {
            // SAFETY: the descriptor is open for as long as `event` lives, which is to the end of this function.
            let event_fd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
            let mut events = [event_fd, self.stream.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match poll(&mut events, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(SessionError::io("waiting for a message", error.into())),
            }
            let [has_effects, has_message] = events.map(|event| !event.revents().is_empty());
            // Before the message: what was signalled before the client sent it is carried out before it is answered.
            if has_effects {
                self.backend.carry_out_pending();
            }
            if has_message {
                return Ok(());
            }
        }
    }

    /// Waits for a message; its header and descriptors are returned, its body goes into `body`. `None` once the client left.
    fn receive(&mut self, body: &mut Vec<u8>) -> Result<Option<(Header, Vec<File>)>, SessionError> {
        let Some((bytes, files)) = self.receive_header()? else { return Ok(None) };
        let header = match Header::decode(&bytes) {
            Ok(header) => header,
            Err(error) => return Err(SessionError::Lost(error)),
        };
        body.resize(header.body_bytes(), 0);
        // Descriptors come with the first byte; the kernel closes any that come with the body.
        self.stream.read_exact(body).map_err(|error| SessionError::io("reading a message", error))?;
        Ok(Some((header, files)))
    }

    fn receive_header(&mut self) -> Result<Option<RawHeader>, SessionError> {
        let mut bytes = [0; HEADER_BYTES];
        let mut files = Vec::new();
        let mut filled = 0;
        while filled < HEADER_BYTES {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FDS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes[filled..])];
            let count = match recvmsg(&self.stream, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => message.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                // Between messages a client may take all the time it wants.
                Err(rustix::io::Errno::AGAIN) if filled == 0 => continue,
                Err(error) => return Err(SessionError::io("waiting for a message", error.into())),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    files.extend(descriptors.map(File::from));
                }
            }
            match count {
                0 if filled == 0 => return Ok(None),
                0 => return Err(SessionError::Truncated),
                count => filled += count,
            }
        }
        Ok(Some((bytes, files)))
    }

    /// Decodes, carries out and answers one message.
    fn handle(&mut self, header: &Header, body: &[u8], files: Vec<File>) -> Result<(), SessionError> {
        let result = match Request::decode(header, body) {
            _ if self.refused => Err(libc::EINVAL.into()),
            Ok(Request::Version { major, minor }) if major != 0 => {
                self.send(header, Err(libc::ENOTSUP.into()))?;
                return Err(SessionError::Version(major, minor));
            }
            Ok(request) if self.agreed != matches!(request, Request::Version { .. }) => self.perform(request, files),
            Ok(request) => {
                log::warn!("vfio-user: {request:?} out of turn: VERSION comes first, and once");
                Err(libc::EINVAL.into())
            }
            Err(error) => {
                log::warn!("vfio-user: {}", chain(&error));
                Err(if matches!(error, WireError::UnknownCommand(_)) { libc::ENOSYS } else { libc::EINVAL }.into())
            }
        };
        self.send(header, result)
    }

    fn send(&mut self, header: &Header, result: Result<Reply, Refusal>) -> Result<(), SessionError> {
        let (bytes, file, last) = match result {
            Ok(reply) => (header.reply(&[&reply.body]), reply.file, None),
            Err(Refusal::Errno(errno)) => (header.error_reply(errno), None, None),
            Err(Refusal::Final(error)) => (header.error_reply(libc::EINVAL), None, Some(error)),
        };
        if header.wants_reply() {
            self.transmit(&bytes, file)?;
        }
        if let Some(error) = last {
            log::error!("vfio-user: the client cannot be served: {}", chain(&error));
            self.refused = true;
        }
        Ok(())
    }

    fn transmit(&mut self, bytes: &[u8], file: Option<Arc<File>>) -> Result<(), SessionError> {
        let broken = |error| SessionError::io("sending a reply", error);
        let mut sent = 0;
        if let Some(file) = file {
            let file = [file.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&file));
            sent = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
                .map_err(|error| broken(error.into()))?;
        }
        self.stream.write_all(bytes.get(sent..).unwrap_or_default()).map_err(broken)
    }

    fn perform(&mut self, request: Request<'_>, mut files: Vec<File>) -> Result<Reply, Refusal> {
        match request {
            Request::Version { minor, .. } => {
                self.agreed = true;
                Ok(version_reply(minor).into())
            }
            Request::DmaMap { flags, offset, address, size } => {
                if files.len() > 1 {
                    return Err(libc::EINVAL.into());
                }
                let flags = DmaMapFlags::from_bits_retain(flags);
                self.backend.dma_map(flags, offset, address, size, files.pop())?;
                Ok(Vec::new().into())
            }
            Request::DmaUnmap { flags, address, size, body } => {
                self.backend.dma_unmap(DmaUnmapFlags::from_bits_retain(flags), address, size)?;
                Ok(body.to_vec().into())
            }
            Request::DeviceInfo => {
                let count = |items: usize| u32::try_from(items).unwrap_or(u32::MAX);
                let (regions, interrupts) = (&self.description.regions, &self.description.interrupts);
                let flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
                Ok(words(&[16, flags, count(regions.len()), count(interrupts.len())]).into())
            }
            Request::RegionInfo { argsz, index } => {
                let region = self.region(index)?;
                let (body, with_file) = region.encode(argsz);
                Ok(Reply { body, file: if with_file { region.file() } else { None } })
            }
            Request::IrqInfo { index } => {
                let interrupt = self.interrupt(index)?;
                Ok(words(&[16, interrupt.flags, index, interrupt.count]).into())
            }
            Request::SetIrqs { flags, index, start, count } => {
                let limit = self.interrupt(index)?.count;
                if start.checked_add(count).is_none_or(|end| end > limit) {
                    return Err(libc::EINVAL.into());
                }
                self.backend.set_irqs(index, flags, start, count, files)?;
                Ok(Vec::new().into())
            }
            Request::RegionRead { offset, region, count } => {
                self.check_inside(region, offset, count as usize)?;
                let mut body = access_reply(offset, region, count);
                let fixed = body.len();
                body.resize(fixed + count as usize, 0);
                self.backend.region_read(region, offset, &mut body[fixed..])?;
                Ok(body.into())
            }
            Request::RegionWrite { offset, region, data } => {
                self.check_inside(region, offset, data.len())?;
                self.backend.region_write(region, offset, data)?;
                Ok(access_reply(offset, region, u32::try_from(data.len()).unwrap_or(u32::MAX)).into())
            }
            Request::Reset => {
                self.backend.reset()?;
                Ok(Vec::new().into())
            }
        }
    }

    fn region(&self, index: u32) -> Result<&Region, Refusal> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.description.regions.get(index))
            .ok_or(Refusal::Errno(libc::EINVAL))
    }

    fn interrupt(&self, index: u32) -> Result<&IrqInfo, Refusal> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.description.interrupts.get(index))
            .ok_or(Refusal::Errno(libc::EINVAL))
    }

    fn check_inside(&self, region: u32, offset: u64, count: usize) -> Result<(), Refusal> {
        let size = self.region(region)?.size;
        let end = u64::try_from(count).ok().and_then(|count| offset.checked_add(count));
        if end.is_some_and(|end| end <= size) { Ok(()) } else { Err(libc::EINVAL.into()) }
    }
}

/// The version reply: numbers, then the limits that this server holds the client to.
fn version_reply(client_minor: u16) -> Vec<u8> {
    let capabilities = serde_json::json!({
        "capabilities": { "max_msg_fds": MAX_MESSAGE_FDS, "max_data_xfer_size": MAX_DATA_BYTES }
    });
    let mut body = Vec::new();
    body.extend(0u16.to_ne_bytes());
    body.extend(client_minor.min(MINOR_VERSION).to_ne_bytes());
    body.extend(capabilities.to_string().into_bytes());
    body.push(0);
    body
}

/// What REGION_READ and REGION_WRITE replies begin with.
fn access_reply(offset: u64, region: u32, count: u32) -> Vec<u8> {
    let mut body = offset.to_ne_bytes().to_vec();
    body.extend(words(&[region, count]));
    body
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
