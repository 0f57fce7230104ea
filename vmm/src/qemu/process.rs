// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A running QEMU. It never outlives this process, for whatever reason that ends.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::PathBuf;
use std::process::{self, Child, Command, ExitStatus, Stdio};

use thiserror::Error;

use super::{Qemu, Tail};

/// Why QEMU could not be run.
#[derive(Debug, Error)]
pub enum QemuError {
    /// It could not be started.
    #[error("cannot start QEMU at {program} (run `cargo xtask build` again, or name another with --qemu)")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// There is no thread left to read its output.
    #[error("cannot follow what QEMU prints")]
    Follow(#[source] io::Error),
    /// Waiting for it failed.
    #[error("cannot wait for QEMU")]
    Wait(#[source] io::Error),
}

/// A running QEMU; dropping it kills it.
#[derive(Debug)]
pub struct QemuProcess {
    child: Child,
    /// The end of what it wrote to standard output.
    pub output: Tail,
    /// The end of what it wrote to standard error.
    pub errors: Tail,
}

impl QemuProcess {
    /// Starts QEMU with its standard streams taken: no input, the ends of both outputs kept.
    ///
    /// It inherits `given` and `shared` under the same numbers, so arguments can name them; `given` are closed here. It is killed
    /// when the calling thread ends, so call this from one that lives as long as the machine should.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be started. Bad arguments are not an error here: QEMU ends with a message on standard error.
    pub fn start(qemu: &Qemu, mut command: Command, given: Vec<OwnedFd>, shared: &[&File]) -> Result<Self, QemuError> {
        let shared = shared.iter().map(|file| file.as_raw_fd());
        let numbers: Vec<RawFd> = given.iter().map(AsRawFd::as_raw_fd).chain(shared).collect();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C on the terminal is for this process, which ends the guest first and QEMU after that.
        command.process_group(0);
        let parent = process::id();
        let in_child = move || {
            die_with_parent(parent)?;
            give_up_devices()?;
            numbers.iter().try_for_each(|descriptor| inherit(*descriptor))
        };
        // SAFETY: between fork and exec the closure makes system calls only; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(in_child) };
        let spawned = command.spawn();
        let mut child = spawned.map_err(|source| QemuError::Spawn { program: qemu.program(), source })?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        // From here on an error kills QEMU.
        let mut process = Self { child, output: Tail::default(), errors: Tail::default() };
        if let (Some(output), Some(errors)) = (output, errors) {
            process.output = Tail::follow(output).map_err(QemuError::Follow)?;
            process.errors = Tail::follow(errors).map_err(QemuError::Follow)?;
        }
        Ok(process)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    ///
    /// Fails if the system cannot say.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, QemuError> {
        self.child.try_wait().map_err(QemuError::Wait)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// Fails if the system cannot say.
    pub fn wait(&mut self) -> Result<ExitStatus, QemuError> {
        self.child.wait().map_err(QemuError::Wait)
    }
}

impl Drop for QemuProcess {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the kernel kill this process when the thread that forked it ends; fails if the parent has ended already.
fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: a system call with integer arguments.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 if parent_id() == parent => Ok(()),
        0 => Err(io::ErrorKind::NotConnected.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps this process from making device nodes after exec, which a guest could have it do in a folder that they share.
fn give_up_devices() -> io::Result<()> {
    /// `CAP_MKNOD`, which the crate does not name.
    const CAP_MKNOD: libc::c_int = 27;
    // SAFETY: a system call with integer arguments.
    match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_MKNOD) } {
        0 => Ok(()),
        // It takes CAP_SETPCAP. Who lacks that is an ordinary user, who cannot make devices, either.
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
            error => Err(error),
        },
    }
}

/// Keeps a descriptor open across exec.
fn inherit(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: a system call with integer arguments; the descriptor stays owned by the caller's side of the fork.
    match unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn start(script: &str, descriptors: Vec<OwnedFd>) -> QemuProcess {
        let shell = Qemu::Host("/bin/sh".into());
        let mut command = shell.command();
        command.args(["-c", script]);
        QemuProcess::start(&shell, command, descriptors, &[]).unwrap()
    }

    #[test]
    fn a_missing_program_is_named() {
        let qemu = Qemu::Host("/nowhere/qemu".into());
        let error = QemuProcess::start(&qemu, qemu.command(), Vec::new(), &[]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/qemu"), "{error}");
    }

    #[test]
    fn descriptors_are_inherited_and_the_status_is_known() {
        let mut file = tempfile::tempfile().unwrap();
        let inherited = file.try_clone().unwrap();
        // By its path: a shell need not take a number of two digits for a descriptor.
        let path = format!("/proc/self/fd/{}", inherited.as_raw_fd());
        let mut process = start(&format!("echo hello >>{path}; exit 7"), vec![inherited.into()]);
        assert_eq!(process.wait().unwrap().code(), Some(7));
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\n");
    }

    #[test]
    fn what_a_terminal_signals_does_not_reach_it() {
        let process = start("exec sleep 1000", Vec::new());
        let pid = libc::pid_t::try_from(process.id()).unwrap();
        // SAFETY: system calls with integer arguments.
        assert_ne!(unsafe { libc::getpgid(pid) }, unsafe { libc::getpgid(0) });
    }

    #[test]
    fn it_cannot_make_devices() {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("node");
        let mut process = start(&format!("mknod {} c 1 3", node.display()), Vec::new());
        assert!(!process.wait().unwrap().success());
        assert!(!node.exists());
    }

    #[test]
    fn dropping_kills() {
        let process = start("exec sleep 1000", Vec::new());
        let stat = format!("/proc/{}/stat", process.id());
        assert!(File::open(&stat).is_ok());
        drop(process);
        assert!(File::open(&stat).is_err(), "still there");
    }
}
