// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz device` as a process: whatever ends it, its socket goes with it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vfio_user::Client;

/// How long to wait for what must come; far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a device and waits until it listens.
fn device(socket: &Path, options: &[&str]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ersatz"))
        .args(["device", "--vram", "2M", "--socket"])
        .arg(socket)
        .args(options)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary under test runs");
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().expect("a pipe")).read_line(&mut line).expect("text");
    assert!(line.contains("of VRAM at"), "{line}");
    child
}

fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}: never happened");
        thread::sleep(Duration::from_millis(1));
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// The processes that a process has started and that are still there.
fn children(parent: Pid) -> Vec<i32> {
    let id = parent.as_raw_nonzero();
    let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("the process is there");
    list.split_whitespace().map(|number| number.parse().expect("a number")).collect()
}

#[test]
fn a_killed_device_leaves_neither_socket_nor_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("gpu");
    for connected in [false, true] {
        let mut child = device(&socket, &[]);
        let helpers = children(pid(&child));
        let client = connected.then(|| Client::new(&socket).expect("a client"));
        child.kill().expect("SIGKILL");
        child.wait().expect("an end");
        wait_until("the socket is gone", || !socket.exists());
        for helper in helpers {
            // A zombie whose new parent has not looked at it yet has ended.
            wait_until("no process is left", || {
                fs::read_to_string(format!("/proc/{helper}/stat")).map_or(true, |stat| stat.contains(") Z "))
            });
        }
        drop(client);
    }
}

#[test]
fn an_interrupted_device_takes_everything_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("gpu");
    let mut child = device(&socket, &[]);
    kill_process(pid(&child), Signal::INT).expect("SIGINT");
    assert!(child.wait().expect("an end").success());
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn a_device_that_was_killed_can_be_started_again_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("gpu");
    for _ in 0..5 {
        let mut child = device(&socket, &[]);
        assert!(Client::new(&socket).is_ok());
        child.kill().expect("SIGKILL");
        child.wait().expect("an end");
    }
}

#[test]
fn a_device_for_one_client_ends_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("gpu");
    let mut child = device(&socket, &["--once"]);
    drop(Client::new(&socket).expect("a client"));
    assert!(child.wait().expect("an end").success());
    assert!(!socket.exists());
}
