// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults of the kernel that cells of the matrix are known to show, each with its entry in `docs/matrix.md`.

use ersatz_scenario::Symptom;
use ersatz_uapi::MemoryType;

/// A fault, and the cells that show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The entry.
    pub entry: &'static str,
    /// What happens, in a line.
    pub what: &'static str,
    /// The memory type that shows it; `None` for either.
    pub memory: Option<MemoryType>,
    /// The states and calls of the cells, by their names.
    pub states: &'static [&'static str],
    /// See `states`.
    pub calls: &'static [&'static str],
    /// What is seen: one of these is enough.
    pub symptoms: &'static [Symptom],
    /// The kernels that have it, as series; empty for all.
    pub kernels: &'static [&'static str],
}

/// The fault that a cell is known to show.
pub fn find(state: &str, call: &str, memory: MemoryType) -> Option<&'static Known> {
    KNOWN.iter().find(|known| {
        known.states.contains(&state) && known.calls.contains(&call) && known.memory.is_none_or(|of| of == memory)
    })
}

/// All of them: cells in which they have been seen, and no others.
pub const KNOWN: &[Known] = &[
    Known {
        entry: "A12",
        what: "pages on the device stay writable when soft-dirty bits are cleared, so that a write does not set them",
        memory: Some(MemoryType::Private),
        states: &["small", "half", "mlocked", "soft-dirty"],
        calls: &["soft-dirty"],
        symptoms: &[Symptom::Content],
        kernels: &[],
    },
    Known {
        entry: "A12",
        what: "mprotect drops the soft-dirty bit of private 2 MiB pages",
        memory: Some(MemoryType::Private),
        states: &["huge-soft-dirty"],
        calls: &["mprotect-none", "mprotect-ro", "mprotect-half"],
        symptoms: &[Symptom::Content],
        kernels: &[],
    },
    Known {
        entry: "A12",
        what: "clearing the soft-dirty bits passes over private 2 MiB pages",
        memory: Some(MemoryType::Private),
        states: &["huge"],
        calls: &["clear-soft-dirty"],
        symptoms: &[Symptom::Content],
        kernels: &[],
    },
    Known {
        entry: "A14",
        what: "the zap of a private 2 MiB page that is on its way back drops it twice",
        memory: Some(MemoryType::Private),
        states: &["huge-moving-back"],
        calls: &["dontneed"],
        symptoms: &[Symptom::Hang, Symptom::KernelBug],
        kernels: &[],
    },
    Known {
        entry: "D7",
        what: "UFFDIO_MOVE of private pages fails with EFAULT",
        memory: Some(MemoryType::Private),
        states: &["small", "half", "soft-dirty"],
        calls: &["uffd-move"],
        symptoms: &[Symptom::Errno, Symptom::Content],
        kernels: &[],
    },
    Known {
        entry: "D7",
        what: "UFFDIO_MOVE of a private 2 MiB page fails with ENOENT",
        memory: Some(MemoryType::Private),
        states: &["huge"],
        calls: &["uffd-move"],
        symptoms: &[Symptom::Errno, Symptom::Content],
        kernels: &[],
    },
    Known {
        entry: "D7",
        what: "UFFDIO_MOVE onto a private 2 MiB page tries again without end",
        memory: Some(MemoryType::Private),
        states: &["huge"],
        calls: &["uffd-move-onto"],
        symptoms: &[Symptom::Hang],
        kernels: &[],
    },
    Known {
        entry: "M1",
        what: "MADV_COLLAPSE of a private 2 MiB page fails with EINVAL, where plain memory has nothing to do",
        memory: Some(MemoryType::Private),
        states: &["huge", "huge-soft-dirty"],
        calls: &["collapse"],
        symptoms: &[Symptom::Errno],
        kernels: &[],
    },
    Known {
        entry: "M2",
        what: "MADV_SOFT_OFFLINE of a coherent page fails with EIO",
        memory: Some(MemoryType::Coherent),
        states: &["small", "half", "forked"],
        calls: &["soft-offline"],
        symptoms: &[Symptom::Errno],
        kernels: &[],
    },
];
