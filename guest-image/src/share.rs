// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Folders of the host that a guest mounts: how the host tells PID 1 of them.

/// Where PID 1 looks for the folders to mount, as [`encode`] writes them.
pub const SHARES_PATH: &str = "/ersatz/shares";

/// The modules that 9p over virtio needs, unless they are built in.
pub const SHARE_MODULES: &[&str] = &["9pnet_virtio", "9p"];

/// A folder that is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The tag by which the guest finds it.
    pub tag: String,
    /// The absolute path at which the guest mounts it.
    pub path: String,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// Returns the tag of a share, by its number.
pub fn tag(number: usize) -> String {
    format!("ersatz{number}")
}

/// Returns the content of [`SHARES_PATH`]: of each share tag, path, and `ro` or `rw`, all NUL-terminated.
pub fn encode(shares: &[Share]) -> Vec<u8> {
    let words =
        |share: &Share| format!("{}\0{}\0{}\0", share.tag, share.path, if share.read_only { "ro" } else { "rw" });
    shares.iter().map(words).collect::<String>().into_bytes()
}

/// Reads that; `None` if it is something else.
pub fn decode(bytes: &[u8]) -> Option<Vec<Share>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let words: Vec<&str> = text.split_terminator('\0').collect();
    let share = |words: &[&str]| match words {
        [tag, path, access @ ("ro" | "rw")] if path.starts_with('/') => {
            Some(Share { tag: (*tag).to_owned(), path: (*path).to_owned(), read_only: *access == "ro" })
        }
        _ => None,
    };
    words.chunks(3).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let share = |number, path: &str, read_only| Share { tag: tag(number), path: path.to_owned(), read_only };
        let shares = vec![share(0, "/my data", false), share(1, "/b", true)];
        assert_eq!(decode(&encode(&shares)), Some(shares));
        assert_eq!(decode(b""), Some(Vec::new()));
    }

    #[test]
    fn something_else_is_refused() {
        for bytes in [&b"x"[..], b"x\0/y\0", b"x\0y\0ro\0", b"x\0/y\0no\0", b"x\0/y\0ro\0z\0", b"\xff\0/y\0ro\0"] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
