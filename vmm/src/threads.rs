// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The threads of the VMM. All of them are spawned here, each with a role that gives its name and its stack.
//!
//! A device has threads of its own, named after its GPU; see the device model.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Stack of a vCPU's thread in bytes. What it needs is bounded: exits are served without recursion.
const VCPU_STACK: usize = 256 << 10;

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs the vCPU of this number.
    Vcpu(u8),
    /// Runs a machine while its creator does something else.
    Machine,
    /// Watches over a guest: time limit, panics, interruption.
    Supervisor,
    /// Turns signals into an event.
    Signals,
    /// Reads standard input for the guest.
    Input,
    /// Passes on what a guest's command writes to a stream.
    Output,
    /// Takes the files that a guest sends.
    Collector,
    /// Copies that input on to a guest that was waiting for its run.
    ForwardInput,
    /// Ends the tiny guest that probes KVM if it hangs.
    ProbeWatchdog,
    /// Accepts the clients of the GPU of this number.
    VfioUserServer(u8),
    /// Serves one client of the GPU of this number.
    VfioUserClient(u8),
    /// Accepts the clients of the control socket.
    ControlServer,
    /// Serves one client of the control socket.
    ControlClient,
    /// Keeps the end of what a child process prints.
    Tail,
    /// Runs isolated tests, one after the other.
    TestWorker(u8),
    /// Draws the line that says which test is under way.
    StatusLine,
    /// Reads the console of a guest that a benchmark boots.
    BenchConsole,
}

impl Role {
    /// Returns the thread's name, of at most the 15 bytes that Linux keeps.
    fn name(self) -> String {
        match self {
            Self::Vcpu(number) => format!("vcpu{number}"),
            Self::Machine => "machine".to_owned(),
            Self::Supervisor => "supervisor".to_owned(),
            Self::Signals => "signals".to_owned(),
            Self::Input => "input".to_owned(),
            Self::Output => "output".to_owned(),
            Self::Collector => "collector".to_owned(),
            Self::ForwardInput => "forward-input".to_owned(),
            Self::ProbeWatchdog => "probe-watchdog".to_owned(),
            Self::VfioUserServer(gpu) => format!("gpu{gpu}"),
            Self::VfioUserClient(gpu) => format!("gpu{gpu}-client"),
            Self::ControlServer => "control".to_owned(),
            Self::ControlClient => "control-client".to_owned(),
            Self::Tail => "tail".to_owned(),
            Self::TestWorker(number) => format!("tests{number}"),
            Self::StatusLine => "status-line".to_owned(),
            Self::BenchConsole => "bench-console".to_owned(),
        }
    }

    fn builder(self) -> Builder {
        let builder = Builder::new().name(self.name());
        match self {
            Self::Vcpu(_) => builder.stack_size(VCPU_STACK),
            _ => builder,
        }
    }
}

/// Spawns a thread.
///
/// # Errors
///
/// Fails if the system has no thread left.
pub fn spawn<T: Send + 'static>(role: Role, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    role.builder().spawn(body)
}

/// Spawns a thread that ends within a scope.
///
/// # Errors
///
/// Fails if the system has no thread left.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    role: Role,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    role.builder().spawn_scoped(scope, body)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_is_named_by_its_role() {
        let name = || thread::current().name().map(str::to_owned);
        assert_eq!(spawn(Role::Vcpu(3), name).unwrap().join().unwrap().as_deref(), Some("vcpu3"));
        let scoped = thread::scope(|scope| spawn_scoped(scope, Role::Supervisor, name).unwrap().join().unwrap());
        assert_eq!(scoped.as_deref(), Some("supervisor"));
    }

    #[test]
    fn names_are_short_enough_for_linux() {
        for role in [
            Role::Vcpu(u8::MAX),
            Role::Machine,
            Role::Supervisor,
            Role::Signals,
            Role::Input,
            Role::ForwardInput,
            Role::ProbeWatchdog,
            Role::VfioUserServer(u8::MAX),
            Role::VfioUserClient(u8::MAX),
            Role::ControlServer,
            Role::ControlClient,
            Role::Tail,
            Role::TestWorker(u8::MAX),
            Role::StatusLine,
            Role::BenchConsole,
        ] {
            assert!(role.name().len() <= 15, "{role:?}");
        }
    }
}
