// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the job's command, with everything relayed to the host.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ersatz_guest_image::outer::Job;
use ersatz_guest_image::outer::channel::Message;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use super::port::Port;
use super::relay;

/// How long a killed command may take to die before it is given up: it is stuck in the kernel, with KVM under it.
const STUCK: Duration = Duration::from_secs(5);

/// The status of a command that could not be killed, as a shell would have it if it had been.
const STATUS_KILLED: u8 = 128 + Signal::SIGKILL as u8;

/// Why the command was not run.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The job has no command.
    #[error("the job names no program")]
    Empty,
    /// It could not be started.
    #[error("cannot run {program} in the outer machine")]
    Spawn {
        /// What should have run.
        program: String,
        /// The system's error.
        source: io::Error,
    },
}

/// What the waiting thread receives.
enum Event {
    /// The command ended.
    Ended(io::Result<ExitStatus>),
    /// The host asked to kill the command.
    Killed,
}

/// Runs the command to its end; returns its exit status as a shell has it.
///
/// # Errors
///
/// Fails if it could not be started.
pub fn run(job: &Job, port: &Port) -> Result<u8, CommandError> {
    let [program, arguments @ ..] = &job.command[..] else { return Err(CommandError::Empty) };
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin").env("HOME", "/");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|source| CommandError::Spawn { program: program.clone(), source })?;
    let relays = [
        child.stdout.take().map(|pipe| relay::output(pipe, port, Message::Output)),
        child.stderr.take().map(|pipe| relay::output(pipe, port, Message::ErrorOutput)),
    ];
    let input = child.stdin.take();
    port.send(&Message::Started);
    Ok(wait(child, input, relays.into_iter().flatten().collect(), port))
}

/// Relays input and signals until the command has ended and all its output is sent.
fn wait(mut child: Child, target: Option<ChildStdin>, relays: Vec<JoinHandle<()>>, port: &Port) -> u8 {
    let pid = child.id();
    let (sender, receiver) = channel();
    let ended: Sender<Event> = sender.clone();
    std::thread::spawn(move || {
        // There is no receiver any more if the command was given up.
        let _ = ended.send(Event::Ended(child.wait()));
    });
    let signals = port.clone();
    relay::input(port, target, move |signal| {
        if signal == Signal::SIGKILL {
            tell_threads(pid, &signals);
        }
        if let Ok(pid) = i32::try_from(pid) {
            // It may have ended this moment.
            let _ = kill(Pid::from_raw(pid), signal);
        }
        if signal == Signal::SIGKILL {
            let _ = sender.send(Event::Killed);
        }
    });
    let Some(status) = end_of(&receiver) else {
        port.send(&Message::Stage("the command survives SIGKILL, stuck in the outer machine's kernel".to_owned()));
        return STATUS_KILLED;
    };
    // What it left behind would hold its pipes open.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    for relay in relays {
        // A relay that panicked has reported that on the console.
        let _ = relay.join();
    }
    status
}

/// Waits for the command's end; `None` if it was killed and does not end.
fn end_of(events: &Receiver<Event>) -> Option<u8> {
    let mut event = events.recv().ok()?;
    loop {
        match event {
            Event::Ended(status) => return Some(status.map_or(STATUS_KILLED, shell_status)),
            Event::Killed => {
                event = match events.recv_timeout(STUCK) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
                }
            }
        }
    }
}

/// An exit status as shells have it.
fn shell_status(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
}

/// Reports to the host what each thread of the command is waiting for, so that the user sees why it hung.
fn tell_threads(pid: u32, port: &Port) {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for task in tasks.flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stack: Vec<String> = read("stack").lines().map(str::to_owned).collect();
        let (name, wait) = (read("comm"), read("wchan"));
        port.send(&Message::Stage(format!("thread {} in {wait}: {}", name.trim_end(), stack.join("; "))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_those_of_shells() {
        assert_eq!(shell_status(ExitStatus::from_raw(4 << 8)), 4);
        assert_eq!(shell_status(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn a_command_that_ends_after_all_is_not_given_up() {
        let (sender, receiver) = channel();
        sender.send(Event::Killed).unwrap();
        sender.send(Event::Ended(Ok(ExitStatus::from_raw(9)))).unwrap();
        assert_eq!(end_of(&receiver), Some(137));
    }

    #[test]
    fn a_command_whose_waiter_is_gone_is_given_up() {
        let (sender, receiver) = channel();
        sender.send(Event::Killed).unwrap();
        drop(sender);
        assert_eq!(end_of(&receiver), None);
    }
}
