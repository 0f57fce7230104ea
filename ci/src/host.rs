// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! This machine: the Debian packages the set-up needs on it, and how to get them.

use std::env;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::log::{Log, tail};
use crate::namespace;
use crate::progress::Progress;

/// A program that must be there, and the package that has it.
struct Need {
    program: &'static str,
    package: &'static str,
    /// Whether root can do without it.
    unprivileged_only: bool,
}

const NEEDS: &[Need] = &[
    Need { program: "mmdebstrap", package: "mmdebstrap", unprivileged_only: false },
    Need { program: "unshare", package: "util-linux", unprivileged_only: false },
    Need { program: "setpriv", package: "util-linux", unprivileged_only: false },
    Need { program: "mount", package: "mount", unprivileged_only: false },
    Need { program: "cc", package: "gcc", unprivileged_only: false },
    Need { program: "newuidmap", package: "uidmap", unprivileged_only: true },
];

/// Files that must be there, and the package that has them.
const NEEDED_FILES: &[(&str, &str)] = &[
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    ("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
];

/// The packages this machine lacks.
pub fn missing_packages() -> Vec<&'static str> {
    missing_by(namespace::is_root(), on_path, |file| Path::new(file).exists())
}

fn missing_by(root: bool, has_program: impl Fn(&str) -> bool, has_file: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let programs = NEEDS.iter().filter(|need| !(root && need.unprivileged_only || has_program(need.program)));
    let files = NEEDED_FILES.iter().filter(|(file, _)| !has_file(file));
    let mut packages: Vec<_> = programs.map(|need| need.package).chain(files.map(|(_, package)| *package)).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Whether a program is where the shell would find it; also where only root's shell looks.
fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|folder| folder.join(program).is_file())
}

/// How packages can be installed by this user.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Root,
    Sudo,
    /// Only by another user.
    Ask,
}

/// Installs the packages this machine lacks: as root, or by sudo after saying so.
pub fn install_packages(progress: &Progress, log: &Path) -> Result<()> {
    let packages = missing_packages();
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    let install = format!("apt-get install --no-install-recommends {names}");
    let by_hand = format!("apt-get update && {install}");
    if !on_path("apt-get") {
        bail!("this machine lacks {names} and has no apt-get: install these by its own means, then run this again");
    }
    let sudo: &[&str] = match way(namespace::is_root(), on_path("sudo"), can_sudo) {
        Way::Root => &[],
        Way::Sudo => {
            progress.say(&format!("Debian packages: installing by sudo: {install}"));
            &["sudo"]
        }
        Way::Ask => bail!("some Debian packages are missing; as root, type: {by_hand}"),
    };
    let stage = progress.stage("Debian packages");
    stage.at(&names);
    let log = Log::start(log)?;
    let apt_get = |arguments: &[&str]| {
        let words = [sudo, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"], arguments].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    };
    let arguments = [&["install", "--no-install-recommends"], packages.as_slice()].concat();
    // A fresh machine has no package lists, and one that slept long has outdated ones.
    let installed = log.run("apt-get install", &mut apt_get(&arguments)).or_else(|_| {
        log.run("apt-get update", &mut apt_get(&["update"]))?;
        log.run("apt-get install", &mut apt_get(&arguments))
    });
    installed
        .with_context(|| format!("Debian packages:\n{}  what to do: as root, type: {by_hand}", tail(log.path())))?;
    stage.done();
    Ok(())
}

fn way(root: bool, has_sudo: bool, can_sudo: impl Fn() -> bool) -> Way {
    match (root, has_sudo) {
        (true, _) => Way::Root,
        (false, true) if can_sudo() => Way::Sudo,
        _ => Way::Ask,
    }
}

/// Whether sudo would work: without a password, or with a terminal to type it on.
fn can_sudo() -> bool {
    let silent = Command::new("sudo").args(["-n", "true"]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    if silent.is_ok_and(|status| status.success()) {
        return true;
    }
    if !std::io::stdin().is_terminal() {
        return false;
    }
    let _ = writeln!(std::io::stderr(), "Some Debian packages are missing; sudo may ask for your password.");
    Command::new("sudo").arg("-v").status().is_ok_and(|status| status.success())
}

/// The Debian mirror to use: `$ERSATZ_MIRROR`, else the one this machine's apt uses; none for mmdebstrap's own default.
pub fn mirror() -> Result<Option<String>> {
    if let Some(mirror) = env::var_os("ERSATZ_MIRROR").filter(|mirror| !mirror.is_empty()) {
        let mirror = mirror.into_string().ok().context("ERSATZ_MIRROR is not text")?;
        return Ok(Some(mirror));
    }
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"])
        .stdin(Stdio::null())
        .output();
    Ok(targets.ok().and_then(|output| debian_mirror(&String::from_utf8_lossy(&output.stdout))))
}

/// The first mirror of Debian itself in a list of `label|address` lines.
fn debian_mirror(targets: &str) -> Option<String> {
    let mut mirrors = targets.lines().filter_map(|line| line.split_once('|'));
    mirrors.find(|(label, _)| *label == "Debian").map(|(_, address)| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_named_once() {
        assert!(missing_by(false, |_| true, |_| true).is_empty());
        assert_eq!(missing_by(true, |_| false, |_| true), ["gcc", "mmdebstrap", "mount", "util-linux"]);
        assert!(missing_by(false, |_| false, |_| true).contains(&"uidmap"));
        assert_eq!(missing_by(false, |_| true, |file| !file.ends_with(".a")), ["libc6-dev"]);
    }

    #[test]
    fn packages_are_installed_the_way_that_is_open() {
        assert_eq!(way(true, false, || false), Way::Root);
        assert_eq!(way(false, true, || true), Way::Sudo);
        assert_eq!(way(false, true, || false), Way::Ask);
        assert_eq!(way(false, false, || true), Way::Ask);
    }

    #[test]
    fn the_mirror_is_one_of_debian_itself() {
        let targets = "Other|http://other.example/\nDebian-Security|http://a.example/security/\n\
            Debian|http://b.example/debian/\nDebian|http://c.example/debian/\n";
        assert_eq!(debian_mirror(targets).as_deref(), Some("http://b.example/debian/"));
        assert_eq!(debian_mirror("|http://unlabelled.example/\n"), None);
    }
}
