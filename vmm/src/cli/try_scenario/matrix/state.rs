// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rows of the matrix: what a range of memory is when a call comes.

use ersatz_uapi::MemoryType;

/// A state of the range `r`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Its name.
    pub name: &'static str,
    /// What the range is.
    pub title: &'static str,
    /// How large the range is.
    pub size: Size,
    /// The memory type that the state exists with; `None` for either.
    pub memory: Option<MemoryType>,
    /// The steps that lead to it.
    pub setup: &'static [&'static str],
    /// The migration that is held while the call comes, if one is.
    pub held: Option<&'static str>,
    /// Whether a forked process, `sharer`, has the range, too.
    pub shared: bool,
    /// Reads after the call, in place of the usual one of all of the range.
    pub reads: &'static [&'static str],
}

/// The size of a state's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 64 KiB: pages of 4 KiB, or one folio of 64 KiB.
    Small,
    /// 2 MiB.
    Huge,
}

/// A range of small pages on the device, and nothing more.
const SMALL: State = State {
    name: "small",
    title: "4 KiB pages on the device",
    size: Size::Small,
    memory: None,
    setup: &["map r 64K nohuge", "fill r 7", "migrate r to-device all", "expect r device"],
    held: None,
    shared: false,
    reads: &["read r"],
};

/// A huge page on the device. Coherent memory goes there in small pages.
const HUGE: State = State {
    name: "huge",
    title: "a 2 MiB page on the device",
    size: Size::Huge,
    setup: &["map r 2M huge", "fill r 7", "migrate r to-device all", "expect r device"],
    ..SMALL
};

const SOFT_DIRTY_READS: &[&str] = &["pagemap r soft-dirty", "read r"];
const UFFD_READS: &[&str] = &["pagemap r uffd-wp", "read r"];

/// All states.
pub const STATES: &[State] = &[
    SMALL,
    State {
        name: "half",
        title: "4 KiB pages, half of them on the device",
        setup: &["map r 64K nohuge", "fill r 7", "migrate r[0..8] to-device all", "expect r[0..8] device"],
        ..SMALL
    },
    State {
        name: "never-written",
        title: "holes and zero pages that migrate as the driver likes",
        setup: &["map r 64K nohuge", "write r[0..4] 7", "touch r[4..8]", "migrate r to-device"],
        ..SMALL
    },
    State {
        name: "mthp",
        title: "a 64 KiB folio of system memory that has gone to the device",
        setup: &[
            "set transparent_hugepage/hugepages-64kB/enabled always",
            "map r 64K",
            "fill r 7",
            "migrate r to-device all",
            "expect r device",
        ],
        ..SMALL
    },
    HUGE,
    State {
        name: "split",
        title: "a 2 MiB page on the device, mapped in 4 KiB pages since",
        setup: &[
            "map r 2M huge",
            "fill r 7",
            "migrate r to-device all",
            "mprotect r[0..1M] r",
            "mprotect r[0..1M] rw",
            "expect r device",
        ],
        ..HUGE
    },
    State {
        name: "huge-half",
        title: "a 2 MiB page on the device, half of it moved back since",
        setup: &["map r 2M huge", "fill r 7", "migrate r to-device all", "migrate r[0..1M] to-system all"],
        ..HUGE
    },
    State {
        name: "read-only",
        title: "4 KiB pages on the device, mapped read-only",
        setup: &["map r 64K nohuge", "fill r 7", "migrate r to-device all", "mprotect r r", "expect r device"],
        ..SMALL
    },
    State {
        name: "huge-read-only",
        title: "a 2 MiB page on the device, mapped read-only",
        setup: &["map r 2M huge", "fill r 7", "migrate r to-device all", "mprotect r r", "expect r device"],
        ..HUGE
    },
    State {
        name: "forked",
        title: "4 KiB pages on the device that two processes share since a fork",
        setup: &["map r 64K nohuge", "fill r 7", "migrate r to-device all", "expect r device", "fork sharer"],
        shared: true,
        ..SMALL
    },
    State {
        name: "huge-forked",
        title: "a 2 MiB page on the device that two processes share since a fork",
        setup: &["map r 2M huge", "fill r 7", "migrate r to-device all", "expect r device", "fork sharer"],
        shared: true,
        ..HUGE
    },
    State {
        name: "uffd-wp",
        title: "4 KiB pages on the device, write-protected by userfaultfd",
        setup: &[
            "map r 64K nohuge",
            "fill r 7",
            "uffd register r wp-async",
            "uffd protect r",
            "migrate r to-device all",
            "expect r device",
        ],
        reads: UFFD_READS,
        ..SMALL
    },
    State {
        name: "huge-uffd-wp",
        title: "a 2 MiB page on the device, write-protected by userfaultfd",
        setup: &[
            "map r 2M huge",
            "fill r 7",
            "uffd register r wp-async",
            "uffd protect r",
            "migrate r to-device all",
            "expect r device",
        ],
        reads: UFFD_READS,
        ..HUGE
    },
    State {
        name: "soft-dirty",
        title: "4 KiB pages on the device, half of them written since the soft-dirty bits were cleared",
        setup: &[
            "map r 64K nohuge",
            "fill r 7",
            "clear-soft-dirty",
            "write r[0..8] 8",
            "migrate r to-device all",
            "expect r device",
        ],
        reads: SOFT_DIRTY_READS,
        ..SMALL
    },
    State {
        name: "huge-soft-dirty",
        title: "a 2 MiB page on the device, written since the soft-dirty bits were cleared",
        setup: &[
            "map r 2M huge",
            "fill r 7",
            "clear-soft-dirty",
            "write r 8",
            "migrate r to-device all",
            "expect r device",
        ],
        reads: SOFT_DIRTY_READS,
        ..HUGE
    },
    State {
        name: "exclusive",
        title: "4 KiB pages of system memory that the device alone may access, half of them on the device before",
        setup: &["map r 64K nohuge", "fill r 7", "migrate r[0..8] to-device all", "exclusive r"],
        ..SMALL
    },
    State {
        name: "mlocked",
        title: "4 KiB pages on the device, locked by mlock",
        setup: &["map r 64K nohuge", "fill r 7", "mlock r", "migrate r to-device all", "expect r device"],
        ..SMALL
    },
    State {
        name: "huge-mlocked",
        title: "a 2 MiB page on the device, locked by mlock",
        setup: &["map r 2M huge", "fill r 7", "mlock r", "migrate r to-device all", "expect r device"],
        ..HUGE
    },
    State {
        name: "ksm",
        title: "pages that ksmd has merged, and that a migration leaves where they are",
        setup: &["map r 64K nohuge", "fill r 7", "ksm merge r", "migrate r to-device", "expect r system"],
        ..SMALL
    },
    State {
        name: "swapped",
        title: "4 KiB pages, half of them swapped out and half on the device",
        setup: &["map r 64K nohuge", "fill r 7", "swap-out r[8..16]", "migrate r to-device", "expect r[0..8] device"],
        ..SMALL
    },
    State {
        name: "poisoned",
        title: "4 KiB pages on the device, one of which was declared broken",
        setup: &["map r 64K nohuge", "fill r 7", "migrate r to-device all", "madvise r[12] hwpoison"],
        reads: &["read r[0..12]", "read r[12]", "read r[13..16]"],
        ..SMALL
    },
    State {
        name: "moving-out",
        title: "4 KiB pages on their way to the device, held",
        setup: &["map r 64K nohuge", "fill r 7"],
        held: Some("migrate r to-device"),
        ..SMALL
    },
    State {
        name: "moving-back",
        title: "4 KiB pages on their way back from the device, held",
        held: Some("migrate r to-system"),
        ..SMALL
    },
    State {
        name: "huge-moving-out",
        title: "a 2 MiB page on its way to the device, held",
        setup: &["map r 2M huge", "fill r 7"],
        held: Some("migrate r to-device"),
        ..HUGE
    },
    State {
        name: "huge-moving-back",
        title: "a 2 MiB page on its way back from the device, held",
        held: Some("migrate r to-system"),
        ..HUGE
    },
];
