// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What memory holds, told shortly.

use ersatz_scenario::report::{Content, PageContent, Run};

/// Runs of pages that are told in full.
pub const RUNS: usize = 20;

/// Takes pages one after the other.
#[derive(Debug, Default)]
pub struct Reader(Content);

impl Reader {
    /// Takes a page.
    pub fn page(&mut self, bytes: &[u8]) {
        self.0.digest = crc32c::crc32c_append(self.0.digest, bytes);
        let first = bytes.first().copied().unwrap_or_default();
        let uniform = bytes.iter().all(|&byte| byte == first);
        self.push(if uniform { PageContent::Byte(first) } else { PageContent::Digest(crc32c::crc32c(bytes)) });
    }

    fn push(&mut self, content: PageContent) {
        let count = self.0.runs.len();
        match self.0.runs.last_mut() {
            _ if self.0.more != 0 => self.0.more += 1,
            Some(run) if run.content == content => run.pages += 1,
            _ if count == RUNS => self.0.more = 1,
            _ => self.0.runs.push(Run { pages: 1, content }),
        }
    }

    /// What all of them hold.
    pub fn finish(self) -> Content {
        self.0
    }
}

/// The first page in which two contents differ, and what it holds in each; `None` if only the digests tell that they do.
pub fn first_difference(one: &Content, other: &Content) -> Option<(u32, PageContent, PageContent)> {
    let pages = |content: &Content| {
        let runs = content.runs.clone();
        runs.into_iter().flat_map(|run| std::iter::repeat_n(run.content, run.pages as usize))
    };
    let mut pairs = (0..).zip(pages(one).zip(pages(other)));
    pairs.find(|(_, (one, other))| one != other).map(|(index, (one, other))| (index, one, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pages: &[u8]) -> Content {
        let mut reader = Reader::default();
        pages.iter().for_each(|&byte| reader.page(&[byte; 4096]));
        reader.finish()
    }

    #[test]
    fn equal_pages_are_one_run() {
        let content = read(&[7, 7, 0]);
        let run = |pages, byte| Run { pages, content: PageContent::Byte(byte) };
        assert_eq!((content.runs, content.more), (vec![run(2, 7), run(1, 0)], 0));
        let many: Vec<u8> = (0..=255).collect();
        assert_eq!((read(&many).runs.len(), read(&many).more), (RUNS, 256 - RUNS as u32));
        assert_ne!(read(&[1, 2]).digest, read(&[2, 1]).digest);
    }

    #[test]
    fn the_first_difference_is_found() {
        let differs = first_difference(&read(&[7, 7, 7]), &read(&[7, 7, 0]));
        assert_eq!(differs, Some((2, PageContent::Byte(7), PageContent::Byte(0))));
        assert_eq!(first_difference(&read(&[7]), &read(&[7])), None);
    }
}
