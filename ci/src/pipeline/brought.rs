// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a guest can be given programs, files and modules of this machine.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Tally;
use crate::progress::Progress;
use crate::store::Store;

/// A module of the kernel's packages that needs another one.
const MODULE: &str = "9pnet_virtio";

/// The accelerator under which a command has streams of its own.
const WITH_STREAMS: &str = "tcg";

/// Looks at guests of an accelerator.
pub fn check(ersatz: &Path, series: &str, accelerator: &str, store: &Store, progress: &Progress) -> Tally {
    let stage = progress.stage(&format!("what runs bring, {accelerator}"));
    let result = try_all(ersatz, series, accelerator, store);
    if let Err(error) = &result {
        stage.say(&format!("FAILED: {error:#}"));
    }
    stage.done();
    Tally::check(result.is_ok())
}

fn try_all(ersatz: &Path, series: &str, accelerator: &str, store: &Store) -> Result<()> {
    let run = |options: &[&str], command: &[&str], expected: i32| -> Result<String> {
        let output = Command::new(ersatz)
            .args(["run", "--kernel", series, "--accel", accelerator, "--vram", "16M", "--timeout", "300"])
            .args(options)
            .arg("--")
            .args(command)
            .env("ERSATZ_GUEST", store.root())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", ersatz.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        let as_expected = output.status.code() == Some(expected);
        ensure!(as_expected, "{options:?} {command:?} ended with {}: {text}{messages}", output.status);
        Ok(text + &messages)
    };
    let folder = store.root().join(".brought");
    fs::create_dir_all(&folder)?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();

    // This program is linked dynamically.
    let program = std::env::current_exe()?;
    let text = run(&[], &[&program.to_string_lossy(), "--help"], 0)?;
    ensure!(text.contains("Usage:"), "a program of this machine printed {text:?}");

    fs::write(path("script"), "#!/bin/sh\ncat /data/in\nexit 7\n")?;
    fs::set_permissions(path("script"), fs::Permissions::from_mode(0o755))?;
    fs::write(path("in"), "brought along\n")?;
    let text = run(&["--add", &path("script"), "--add", &(path("in") + ":/data/")], &["script"], 7)?;
    ensure!(text.contains("brought along"), "a script of this machine printed {text:?}");

    fs::write(path("foreign.ko"), "\x7fELF\0depends=\0vermagic=1.2.3 SMP \0")?;
    let error = run(&["--module", &path("foreign.ko")], &["true"], 125)?;
    ensure!(error.contains("1.2.3"), "a module for another kernel: {error:?}");
    fs::write(path("broken.ko"), "\x7fELF\0depends=\0")?;
    let error = run(&["--module", &path("broken.ko")], &["true"], 125)?;
    ensure!(error.contains("broken"), "a module that the kernel refuses: {error:?}");
    fs::write(path("needs.ko"), format!("\x7fELF\0depends={MODULE}\0"))?;
    let error = run(&["--no-driver", "--module", &path("needs.ko")], &["true"], 125)?;
    ensure!(error.contains("needs"), "a module with dependencies: {error:?}");
    let text = run(&["--no-driver"], &["sh", "-c", "cat /proc/modules; echo end"], 0)?;
    ensure!(text.contains("end") && !text.contains("ersatz"), "without the driver: {text:?}");
    if accelerator == WITH_STREAMS {
        try_streams(ersatz, series, store, Path::new(&path("bytes")))?;
        try_collect(ersatz, series, store, &folder)?;
        try_share(ersatz, series, store, &folder)?;
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Tries folders that a guest and this machine share: what one writes the other has, also behind a panic, and nothing else.
fn try_share(ersatz: &Path, series: &str, store: &Store, folder: &Path) -> Result<()> {
    const FILES: usize = 200;
    let (shared, kept) = (folder.join("shared"), folder.join("kept"));
    fs::create_dir_all(shared.join("many"))?;
    fs::create_dir_all(&kept)?;
    (0..FILES).try_for_each(|number| fs::write(shared.join(format!("many/{number}")), number.to_string()))?;
    fs::write(kept.join("file"), "kept")?;
    let secret = folder.join("secret");
    fs::write(&secret, "secret")?;
    symlink(&secret, shared.join("out"))?;
    let run = |options: &[&str], command: &str, expected: i32| -> Result<String> {
        let output = Command::new(ersatz)
            .args(["run", "--kernel", series, "--accel", WITH_STREAMS, "--vram", "16M", "--timeout", "300"])
            .arg("--share")
            .arg(format!("{}:/s", shared.display()))
            .arg("--share")
            .arg(format!("{}:/k,ro", kept.display()))
            .args(options)
            .args(["--", "sh", "-c", command])
            .env("ERSATZ_GUEST", store.root())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", ersatz.display()))?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.code() == Some(expected), "--share, {command:?} ended with {}: {text}", output.status);
        Ok(text)
    };
    let text =
        run(&[], "ls /s/many | wc -l; cat /s/many/* | wc -c; cat /k/file; mkdir /s/new; echo hi > /s/new/file", 0)?;
    let bytes: usize = (0..FILES).map(|number| number.to_string().len()).sum();
    ensure!(text.contains(&format!("{FILES}\n{bytes}\nkept")), "a shared folder has {text:?}");
    ensure!(fs::read(shared.join("new/file"))? == b"hi\n", "what a guest wrote is not there");
    run(&["--cold"], "cat /s/out || cat /s/../secret || echo x > /k/file || mknod /s/node c 1 3", 1)?;
    ensure!(fs::read(&secret)? == b"secret" && fs::read(kept.join("file"))? == b"kept", "a guest wrote elsewhere");
    ensure!(fs::symlink_metadata(shared.join("node")).is_err(), "a guest made a device");
    run(&[], "echo safe > /s/synced; sync; echo c > /proc/sysrq-trigger", 121)?;
    ensure!(fs::read(shared.join("synced"))? == b"safe\n", "what a guest wrote before its panic is not there");
    Ok(())
}

/// Tries files out of a guest: whatever becomes of the command, what is there arrives, and what is not is said.
fn try_collect(ersatz: &Path, series: &str, store: &Store, folder: &Path) -> Result<()> {
    let out = folder.join("collected");
    let run = |paths: &[&str], limit: &str, command: &str, expected: i32| -> Result<String> {
        let mut line = Command::new(ersatz);
        line.args(["run", "--kernel", series, "--accel", WITH_STREAMS, "--vram", "16M", "--timeout", limit]);
        for path in paths {
            line.arg("--collect").arg(format!("{path}:{}/", out.display()));
        }
        line.args(["--", "sh", "-c", command]).env("ERSATZ_GUEST", store.root()).stdin(Stdio::null());
        let output = line.output().with_context(|| format!("cannot start {}", ersatz.display()))?;
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        ensure!(code == Some(expected), "--collect {paths:?} {command:?} ended with {code:?}: {messages}");
        Ok(messages)
    };
    let content = |name: &str| fs::read(out.join(name)).with_context(|| format!("{name} was not collected"));

    let tree = "mkdir -p /tmp/tree/deep; head -c 3000000 /dev/zero > /tmp/tree/deep/zeros; ln -s deep/zeros /tmp/tree/link; \
                ln -s /etc/passwd /tmp/tree/out; mkfifo /tmp/tree/pipe; echo 1 > /tmp/one";
    let messages = run(&["/tmp/tree", "/tmp/one", "/proc/version"], "300", &format!("{tree}; kill -9 $$"), 128 + 9)?;
    ensure!(content("tree/deep/zeros")? == vec![0; 3_000_000], "a file in a folder has other bytes");
    ensure!(content("one")? == b"1\n" && content("proc/version").is_err(), "a file is elsewhere");
    ensure!(content("version")?.starts_with(b"Linux version"), "a file of the kernel's is empty");
    ensure!(fs::read_link(out.join("tree/link"))? == Path::new("deep/zeros"), "a link leads elsewhere");
    ensure!(fs::symlink_metadata(out.join("tree/out")).is_err(), "a link out of the folder was made");
    ensure!(messages.contains("/tmp/tree/pipe") && messages.contains("/tmp/tree/out"), "left out: {messages:?}");

    let messages = run(&["/tmp/none", "/tmp/two"], "300", "echo 2 > /tmp/two", 120)?;
    ensure!(messages.contains("cannot collect /tmp/none"), "a path that is not there: {messages:?}");
    ensure!(content("two")? == b"2\n", "a path beside one that is not there");
    let messages = run(&["/tmp/three"], "20", "echo 3 > /tmp/three; sleep 1000", 124)?;
    ensure!(content("three")? == b"3\n", "after the time limit: {messages:?}");
    let messages = run(&["/tmp/four"], "300", "echo 4 > /tmp/four; echo c > /proc/sysrq-trigger", 121)?;
    ensure!(messages.contains("nothing could be collected"), "after a panic: {messages:?}");
    Ok(())
}

/// Tries the streams of a command: what it reads it writes to standard output, byte by byte, and something else to standard error.
fn try_streams(ersatz: &Path, series: &str, store: &Store, input: &Path) -> Result<()> {
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(300_000).collect();
    fs::write(input, &bytes)?;
    let output = Command::new(ersatz)
        .args(["run", "--kernel", series, "--accel", WITH_STREAMS, "--vram", "16M", "--timeout", "300"])
        .args(["--", "sh", "-c", "cat; echo apart >&2; kill -9 $$"])
        .env("ERSATZ_GUEST", store.root())
        .stdin(File::open(input)?)
        .output()
        .with_context(|| format!("cannot start {}", ersatz.display()))?;
    let (status, errors) = (output.status, String::from_utf8_lossy(&output.stderr));
    ensure!(status.code() == Some(128 + 9), "a command that kills itself ended with {status}: {errors}");
    ensure!(
        output.stdout == bytes,
        "{} of {} bytes came through a command: {errors}",
        output.stdout.len(),
        bytes.len()
    );
    ensure!(errors.lines().any(|line| line == "apart"), "a command's standard error has {errors:?}");
    Ok(())
}
