// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The advices of madvise(2), by name and number.

/// An advice of madvise(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    name: &'static str,
    number: i32,
}

const fn advice(name: &'static str, number: i32) -> Advice {
    Advice { name, number }
}

/// All advices of Linux 7.3 (`asm-generic/mman-common.h`).
pub const ALL: &[Advice] = &[
    advice("normal", 0),
    advice("random", 1),
    advice("sequential", 2),
    advice("willneed", 3),
    advice("dontneed", 4),
    advice("free", 8),
    advice("remove", 9),
    advice("dontfork", 10),
    advice("dofork", 11),
    advice("mergeable", 12),
    advice("unmergeable", 13),
    advice("hugepage", 14),
    advice("nohugepage", 15),
    advice("dontdump", 16),
    advice("dodump", 17),
    advice("wipeonfork", 18),
    advice("keeponfork", 19),
    advice("cold", 20),
    advice("pageout", 21),
    advice("populate-read", 22),
    advice("populate-write", 23),
    advice("dontneed-locked", 24),
    advice("collapse", 25),
    advice("hwpoison", 100),
    advice("soft-offline", 101),
    advice("guard-install", 102),
    advice("guard-remove", 103),
];

impl Advice {
    /// The advice of a name, lower case and with hyphens: `MADV_DONTNEED` is `dontneed`.
    pub fn parse(name: &str) -> Option<Self> {
        ALL.iter().copied().find(|advice| advice.name == name)
    }

    /// The name.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The number that madvise(2) takes.
    pub const fn number(self) -> i32 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_each_others() {
        for advice in ALL {
            assert_eq!(Advice::parse(advice.name()), Some(*advice));
            assert_eq!(ALL.iter().filter(|other| other.number() == advice.number()).count(), 1, "{}", advice.name());
        }
        assert_eq!(Advice::parse("MADV_DONTNEED"), None);
    }
}
