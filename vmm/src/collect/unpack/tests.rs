// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Archives of guests that mean well, and of others.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use cpio::newc::{Builder, trailer};
use ersatz_guest_image::collect::Packer;
use proptest::prelude::*;

use super::*;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// A folder with a place for what is collected in it, and something beside that nobody may touch.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/file"), "theirs").unwrap();
        fs::create_dir(folder.path().join("place")).unwrap();
        Self(folder)
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn target(&self, guest: &str, host: &str) -> Target {
        Target::parse(&format!("{guest}:{}", self.at(host).display())).unwrap()
    }

    /// Panics unless all that is there is in the place, but for what was there before.
    fn check(&self) {
        assert_eq!(fs::read(self.at("outside/file")).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(self.at("outside")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 2);
        // Every link that was made leads to something beneath the place, or to nothing.
        let place = self.at("place").canonicalize().unwrap();
        for entry in all_below(&place) {
            if let Ok(real) = entry.canonicalize() {
                assert!(real.starts_with(&place), "{} leads to {}", entry.display(), real.display());
            }
            let kind = fs::symlink_metadata(&entry).unwrap().file_type();
            assert!(kind.is_file() || kind.is_dir() || kind.is_symlink(), "{}", entry.display());
        }
    }
}

fn all_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(all_below(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

fn archive(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, mode, content) in entries {
        let mut writer = Builder::new(name).mode(*mode).write(&mut bytes, u32::try_from(content.len()).unwrap());
        writer.write_all(content).unwrap();
        writer.finish().unwrap();
    }
    trailer(bytes).unwrap()
}

fn unpacked(ground: &Ground, entries: &[(&str, u32, &[u8])]) -> Report {
    let report = unpack(&[ground.target("/x", "place")], &mut archive(entries).as_slice());
    ground.check();
    report
}

#[test]
fn what_was_packed_is_put_in_its_places() {
    let ground = Ground::new();
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| source.path().join(name);
    fs::create_dir_all(at("tree/deep")).unwrap();
    fs::write(at("tree/deep/data"), vec![7; 3 * PIECE + 1]).unwrap();
    fs::write(at("tree/run"), "#!/bin/sh").unwrap();
    fs::set_permissions(at("tree/run"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("../run", at("tree/deep/link")).unwrap();
    symlink("/etc/passwd", at("tree/out")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("tree/socket")).unwrap();
    fs::write(at("single"), "one").unwrap();
    let mut packer = Packer::new(Vec::new());
    for (index, path) in [at("tree"), at("single"), at("none"), at("single")].iter().enumerate() {
        packer.add(index, path).unwrap();
    }
    let bytes = packer.finish().unwrap();
    let targets = [
        ground.target("/tree", "place"),
        ground.target("/single", "place/renamed"),
        ground.target("/none", "place/none"),
        ground.target("/single", "place/new/"),
    ];
    // The second time over what is there.
    for _ in 0..2 {
        let report = unpack(&targets, &mut bytes.as_slice());
        assert!(report.has_failed());
        let mut lines = report.lines();
        lines.sort();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("cannot collect /none: No such file"), "{lines:?}");
        assert!(lines[1].starts_with("left out /tree/out: a link to /etc/passwd"), "{lines:?}");
        assert!(lines[2].starts_with("left out /tree/socket: a socket"), "{lines:?}");
    }
    assert_eq!(fs::read(ground.at("place/deep/data")).unwrap(), vec![7; 3 * PIECE + 1]);
    assert_eq!(fs::read_link(ground.at("place/deep/link")).unwrap(), Path::new("../run"));
    let mode = |name: &str| fs::metadata(ground.at(name)).unwrap().permissions().mode();
    assert_eq!(mode("place/run") & 0o7100, 0o100, "a program, and no more than that");
    assert_eq!(mode("place/deep/data") & 0o111, 0);
    assert_eq!(fs::read(ground.at("place/renamed")).unwrap(), b"one");
    assert_eq!(fs::read(ground.at("place/new/single")).unwrap(), b"one");
    ground.check();
}

#[test]
fn a_file_is_put_into_a_folder_and_a_folder_never_over_a_file() {
    let ground = Ground::new();
    let file = archive(&[("files/0", FILE, b"new")]);
    let report = unpack(&[ground.target("/tmp/log", "place")], &mut file.as_slice());
    assert_eq!((report.has_failed(), fs::read(ground.at("place/log")).unwrap().as_slice()), (false, &b"new"[..]));
    let tree = archive(&[("files/0", DIRECTORY, b""), ("files/0/x", FILE, b"")]);
    let report = unpack(&[ground.target("/tree", "place/log")], &mut tree.as_slice());
    assert!(report.has_failed() && report.lines().len() == 1, "{report:?}");
    assert_eq!(fs::read(ground.at("place/log")).unwrap(), b"new");
}

#[test]
fn names_that_lead_elsewhere_reach_nothing() {
    let ground = Ground::new();
    for name in ["../outside/new", "a/../../outside/new", "/etc/new", "..", ".", "a/./b", "", "/"] {
        let report = unpacked(&ground, &[("files/0", DIRECTORY, b""), (&format!("files/0/{name}"), FILE, b"x")]);
        assert!(report.has_failed(), "{name:?}");
    }
    for name in ["files/1", "files/-1", "files/99999999999999999999", "files", "other/0", "failed/0/x", "/files/0", ""]
    {
        let report = unpacked(&ground, &[(name, FILE, b"x")]);
        assert!(report.has_failed() && report.lines().len() == 1, "{name:?}: {report:?}");
    }
    assert_eq!(fs::read_dir(ground.at("place")).unwrap().count(), 0);
}

#[test]
fn links_lead_nothing_outside() {
    let ground = Ground::new();
    let outside = ground.at("outside");
    // Left by someone before.
    symlink(&outside, ground.at("place/old")).unwrap();
    fs::remove_file(ground.at("place/old")).unwrap();
    let report = unpacked(
        &ground,
        &[
            ("files/0", DIRECTORY, b""),
            ("files/0/a", LINK, outside.as_os_str().as_encoded_bytes()),
            ("files/0/a/new", FILE, b"x"),
            ("files/0/b", LINK, b"../outside"),
            ("files/0/b/new", FILE, b"x"),
            ("files/0/d", DIRECTORY, b""),
            ("files/0/d/up", LINK, b".."),
            // By the link that is inside it would lead out.
            ("files/0/d/chain", LINK, b"up/../outside"),
            ("files/0/d/up/deeper", LINK, b"../outside"),
            ("files/0/d/up/new", FILE, b"x"),
        ],
    );
    assert!(report.has_failed());
    assert!(fs::symlink_metadata(ground.at("place/d/chain")).is_err());
    assert_eq!(fs::read_link(ground.at("place/d/up")).unwrap(), Path::new(".."));
    assert!(!ground.at("place/new").exists(), "a link on the way was followed");
}

#[test]
fn devices_and_pipes_are_left_out() {
    let ground = Ground::new();
    for kind in [0o020_666, 0o060_666, 0o010_666, 0o140_666, 0o000_666, 0o170_666] {
        let report = unpacked(&ground, &[("files/0", DIRECTORY, b""), ("files/0/node", kind, b"content")]);
        assert!(!report.has_failed() && report.lines().len() == 1, "{report:?}");
        assert!(unpacked(&ground, &[("files/0", kind, b"")]).has_failed());
    }
    assert_eq!(fs::read_dir(ground.at("place")).unwrap().count(), 0);
}

#[test]
fn an_archive_that_ends_early_leaves_no_part_of_a_file_and_is_said_so() {
    let ground = Ground::new();
    let whole = archive(&[("files/0", DIRECTORY, b""), ("files/0/file", FILE, &[1; 1000])]);
    for length in 0..whole.len() - 1 {
        let report = unpack(&[ground.target("/x", "place")], &mut &whole[..length]);
        assert!(report.has_failed() && report.lines().len() == 1, "{length}: {report:?}");
        if let Ok(content) = fs::read(ground.at("place/file")) {
            assert_eq!(content, [1; 1000], "{length}");
            fs::remove_file(ground.at("place/file")).unwrap();
        }
    }
    let nothing = unpack(&[ground.target("/x", "place")], &mut &b""[..]);
    assert!(nothing.lines()[0].contains("nothing could be collected"), "{nothing:?}");
}

#[test]
fn claims_of_lengths_are_not_believed() {
    let ground = Ground::new();
    let good = archive(&[("files/0", DIRECTORY, b""), ("files/0/link", LINK, b"x")]);
    let second = archive(&[("files/0", DIRECTORY, b"")]).len() - archive(&[]).len();
    for (at, digits) in [(NAME_LENGTH.start, "ffffffff"), (NAME_LENGTH.start, "xyzxyzxy"), (54, "ffffffff")] {
        let mut bytes = good.clone();
        bytes[second + at..second + at + 8].copy_from_slice(digits.as_bytes());
        let report = unpack(&[ground.target("/x", "place")], &mut bytes.as_slice().chain(io::repeat(b'0')));
        assert!(report.has_failed() && report.lines().len() == 1, "{report:?}");
    }
    ground.check();
}

/// Pieces of names, among them all that lead elsewhere.
fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        Just("outside".to_owned()),
        Just("place".to_owned()),
        "[abc]",
        "\\PC{0,4}",
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_archive_reaches_anything_outside(
        entries in prop::collection::vec(
            (name(), prop::sample::select(vec![DIRECTORY, FILE, LINK, LINK, 0o020_666, 0o060_644]), name()), 0..12),
    ) {
        let ground = Ground::new();
        let entries: Vec<(String, u32, String)> =
            entries.into_iter().map(|(name, mode, content)| (format!("files/0/{name}"), mode, content)).collect();
        let mut all: Vec<(&str, u32, &[u8])> = vec![("files/0", DIRECTORY, b"")];
        all.extend(entries.iter().map(|(name, mode, content)| (name.as_str(), *mode, content.as_bytes())));
        unpacked(&ground, &all);
    }

    #[test]
    fn nonsense_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000), at in 0_usize..600, other in any::<u8>()) {
        let ground = Ground::new();
        let _ = unpack(&[ground.target("/x", "place")], &mut bytes.as_slice());
        let mut good = archive(&[("files/0", DIRECTORY, b""), ("files/0/a", FILE, b"content"), ("files/0/l", LINK, b"a")]);
        let index = at % good.len();
        good[index] = other;
        let _ = unpack(&[ground.target("/x", "place")], &mut good.as_slice());
        ground.check();
    }

    #[test]
    fn plain_trees_arrive_as_they_are(files in prop::collection::btree_map("[a-c]{1,3}", prop::collection::vec(any::<u8>(), 0..300), 0..6)) {
        let ground = Ground::new();
        let names: Vec<(String, Vec<u8>)> = files.iter().map(|(name, content)| (format!("files/0/{name}"), content.clone())).collect();
        let mut all: Vec<(&str, u32, &[u8])> = vec![("files/0", DIRECTORY, b"")];
        all.extend(names.iter().map(|(name, content)| (name.as_str(), FILE, content.as_slice())));
        let report = unpacked(&ground, &all);
        prop_assert!(!report.has_failed());
        let arrived: BTreeMap<String, Vec<u8>> = all_below(&ground.at("place"))
            .into_iter()
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
            .collect();
        prop_assert_eq!(arrived, files);
    }
}
