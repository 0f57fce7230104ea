// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--share DIR[:GUEST][,ro]`: a folder of this machine that a guest has, too, while it runs.
//!
//! QEMU serves it by 9p. What is beneath the folder is all that a guest can reach: QEMU resolves each name by itself and follows no
//! link. Devices it cannot make, either: QEMU has no permission to (`qemu/process.rs`).

use std::fs;
use std::path::{Path, PathBuf};

use ersatz_guest_image::share::{self, Share};

use crate::bring::addition::checked_guest;

/// What to type.
const USAGE: &str = "type --share DIR, --share DIR:GUEST or --share DIR:GUEST,ro";

/// Most folders of a guest: the functions of a PCI slot that are free for them.
pub const MAX_SHARES: usize = 6;

/// A folder that a guest shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedFolder {
    /// The folder, absolute.
    pub host: PathBuf,
    /// Where the guest mounts it, absolute.
    guest: String,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

impl SharedFolder {
    /// Reads `DIR[:GUEST][,ro]`. A text that is the path of a folder is all DIR.
    ///
    /// # Errors
    ///
    /// Fails if DIR is no folder, or the guest cannot have it at GUEST.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rest, read_only) = match text.strip_suffix(",ro") {
            Some(rest) if !Path::new(text).is_dir() => (rest, true),
            _ => (text, false),
        };
        let (host, guest) = match rest.rsplit_once(':') {
            Some((host, guest)) if !Path::new(rest).is_dir() => (host, Some(guest)),
            _ => (rest, None),
        };
        let host = match fs::canonicalize(host) {
            Ok(host) if host.is_dir() => host,
            Ok(_) => return Err(format!("{host:?} is not a folder; {USAGE}, or bring a file with --add")),
            Err(error) => return Err(format!("{host:?}: {error}; {USAGE}")),
        };
        let guest = match guest {
            Some(guest) => checked_guest(guest)?,
            None => {
                let name = host.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| format!("{host:?} has no name that is UTF-8; {USAGE}"))?;
                checked_guest(&format!("/{name}"))?
            }
        };
        let guest = guest.trim_end_matches('/').to_owned();
        if guest.is_empty() {
            return Err(format!("the guest's root cannot be a shared folder; name one in it, as in {rest}mnt"));
        }
        Ok(Self { host, guest, read_only })
    }
}

/// Returns how PID 1 is told of them.
///
/// # Errors
///
/// Fails if there are more than a guest can have, or two at one place.
pub fn for_guest(folders: &[SharedFolder]) -> Result<Vec<Share>, String> {
    if folders.len() > MAX_SHARES {
        return Err(format!(
            "a guest can have {MAX_SHARES} shared folders, not {}; share one that they are in",
            folders.len()
        ));
    }
    for (index, folder) in folders.iter().enumerate() {
        if folders[..index].iter().any(|other| other.guest == folder.guest) {
            return Err(format!("two shared folders are to be at {}; name another place for one", folder.guest));
        }
    }
    let share = |(number, folder): (usize, &SharedFolder)| Share {
        tag: share::tag(number),
        path: folder.guest.clone(),
        read_only: folder.read_only,
    };
    Ok(folders.iter().enumerate().map(share).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_their_places_and_may_be_read_only() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", base.path().canonicalize().unwrap().display());
        for name in ["data", "odd:name,ro"] {
            fs::create_dir(at(name)).unwrap();
        }
        for (text, host, guest, read_only) in [
            (at("data"), at("data"), "/data", false),
            (at("data/"), at("data"), "/data", false),
            (at("data,ro"), at("data"), "/data", true),
            (at("data:/mnt/x/"), at("data"), "/mnt/x", false),
            (at("data:mnt,ro"), at("data"), "/mnt", true),
            (at("odd:name,ro"), at("odd:name,ro"), "/odd:name,ro", false),
            (at("odd:name,ro:/x,ro"), at("odd:name,ro"), "/x", true),
        ] {
            let expected = SharedFolder { host: host.into(), guest: guest.to_owned(), read_only };
            assert_eq!(SharedFolder::parse(&text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_in_a_line_that_says_what_to_type() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", base.path().display());
        fs::write(at("file"), "").unwrap();
        for (text, reason) in [
            (at("none"), "--share DIR"),
            (at("file"), "not a folder"),
            (at("none:/x,ro"), "--share DIR"),
            (at(":/x/../y"), "'..'"),
            (at(":/proc"), "/proc"),
            (at(":/"), "the guest's root"),
            (at(":"), "behind the colon"),
            ("/:/tmp/x".to_owned(), "/tmp"),
            ("/".to_owned(), "--share DIR"),
        ] {
            let error = SharedFolder::parse(&text).unwrap_err();
            assert!(error.contains(reason) && error.lines().count() == 1, "{text}: {error}");
        }
        let folder = |guest: &str| SharedFolder::parse(&at(&format!(":{guest}"))).unwrap();
        assert!(for_guest(&[folder("/a"), folder("/b"), folder("/a")]).unwrap_err().contains("/a"));
        let many: Vec<SharedFolder> = (0..=MAX_SHARES).map(|number| folder(&format!("/{number}"))).collect();
        assert!(for_guest(&many).unwrap_err().contains("6 shared folders"));
        assert_eq!(for_guest(&many[..2]).unwrap()[1].path, "/1");
    }
}
