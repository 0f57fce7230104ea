// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of the control socket that serves.
//!
//! One thread accepts clients, and each has a thread of its own. There are at most [`MAX_CLIENTS`]: a further one takes the place of the one
//! that has been silent the longest, of those without a request under way if there are any. So connections that are opened and left do not
//! keep others out.

use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::line::{Line, MAX_LINE, read_line};
use super::protocol::{Envelope, ErrorKind, Failure, Greeting, answer};
use super::requests::carry_out;
use crate::gpu::registry::GpuRegistry;
use crate::supervisor::Event;
use crate::threads::{Role, spawn};
use crate::vfio_user::peer::Peer;
use crate::vfio_user::socket::{Socket, SocketError};

/// Most clients at a time.
pub const MAX_CLIENTS: usize = 16;
/// How long a client may leave its answer unread.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves until it is dropped.
#[derive(Debug)]
pub struct ControlServer {
    stop: Event,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be listened on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A descriptor or a thread cannot be had.
    #[error("cannot serve the control socket")]
    Serve(#[from] io::Error),
}

impl ControlServer {
    /// Listens on a path, for processes of this user only.
    ///
    /// # Errors
    ///
    /// Fails if something else is there, or the system refuses.
    pub fn start(path: &Path, gpus: GpuRegistry) -> Result<Self, ControlError> {
        Self::serve(Socket::bind_private(path)?, gpus)
    }

    /// Serves on a socket, for processes of this user only.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses.
    pub fn serve(socket: Socket, gpus: GpuRegistry) -> Result<Self, ControlError> {
        socket.listener().set_nonblocking(true)?;
        let stop = Event::new()?;
        let stopped = stop.clone();
        let thread = spawn(Role::ControlServer, move || accept_all(&socket, &gpus, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

/// A client that is served.
struct Client {
    stream: UnixStream,
    state: Arc<ClientState>,
    thread: JoinHandle<()>,
}

/// What a client's thread and the accepting one share.
#[derive(Default)]
struct ClientState {
    /// The thread is to end.
    is_stopped: AtomicBool,
    /// A request is under way.
    is_busy: AtomicBool,
    /// When it connected or its last request was answered, as a count of such moments of all clients.
    last_active: AtomicU64,
}

impl Client {
    /// Makes the client's thread end, without waiting for it.
    fn disconnect(&self) {
        self.state.is_stopped.store(true, Ordering::Release);
        // An error means that the connection has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn accept_all(socket: &Socket, gpus: &GpuRegistry, stop: &Event) {
    let moments = Arc::new(AtomicU64::new(0));
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let mut events =
            [stop.as_fd(), socket.listener().as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut events, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                log::error!("control: cannot wait for clients any more: {error}");
                break;
            }
        }
        if !events[0].revents().is_empty() {
            break;
        }
        match socket.listener().accept() {
            Ok((stream, _)) => {
                clients.retain(|client| !client.thread.is_finished());
                if !Peer::of(&stream).is_some_and(Peer::is_of_this_user) {
                    log::warn!("control: a client of another user was turned away");
                } else {
                    make_room(&mut clients);
                    match start(stream, gpus.clone(), moments.clone()) {
                        Ok(client) => clients.push(client),
                        Err(error) => log::warn!("control: cannot serve a client: {error}"),
                    }
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                // Out of descriptors, most likely: the connection stays in the queue, and this would not block.
                log::warn!("control: cannot accept a client: {error}");
                stop.wait(Duration::from_millis(100));
            }
        }
    }
    for client in &clients {
        client.disconnect();
    }
    for client in clients {
        let _ = client.thread.join();
    }
}

/// Makes room for one more client.
fn make_room(clients: &mut Vec<Client>) {
    if clients.len() < MAX_CLIENTS {
        return;
    }
    let age = |client: &Client| {
        (client.state.is_busy.load(Ordering::Acquire), client.state.last_active.load(Ordering::Acquire))
    };
    let Some(index) = (0..clients.len()).min_by_key(|index| age(&clients[*index])) else { return };
    let client = clients.swap_remove(index);
    log::info!("control: {MAX_CLIENTS} clients are connected; the one that has been silent the longest makes room");
    client.disconnect();
    // Whatever it does ends with its connection.
    let _ = client.thread.join();
}

fn start(stream: UnixStream, gpus: GpuRegistry, moments: Arc<AtomicU64>) -> io::Result<Client> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let other = stream.try_clone()?;
    let state = Arc::new(ClientState::default());
    state.last_active.store(moments.fetch_add(1, Ordering::AcqRel), Ordering::Release);
    let shared = state.clone();
    let thread = spawn(Role::ControlClient, move || {
        if let Err(error) = serve(&stream, &gpus, &shared, &moments) {
            log::info!("control: a client's connection ended: {error}");
        }
        // The other copy of the descriptor stays until the next client comes.
        let _ = stream.shutdown(Shutdown::Both);
    })?;
    Ok(Client { stream: other, state, thread })
}

/// Serves one client until its stream ends.
fn serve(stream: &UnixStream, gpus: &GpuRegistry, state: &ClientState, moments: &AtomicU64) -> io::Result<()> {
    let is_stopped = || state.is_stopped.load(Ordering::Acquire) || has_hung_up(stream);
    send(stream, serde_json::to_string(&Greeting::new(gpus.numbers()))?)?;
    let mut reader = BufReader::new(stream);
    while !is_stopped() {
        let line = match read_line(&mut reader, MAX_LINE)? {
            Line::Text(line) => line,
            Line::End => break,
            Line::TooLong => {
                let message = format!("a line has at most {MAX_LINE} bytes; the connection ends");
                return send(stream, answer(Err(Failure::new(ErrorKind::Request, message)), None));
            }
        };
        state.is_busy.store(true, Ordering::Release);
        let reply = match Envelope::parse(&line) {
            Ok(envelope) => answer(carry_out(&envelope, gpus, &is_stopped), envelope.id),
            Err(failure) => answer(Err(failure), None),
        };
        let sent = send(stream, reply);
        state.last_active.store(moments.fetch_add(1, Ordering::AcqRel), Ordering::Release);
        state.is_busy.store(false, Ordering::Release);
        sent?;
    }
    Ok(())
}

/// Whether the client has closed its end. One that has only ended its requests still reads answers.
fn has_hung_up(stream: &UnixStream) -> bool {
    let mut event = [PollFd::new(stream, PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut event, Some(&now)).is_ok() && event[0].revents().contains(PollFlags::HUP)
}

fn send(mut stream: &UnixStream, mut line: String) -> io::Result<()> {
    line.push('\n');
    stream.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests;
