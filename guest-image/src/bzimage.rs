// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finding the compressed kernel in a bzImage.
//!
//! The layout is that of the Linux/x86 boot protocol: from version 2.08 on the set-up header says where the payload lies,
//! counted from the protected-mode code, which starts behind the set-up sectors.

use thiserror::Error;

/// Bytes of a sector of the real-mode part.
const SECTOR: usize = 512;
/// What `setup_sects` means when it is 0.
const DEFAULT_SETUP_SECTORS: usize = 4;
/// The first version of the boot protocol with a payload field.
const PAYLOAD_VERSION: u16 = 0x0208;

/// Offsets of fields in the file.
mod field {
    pub const SETUP_SECTORS: usize = 0x1f1;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const PAYLOAD_OFFSET: usize = 0x248;
    pub const PAYLOAD_LENGTH: usize = 0x24c;
}

/// Why no payload can be taken out of a file.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum BzImageError {
    /// No set-up header.
    #[error("not a bzImage: the boot protocol's 'HdrS' is not at offset {:#x}", field::MAGIC)]
    NotBzImage,
    /// The header is too old.
    #[error("a bzImage of boot protocol {0:#06x}, which does not give the place of its payload (2.08 does)")]
    TooOld(u16),
    /// The header points out of the file.
    #[error("the payload of the bzImage ({length} bytes at {offset:#x}) lies outside the file of {file} bytes")]
    Outside {
        /// Where it should start in the file.
        offset: usize,
        /// How long it should be.
        length: usize,
        /// How long the file is.
        file: usize,
    },
    /// The payload has an unknown compression.
    #[error("the payload of the bzImage starts with {0:02x?}, which is not gzip, xz or zstd")]
    UnknownCompression(Vec<u8>),
}

/// How a payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// By gzip.
    Gzip,
    /// By xz.
    Xz,
    /// By zstd.
    Zstd,
}

impl Compression {
    /// The program that undoes it, when given `-dc`.
    pub fn program(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    fn of(payload: &[u8]) -> Option<Self> {
        let magics: [(&[u8], Self); 3] =
            [(&[0x1f, 0x8b], Self::Gzip), (b"\xfd7zXZ\0", Self::Xz), (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd)];
        magics.into_iter().find_map(|(magic, kind)| payload.starts_with(magic).then_some(kind))
    }
}

/// The compressed kernel in a bzImage, and its compression. The kernel build appends the uncompressed size, four bytes,
/// to formats that do not have it; it is cut off.
///
/// # Errors
///
/// Fails if the file is not a bzImage of boot protocol 2.08 or later, or its header is not valid.
pub fn payload(image: &[u8]) -> Result<(&[u8], Compression), BzImageError> {
    if !is_bz_image(image) {
        return Err(BzImageError::NotBzImage);
    }
    let version = u16::from_le_bytes(bytes(image, field::VERSION)?);
    if version < PAYLOAD_VERSION {
        return Err(BzImageError::TooOld(version));
    }
    let sectors = match bytes::<1>(image, field::SETUP_SECTORS)? {
        [0] => DEFAULT_SETUP_SECTORS,
        [sectors] => usize::from(sectors),
    };
    let number = |at| bytes(image, at).map(|four| u32::from_le_bytes(four) as usize);
    let offset = ((sectors + 1) * SECTOR).saturating_add(number(field::PAYLOAD_OFFSET)?);
    let length = number(field::PAYLOAD_LENGTH)?;
    let payload = image.get(offset..offset.saturating_add(length)).ok_or(BzImageError::Outside {
        offset,
        length,
        file: image.len(),
    })?;
    let compression = Compression::of(payload)
        .ok_or_else(|| BzImageError::UnknownCompression(payload.iter().take(4).copied().collect()))?;
    let appended = if compression == Compression::Gzip { 0 } else { 4 };
    Ok((&payload[..payload.len().saturating_sub(appended)], compression))
}

/// Whether the bytes begin as those of a bzImage.
pub fn is_bz_image(image: &[u8]) -> bool {
    image.get(field::MAGIC..field::MAGIC + 4) == Some(b"HdrS")
}

fn bytes<const N: usize>(image: &[u8], at: usize) -> Result<[u8; N], BzImageError> {
    let slice = image.get(at..).and_then(|rest| rest.first_chunk());
    slice.copied().ok_or(BzImageError::NotBzImage)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage with one set-up sector and the payload 16 bytes into the protected-mode code.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR + 16];
        image[field::SETUP_SECTORS] = 1;
        image[field::MAGIC..field::MAGIC + 4].copy_from_slice(b"HdrS");
        image[field::VERSION..field::VERSION + 2].copy_from_slice(&0x020fu16.to_le_bytes());
        image[field::PAYLOAD_OFFSET] = 16;
        let length = u32::try_from(payload.len()).unwrap();
        image[field::PAYLOAD_LENGTH..field::PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_payload_is_found_by_the_header() {
        assert_eq!(payload(&image(b"\x1f\x8bgzip")), Ok((&b"\x1f\x8bgzip"[..], Compression::Gzip)));
        let zstd = b"\x28\xb5\x2f\xfdbody";
        assert_eq!(payload(&image(&[&zstd[..], b"size"].concat())), Ok((&zstd[..], Compression::Zstd)));
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(payload(b"\x7fELF"), Err(BzImageError::NotBzImage));
        assert_eq!(payload(&[]), Err(BzImageError::NotBzImage));
        let mut old = image(b"\x1f\x8b");
        old[field::VERSION] = 7;
        assert_eq!(payload(&old), Err(BzImageError::TooOld(0x0207)));
        assert_eq!(payload(&image(b"lzma?")), Err(BzImageError::UnknownCompression(b"lzma".to_vec())));
    }

    #[test]
    fn headers_that_point_outside_are_refused() {
        for at in [field::PAYLOAD_OFFSET, field::PAYLOAD_LENGTH] {
            let mut wild = image(b"\x1f\x8bgzip");
            wild[at..at + 4].copy_from_slice(&[0xff; 4]);
            assert!(matches!(payload(&wild), Err(BzImageError::Outside { .. })));
        }
        let whole = image(b"\x1f\x8bgzip");
        for length in 0..whole.len() {
            assert!(payload(&whole[..length]).is_err(), "{length}");
        }
    }
}
