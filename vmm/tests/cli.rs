// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line from outside: help that helps, bad arguments in one line and status 2.

use std::process::{Command, Output};

fn ersatz(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ersatz"))
        .args(arguments)
        .env("ERSATZ_GUEST", "/nonexistent")
        .output()
        .expect("the binary under test runs")
}

/// Checks that arguments are refused in one line on stderr that contains all of `parts`, with status 2.
#[track_caller]
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = ersatz(arguments);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?} prints to stdout");
    for part in parts {
        assert!(text.contains(part), "{arguments:?}: no {part:?} in {text:?}");
    }
}

#[test]
fn help_goes_to_stdout() {
    for (arguments, part) in [
        (&["--help"][..], "Exit status"),
        (&["run", "--help"], "--kernel-args"),
        (&["test", "--help"], "--format"),
        (&["try", "--help"], "--museum"),
        (&["device", "--help"], "vfio-user-pci"),
        (&["ctl", "--help"], "breakpoints"),
        (&["ctl", "gpu.ctl", "break", "--help"], "before-fence"),
    ] {
        let output = ersatz(arguments);
        assert!(output.status.success(), "{arguments:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.contains(part), "{arguments:?}: no {part:?} in {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{arguments:?} has long lines: {text}");
    }
}

#[test]
fn the_doctor_says_what_is_missing() {
    let output = ersatz(&["doctor"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(125), "{text}");
    let kernels = text.lines().find(|line| line.contains("kernels")).expect("a line about kernels");
    assert!(kernels.starts_with("BAD") && kernels.contains("/nonexistent"), "{text}");
    assert!(text.lines().any(|line| line.contains("--accel auto is")), "{text}");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = ersatz(&["completions", shell]);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success() && text.contains("trace") && text.contains("kernel-args"), "{shell}");
        assert!(!text.contains("socket-reaper"), "{shell} completes what is hidden");
    }
    refused(&["completions", "cmd.exe"], &["cmd.exe", "bash"]);
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    refused(&[], &["needs a command", "ersatz --help"]);
    refused(&["rum"], &["rum", "run"]);
    refused(&["run", "--vrma", "1G"], &["--vrma", "--vram"]);
    refused(&["run", "--vram", "3G"], &["3G", "power of two", "2G or 4G"]);
    refused(&["run", "--vram", "lots"], &["lots", "256M"]);
    refused(&["run", "--memory", "1M"], &["1M", "128M"]);
    refused(&["run", "--accel", "magic"], &["magic", "nested", "tcg"]);
    refused(&["run", "--cpus", "0"], &["--cpus", "1..=64"]);
    refused(&["run", "--mode", "public"], &["public", "coherent"]);
    refused(&["run", "--timeout", "soon"], &["soon", "5m"]);
    refused(&["run", "--kernel", "/no/such/kernel"], &["/no/such/kernel", "7.2"]);
    refused(&["run", "--kernel", "/proc/self/exe"], &["/proc/self/exe", "no kernel", "bzImage"]);
    refused(&["run", "--add", "/no/such/file"], &["/no/such/file", "HOST:GUEST"]);
    refused(&["run", "--add", "/dev/null"], &["/dev/null", "a device"]);
    refused(&["run", "--add", "/proc/self/exe:/a/../../b"], &["'..'"]);
    refused(&["run", "--add", "/proc/self/exe:/tmp/x"], &["/tmp", "another place"]);
    refused(&["run", "--module", "/no/such.ko"], &["/no/such.ko"]);
    refused(&["run", "--module", "/proc/self/exe"], &["NAME.ko"]);
    refused(&["run", "ls"], &["ls"]);
    refused(&["test", "--format", "xml"], &["xml", "ktap"]);
    refused(&["try"], &["FILE", "ersatz try --help"]);
    refused(&["try", "--museum", "x.scenario"], &["--museum"]);
    refused(&["try", "--repeat", "0", "x.scenario"], &["--repeat"]);
    refused(&["try", "--kernel", "7.2,/no/such/kernel", "x.scenario"], &["/no/such/kernel"]);
    refused(&["try", "/no/such.scenario"], &["/no/such.scenario", "--museum"]);
    refused(&["device"], &["--socket", "ersatz device --help"]);
}

#[test]
fn a_file_that_is_not_a_scenario_is_refused_by_its_line_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.scenario");
    std::fs::write(&path, "setup\n  map r 4K\n  mapp s 4K\n").unwrap();
    let path = path.to_str().expect("a plain path");
    refused(&["try", path], &[&format!("{path}:3: \"mapp\""), "expected map"]);
}

#[test]
fn a_bad_rules_file_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.toml");
    std::fs::write(&file, "[[rule]]\nname = \"r\"\naction = { kind = \"explode\" }\n").expect("a file");
    let file = file.to_str().expect("UTF-8");
    for command in [&["run"][..], &["test"], &["device", "--socket", "s"]] {
        refused(&[command, &["--rules", file]].concat(), &["rules.toml, line 3", "explode", "delay"]);
    }
    refused(&["run", "--rules", "/no/such/file"], &["/no/such/file", "No such file"]);
    refused(&["test", "--isolated", "--control", "c"], &["--isolated", "--control"]);
}

#[test]
fn a_missing_guest_is_a_failure_not_a_usage_error() {
    let output = ersatz(&["run", "--", "true"]);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("/nonexistent") && text.contains("cargo xtask build"), "{text}");
}
