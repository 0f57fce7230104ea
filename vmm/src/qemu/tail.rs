// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of a stream, for the message when something went wrong.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::threads::{Role, spawn};

/// Bytes kept.
const LIMIT: usize = 64 << 10;

/// Collects the end of a stream on a thread of its own.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// The stream has ended: nothing more will come.
    ended: bool,
}

impl Tail {
    /// Reads a stream to its end, on a thread that ends with it.
    ///
    /// # Errors
    ///
    /// Fails if there is no thread left.
    pub fn follow(mut stream: impl Read + Send + 'static) -> io::Result<Self> {
        let tail = Self::default();
        let writer = tail.clone();
        spawn(Role::Tail, move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                writer.push(&buffer[..length]);
            }
            writer.kept().ended = true;
            writer.0.ended.notify_all();
        })?;
        Ok(tail)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: &[u8]) {
        let kept = &mut self.kept().bytes;
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(LIMIT);
        kept.drain(..surplus);
    }

    /// Waits until a followed stream has ended, for the time given at most: another process may still have it open.
    pub fn wait_for_end(&self, limit: Duration) {
        let waited = self.0.ended.wait_timeout_while(self.kept(), limit, |kept| !kept.ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns all that is kept, as lines without control characters.
    pub fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.kept().bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(|line| line.chars().filter(|c| !c.is_control()).collect()).collect()
    }

    /// Returns the last `count` lines that are not empty.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| !line.trim().is_empty());
        lines.split_off(lines.len().saturating_sub(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end() {
        let tail = Tail::default();
        for i in 0..20_000 {
            tail.push(format!("line {i}\r\n").as_bytes());
        }
        assert!(tail.kept().bytes.len() <= LIMIT);
        assert_eq!(tail.last_lines(2), ["line 19998", "line 19999"]);
    }

    #[test]
    fn a_stream_that_ended_is_complete() {
        let tail = Tail::follow(&b"the last words\n"[..]).unwrap();
        tail.wait_for_end(Duration::from_secs(60));
        assert_eq!(tail.last_lines(1), ["the last words"]);
    }

    #[test]
    fn fewer_lines_than_asked_for_are_all_there_are() {
        let tail = Tail::default();
        assert_eq!(tail.last_lines(5), [""; 0]);
        tail.push(b"\n\x1b[31mone\n\n");
        assert_eq!(tail.last_lines(5), ["[31mone"]);
    }
}
