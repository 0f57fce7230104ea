// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The listening end: one client at a time, each of which finds the device as new.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use ersatz_guest_image::error_chain::chain;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use thiserror::Error;

use super::backend::FunctionBackend;
use super::peer::Peer;
use super::session;

use crate::threads::{Role, spawn};

/// Why serving came to an end that nobody asked for.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Waiting for clients failed.
    #[error("cannot wait for vfio-user clients")]
    Wait(#[source] io::Error),
    /// There is no thread to be had for a client.
    #[error("cannot start a thread for a vfio-user client")]
    Thread(#[source] io::Error),
    /// A bug.
    #[error("the thread that served a vfio-user client panicked; please report what it said")]
    Panicked,
}

/// How long to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Until asked to stop.
    Stopped,
    /// Until the first client has left.
    FirstClientLeft,
}

/// Whom to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Whoever can connect; the permissions of the socket's path decide who that is.
    Anyone,
    /// Processes of our own user: for sockets without a path, which have no permissions.
    OfThisUser,
}

/// Serves one client after the other; a further one that comes meanwhile is turned away. Between clients the function is
/// reset. Returns when `stop` becomes readable, or as `until` says.
///
/// # Errors
///
/// Fails if it cannot go on. What single clients do wrong is logged and is no error.
pub fn serve(
    listener: &UnixListener,
    backend: FunctionBackend,
    until: Until,
    clients: Clients,
    stop: impl AsFd,
) -> Result<(), ServeError> {
    let left = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| ServeError::Wait(error.into()))?);
    let mut idle = Some(backend);
    let mut busy: Option<Client> = None;
    loop {
        let watched = [stop.as_fd(), left.as_fd(), listener.as_fd()];
        let mut events = watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut events, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(ServeError::Wait(error.into())),
        }
        let [must_stop, has_left, has_come] = events.map(|event| !event.revents().is_empty());
        if must_stop {
            return busy.map_or(Ok(()), |client| client.disconnect().map(drop));
        }
        if has_left {
            rustix::io::read(&left, &mut [0; 8]).map_err(|error| ServeError::Wait(error.into()))?;
            idle = busy.take().map(Client::join).transpose()?;
            if until == Until::FirstClientLeft {
                return Ok(());
            }
        }
        if has_come {
            let (stream, _) = listener.accept().map_err(ServeError::Wait)?;
            let peer = Peer::of(&stream);
            if clients == Clients::OfThisUser && !peer.is_some_and(Peer::is_of_this_user) {
                log::warn!("vfio-user: a client of another user was turned away");
                continue;
            }
            match idle.take() {
                Some(backend) => busy = Some(Client::start(stream, peer, backend, left.clone())?),
                None => {
                    log::warn!("vfio-user: a second client was turned away: one device serves one client at a time")
                }
            }
        }
    }
}

/// A client that is being served, on a thread of its own.
struct Client {
    stream: UnixStream,
    thread: JoinHandle<FunctionBackend>,
}

impl Client {
    /// Begins to serve; writes to `left` once the client is gone and the backend has forgotten it.
    fn start(
        stream: UnixStream,
        peer: Option<Peer>,
        mut backend: FunctionBackend,
        left: Arc<OwnedFd>,
    ) -> Result<Self, ServeError> {
        let other = stream.try_clone().map_err(ServeError::Wait)?;
        let role = Role::VfioUserClient(backend.gpu());
        let serve = move || {
            log::info!(
                "vfio-user: serving process {}",
                peer.map_or("unknown".to_owned(), |peer| peer.pid().to_string())
            );
            let _left = Left(left);
            let description = backend.meet_client(peer);
            match session::serve(stream, &description, &mut backend) {
                Ok(()) => log::info!("vfio-user: the client left"),
                Err(error) => log::error!("vfio-user: {}", chain(&error)),
            }
            backend.forget_client();
            backend
        };
        let thread = spawn(role, serve).map_err(ServeError::Thread)?;
        Ok(Self { stream: other, thread })
    }

    /// Waits until the thread has ended.
    fn join(self) -> Result<FunctionBackend, ServeError> {
        self.thread.join().map_err(|_| ServeError::Panicked)
    }

    /// Ends the connection and waits until the thread has noticed.
    fn disconnect(self) -> Result<FunctionBackend, ServeError> {
        // An error means that the connection has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.join()
    }
}

/// Says that the client has left, also if its thread panics.
struct Left(Arc<OwnedFd>);

impl Drop for Left {
    fn drop(&mut self) {
        // Adding one to a counter that nobody else adds to cannot fail.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}
