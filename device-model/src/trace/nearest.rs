// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a mistyped name was meant to be.

/// Returns the name that takes the fewest edits (a character inserted, removed or replaced) to come to, the first of several; an
/// empty text if there are no names.
pub(crate) fn nearest(typed: &str, names: impl IntoIterator<Item = &'static str>) -> &'static str {
    // A name that is typed in full but for its end or its beginning is nearer than a short one of other letters.
    let is_part = |name: &str| !typed.is_empty() && name.contains(typed);
    names.into_iter().min_by_key(|name| (!is_part(name), edits(typed, name))).unwrap_or_default()
}

/// The number of edits between two texts, of which no more than the first 64 bytes count.
fn edits(from: &str, to: &str) -> usize {
    let (from, to) = (bytes(from), bytes(to));
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, wanted) in (1..).zip(from) {
        let mut left = row;
        let mut current = vec![left];
        for (byte, pair) in to.iter().zip(above.windows(2)) {
            left = (left + 1).min(pair[1] + 1).min(pair[0] + usize::from(byte != wanted));
            current.push(left);
        }
        above = current;
    }
    above.last().copied().unwrap_or(0)
}

fn bytes(text: &str) -> &[u8] {
    let bytes = text.as_bytes();
    bytes.get(..64).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mistyped_name_leads_to_the_one_that_was_meant() {
        const NAMES: [&str; 4] = ["fence", "copy", "interrupt", "before-fence"];
        for (typed, meant) in
            [("fense", "fence"), ("cpoy", "copy"), ("interupt", "interrupt"), ("before", "before-fence")]
        {
            assert_eq!(nearest(typed, NAMES), meant);
        }
        assert_eq!((nearest("", NAMES), nearest("x", [])), ("copy", ""));
    }

    proptest! {
        #[test]
        fn edits_are_a_distance(a in "\\PC{0,20}", b in "\\PC{0,20}", c in "\\PC{0,20}") {
            prop_assert_eq!(edits(&a, &a), 0);
            prop_assert_eq!(edits(&a, &b), edits(&b, &a));
            prop_assert!(edits(&a, &c) <= edits(&a, &b) + edits(&b, &c));
        }
    }
}
