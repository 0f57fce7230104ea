// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz ctl` and `ersatz device --control`: commands are held while a client programs the device.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use vfio_user::Client;

use crate::rig::{DATA, Driver, entry, system, vram, wait_for};

/// `ersatz device` with a control socket.
struct Device {
    folder: TempDir,
    child: Child,
}

impl Device {
    fn new(options: &[&Path]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ersatz"))
            .args(["device", "--vram", "2M", "--socket"])
            .arg(folder.path().join("gpu"))
            .arg("--control")
            .arg(folder.path().join("ctl"))
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("of VRAM at"), "{line}");
        let device = Self { folder, child };
        wait_for("the control socket", || UnixStream::connect(device.control()).ok());
        device
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join("ctl")
    }

    /// Runs `ersatz ctl`; returns its exit status and what it printed.
    fn ctl_with(&self, words: &[&str], input: &str) -> (i32, String, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ersatz"))
            .arg("ctl")
            .arg(self.control())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Runs `ersatz ctl`, which succeeds; returns what it printed.
    fn ctl(&self, words: &[&str]) -> String {
        let (status, output, errors) = self.ctl_with(words, "");
        assert_eq!(status, 0, "{words:?}: {errors}");
        output
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ctl(&[&["--json"], words].concat())).unwrap()
    }

    fn driver(&self) -> Driver {
        wait_for("the socket", || Client::new(&self.folder.path().join("gpu")).ok().map(Driver::new))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn copy(driver: &mut Driver, fence: u64) {
    driver.copy(&[entry(system(DATA), vram(0), 4096)], fence);
}

#[test]
fn a_command_is_held_before_its_fence_shown_and_resumed() {
    let device = Device::new(&[]);
    let number = device.ctl(&["break", "before-fence", "--name", "held", "--channel", "0", "--nth", "2"]);
    assert_eq!(number.trim(), "1");
    let mut driver = device.driver();
    copy(&mut driver, 1);
    wait_for("the first fence", || (driver.fence() == 1).then_some(()));
    copy(&mut driver, 2);
    let hold = device.json(&["wait", "hold", "held"]);
    assert_eq!((&hold["step"], &hold["channel"], &hold["name"]), (&json!("before-fence"), &json!(0), &json!("held")));
    assert_eq!(driver.fence(), 1);
    assert_eq!(device.json(&["holds"]), json!([hold]));
    assert!(device.ctl(&["holds"]).contains("step before-fence"));
    let view = device.json(&["query", "channels"]);
    assert_eq!((&view["channels"][0]["waits-for"], &view["channels"][0]["fence"]), (&json!("hold"), &json!(1)));
    let id = hold["number"].to_string();
    device.ctl(&["resume", &id]);
    wait_for("the second fence", || (driver.fence() == 2).then_some(()));
    assert_eq!(device.ctl(&["holds"]), "");
    let (status, _, errors) = device.ctl_with(&["resume", &id], "");
    assert_eq!((status, errors.lines().count()), (1, 1), "{errors}");
    device.ctl(&["clear", "held"]);
    assert_eq!(device.json(&["breakpoints"]), json!([]));
}

#[test]
fn a_rule_is_added_fires_and_is_removed() {
    let device = Device::new(&[]);
    let rule =
        "[[rule]]\nname = \"bad\"\non.event.kinds = [\"copy\"]\naction = { kind = \"fail\", error = \"dma-read\" }\n";
    assert_eq!(device.ctl_with(&["rule", "add", "-"], rule), (0, "1\n".to_owned(), String::new()));
    let (status, _, errors) = device.ctl_with(&["rule", "add", "-"], rule);
    assert!(status == 2 && errors.contains("another name"), "{errors}");
    let (status, _, errors) = device.ctl_with(&["rule", "add", "-"], "[[rule]]\nnam = 1");
    assert!(status == 2 && errors.contains("standard input, line 2"), "{errors}");
    let (status, ..) = device.ctl_with(&["wait", "rule", "bad", "--timeout", "1ms"], "");
    assert_eq!(status, 1);
    let mut driver = device.driver();
    copy(&mut driver, 1);
    assert_eq!(device.json(&["wait", "rule", "bad"])["fired"], 1);
    let rules = device.ctl(&["rule", "list"]);
    assert!(rules.contains("1 \"bad\" fired 1"), "{rules}");
    device.ctl(&["rule", "remove", "bad"]);
    assert_eq!(device.ctl(&["rule", "list"]), "state 1\n");
}

#[test]
fn a_file_of_rules_is_there_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    std::fs::write(&file, "[[breakpoint]]\nname = \"early\"\nstep = \"command-fetched\"\n").unwrap();
    let device = Device::new(&[Path::new("--rules"), &file]);
    let mut driver = device.driver();
    copy(&mut driver, 1);
    assert_eq!(device.json(&["wait", "hold"])["name"], "early");
    device.ctl(&["resume", "early"]);
    wait_for("the fence", || (driver.fence() == 1).then_some(()));
}

#[test]
fn mistakes_say_what_could_be_typed() {
    let device = Device::new(&[]);
    let list = device.ctl(&["list"]);
    for part in ["before-fence", "spurious-interrupt", "occurrence", "pcie-4-x16", "kinds: "] {
        assert!(list.contains(part), "{list}");
    }
    for (words, part) in [
        (&["break", "before-fens"][..], "before-fence"),
        (&["break", "before-get", "--kind", "fense"], "fence"),
        (&["wait", "hold", "--timeout", "5"], "500ms"),
        (&["rule"], "--help"),
        (&["query", "chanels"], "channels"),
    ] {
        let (status, _, errors) = device.ctl_with(words, "");
        assert!(status == 2 && errors.lines().count() == 1 && errors.contains(part), "{words:?}: {errors}");
    }
    let (status, _, errors) = device.ctl_with(&["--gpu", "3", "holds"], "");
    assert!(status == 1 && errors.contains("there are: 0"), "{errors}");
    drop(device.driver());
    let output = Command::new(env!("CARGO_BIN_EXE_ersatz")).args(["ctl", "/nowhere/ctl", "holds"]).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(125) && errors.contains("--control"), "{errors}");
}
