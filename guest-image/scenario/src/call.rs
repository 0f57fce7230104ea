// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The steps of a scenario. `Display` gives the text of each.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use ersatz_uapi::{Direction, PageState};

use crate::advice::Advice;
use crate::disk::{Transfer, UringTransfer};
use crate::quantity::{Size, Time};
use crate::range::Range;
use crate::symptom::{UnknownName, names};

/// What `map` asks of the kernel besides private, readable and writable anonymous memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapOptions {
    /// `huge` or `nohuge`: aligned to 2 MiB and advised to have huge pages, or advised to have none.
    pub huge: Option<bool>,
    /// `shared`: with forked processes.
    pub shared: bool,
    /// `ro` or `none`: other than readable and writable.
    pub protection: Option<Protection>,
    /// `noreserve`: `MAP_NORESERVE`.
    pub noreserve: bool,
    /// `populate`: `MAP_POPULATE`.
    pub populate: bool,
}

impl Display for MapOptions {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let words = [
            (self.huge == Some(true), "huge"),
            (self.huge == Some(false), "nohuge"),
            (self.shared, "shared"),
            (self.protection == Some(Protection::Read), "ro"),
            (self.protection == Some(Protection::None), "none"),
            (self.noreserve, "noreserve"),
            (self.populate, "populate"),
        ];
        words.iter().filter(|(given, _)| *given).try_for_each(|(_, word)| write!(f, " {word}"))
    }
}

/// What a mapping permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// No access.
    None,
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}

names! { Protection: None "none", Read "r", ReadWrite "rw", }

/// A bit of a pagemap entry that must not depend on where the page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagemapBit {
    /// Bit 55: written since the last `clear-soft-dirty`.
    SoftDirty,
    /// Bit 57: write-protected by userfaultfd.
    UffdWp,
}

names! { PagemapBit: SoftDirty "soft-dirty", UffdWp "uffd-wp", }

/// What userfaultfd is told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UffdMode {
    /// Faults on pages that are not there.
    Missing,
    /// Writes to protected pages, which wait until they are answered.
    Wp,
    /// Writes to protected pages, which the kernel lets through, lifting the protection.
    WpAsync,
}

names! { UffdMode: Missing "missing", Wp "wp", WpAsync "wp-async", }

/// userfaultfd(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uffd {
    /// `UFFDIO_REGISTER` with a descriptor of its own.
    Register {
        /// Which memory.
        range: Range,
        /// For what.
        mode: UffdMode,
    },
    /// `UFFDIO_UNREGISTER`.
    Unregister(Range),
    /// `UFFDIO_WRITEPROTECT`, protecting.
    Protect(Range),
    /// `UFFDIO_WRITEPROTECT`, lifting the protection and waking who waits.
    Unprotect(Range),
    /// `UFFDIO_COPY` of pages that hold this byte.
    Copy {
        /// Which memory.
        range: Range,
        /// What it is filled with.
        byte: u8,
    },
    /// `UFFDIO_ZEROPAGE`.
    Zeropage(Range),
    /// `UFFDIO_MOVE` from another range of the same size, with `ALLOW_SRC_HOLES`.
    Move {
        /// Which memory is filled.
        range: Range,
        /// Whose pages are taken.
        from: Range,
    },
    /// Waits for a fault in the range and reads its event.
    Wait(Range),
}

impl Display for Uffd {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { range, mode } => write!(f, "register {range} {mode}"),
            Self::Unregister(range) => write!(f, "unregister {range}"),
            Self::Protect(range) => write!(f, "protect {range}"),
            Self::Unprotect(range) => write!(f, "unprotect {range}"),
            Self::Copy { range, byte } => write!(f, "copy {range} {byte}"),
            Self::Zeropage(range) => write!(f, "zeropage {range}"),
            Self::Move { range, from } => write!(f, "move {range} from {from}"),
            Self::Wait(range) => write!(f, "wait {range}"),
        }
    }
}

/// What `expect` looks at, on the GPU only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// All pages of the range are in this state.
    Pages {
        /// Which memory.
        range: Range,
        /// Where its pages are to be.
        state: PageState,
    },
    /// As much VRAM is free as before the scenario, though this process still runs.
    DeviceEmpty,
}

/// The word for a page's state.
pub const fn state_name(state: PageState) -> &'static str {
    match state {
        PageState::None => "hole",
        PageState::System => "system",
        PageState::Device => "device",
        PageState::Swapped => "swapped",
    }
}

impl Display for Expectation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pages { range, state } => write!(f, "{range} {}", state_name(*state)),
            Self::DeviceEmpty => f.write_str("device-empty"),
        }
    }
}

/// Where a step is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Point {
    /// At the entry of a function of the kernel.
    Kernel(String),
    /// At a named step of the device's work.
    Device(String),
}

impl Display for Point {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(function) => f.write_str(function),
            Self::Device(step) => write!(f, "device:{step}"),
        }
    }
}

/// A hold of the thread's next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Where.
    pub point: Point,
    /// At which of the entries that fit, from 1.
    pub nth: u32,
    /// Only an entry whose argument of this number, from 0, is an address in this range.
    pub argument: Option<(u8, Range)>,
}

impl Display for Hold {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.point.fmt(f)?;
        if self.nth != 1 {
            write!(f, " nth={}", self.nth)?;
        }
        self.argument.as_ref().map_or(Ok(()), |(number, range)| write!(f, " arg{number}={range}"))
    }
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The thread is held.
    Held,
    /// The thread has no more steps to do.
    Done,
}

names! { Awaited: Held "held", Done "done", }

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// mmap(2) of anonymous memory, which gets a name.
    Map {
        /// The name.
        name: String,
        /// Bytes.
        size: u64,
        /// What else.
        options: MapOptions,
    },
    /// munmap(2).
    Munmap(Range),
    /// Writes a byte everywhere.
    Fill {
        /// Where.
        range: Range,
        /// What.
        byte: u8,
    },
    /// Writes a byte at the beginning of each page.
    Write {
        /// Where.
        range: Range,
        /// What.
        byte: u8,
    },
    /// Reads all bytes; what is read is compared.
    Read(Range),
    /// Reads the first byte of each page; what is read is compared.
    Touch(Range),
    /// Moves pages to the device or back.
    Migrate {
        /// Which memory.
        range: Range,
        /// Where to.
        direction: Direction,
        /// Again and again until no page is left.
        all: bool,
    },
    /// Moves all pages of all processes off the device.
    Evict,
    /// The device reads all bytes; what it reads is compared with what process_vm_readv(2) reads of plain memory.
    DeviceRead(Range),
    /// The device writes a byte everywhere; on plain memory process_vm_writev(2) does.
    DeviceWrite {
        /// Where.
        range: Range,
        /// What.
        byte: u8,
    },
    /// The device adds a byte to every byte of each 64-bit word, atomically; on plain memory process_vm_readv(2) and process_vm_writev(2) do.
    DeviceAdd {
        /// Where.
        range: Range,
        /// What.
        byte: u8,
    },
    /// Gives the device exclusive access to pages, until the process ends or a CPU touches them; plain memory is faulted in for writing, as
    /// that does, too.
    Exclusive(Range),
    /// Looks at something of the device, and is a finding if it does not hold.
    Expect(Expectation),
    /// madvise(2).
    Madvise {
        /// Which memory.
        range: Range,
        /// The advice.
        advice: Advice,
    },
    /// mprotect(2).
    Mprotect {
        /// Which memory.
        range: Range,
        /// What is permitted.
        protection: Protection,
    },
    /// mremap(2) onto memory of another range, which is replaced.
    MremapOnto {
        /// What moves.
        range: Range,
        /// Where to; of the same size.
        target: Range,
        /// `MREMAP_DONTUNMAP`.
        keep: bool,
    },
    /// mremap(2) of a whole range to another size, at a place of the kernel's choice.
    Resize {
        /// The range.
        name: String,
        /// Bytes.
        size: u64,
    },
    /// mlock2(2).
    Mlock {
        /// Which memory.
        range: Range,
        /// `MLOCK_ONFAULT`.
        on_fault: bool,
    },
    /// munlock(2).
    Munlock(Range),
    /// Reads a bit of `/proc/self/pagemap` for each page; what is read is compared.
    Pagemap {
        /// Which memory.
        range: Range,
        /// The bit.
        bit: PagemapBit,
    },
    /// `PAGEMAP_SCAN` for pages written since the last one, which it write-protects again; what is found is compared.
    ScanWritten(Range),
    /// Clears the soft-dirty bits of the process.
    ClearSoftDirty,
    /// fork(2). Threads `of` the child begin in it.
    Fork(String),
    /// _exit(2) of the thread's process.
    Exit,
    /// execve(2) of a program that ends at once, in place of the thread's process.
    Exec,
    /// SIGKILL to a forked process.
    Kill(String),
    /// Waits until a forked process is over.
    Join(String),
    /// userfaultfd(2).
    Uffd(Uffd),
    /// Has ksmd merge the pages of a range, and waits for that.
    KsmMerge(Range),
    /// Has ksmd scan all mergeable memory three times, and waits for that.
    KsmScan,
    /// Pages memory out, repeatedly, until it is swapped.
    SwapOut(Range),
    /// Compacts the memory of the machine.
    Compact,
    /// process_vm_readv(2) from a process; what is read is compared.
    Vmread {
        /// A child's name, or `parent`.
        process: String,
        /// Which memory.
        range: Range,
    },
    /// process_vm_writev(2) to a process.
    Vmwrite {
        /// A child's name, or `parent`.
        process: String,
        /// Which memory.
        range: Range,
        /// What.
        byte: u8,
    },
    /// Reads the first word of each page of a process by ptrace(2), `PTRACE_PEEKDATA`; what is read is compared.
    Peek {
        /// A child's name, or `parent`.
        process: String,
        /// Which memory.
        range: Range,
    },
    /// Writes the first word of each page of a process by ptrace(2), `PTRACE_POKEDATA`.
    Poke {
        /// A child's name, or `parent`.
        process: String,
        /// Which memory.
        range: Range,
        /// What each byte of the word becomes.
        byte: u8,
    },
    /// pread(2) or pwrite(2) with `O_DIRECT` between memory and the scenario's disk. A part is at the same place of the disk as in its range.
    Direct {
        /// Which way.
        transfer: Transfer,
        /// Which memory.
        range: Range,
    },
    /// The same by io_uring.
    Uring(UringTransfer),
    /// Limits the memory of the scenario's processes by a cgroup.
    Cgroup {
        /// `memory.max`, in bytes.
        limit: u64,
    },
    /// Writes a setting below `/sys/kernel/mm`, or, as `vm.NAME`, below `/proc/sys/vm`. It is put back at the end.
    Set {
        /// Which.
        setting: String,
        /// What.
        value: String,
    },
    /// Holds the thread's next call.
    Hold(Hold),
    /// Waits for another thread.
    Wait {
        /// Which.
        thread: String,
        /// For what.
        awaited: Awaited,
    },
    /// Lets a held thread go on.
    Resume(String),
    /// Waits until all threads that name the barrier have come to it.
    Barrier(String),
    /// Does nothing for a time.
    Sleep(Duration),
}

impl Call {
    /// Whether the step orders threads, and does nothing to memory.
    pub fn is_synchronisation(&self) -> bool {
        matches!(
            self,
            Self::Hold(_)
                | Self::Wait { .. }
                | Self::Resume(_)
                | Self::Barrier(_)
                | Self::Sleep(_)
                | Self::Join(_)
                | Self::Uffd(Uffd::Wait(_))
        )
    }

    /// Whether the thread's process ends by the step, or goes on as another program: nothing comes after it.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Exit | Self::Exec)
    }

    /// Whether the step uses the scenario's disk.
    pub fn uses_disk(&self) -> bool {
        matches!(self, Self::Direct { .. } | Self::Uring(_))
    }

    /// Whether the step is about the device and has no meaning on plain memory.
    pub fn is_for_device(&self) -> bool {
        matches!(self, Self::Migrate { .. } | Self::Evict | Self::Expect(_))
    }

    /// The ranges that the step names, except the one that `map` makes.
    pub fn ranges(&self) -> Vec<&Range> {
        match self {
            Self::Munmap(range)
            | Self::Fill { range, .. }
            | Self::Write { range, .. }
            | Self::Read(range)
            | Self::Touch(range)
            | Self::Migrate { range, .. }
            | Self::DeviceRead(range)
            | Self::DeviceWrite { range, .. }
            | Self::DeviceAdd { range, .. }
            | Self::Exclusive(range)
            | Self::Expect(Expectation::Pages { range, .. })
            | Self::Madvise { range, .. }
            | Self::Mprotect { range, .. }
            | Self::Mlock { range, .. }
            | Self::Munlock(range)
            | Self::Pagemap { range, .. }
            | Self::ScanWritten(range)
            | Self::KsmMerge(range)
            | Self::SwapOut(range)
            | Self::Vmread { range, .. }
            | Self::Vmwrite { range, .. }
            | Self::Peek { range, .. }
            | Self::Poke { range, .. }
            | Self::Direct { range, .. }
            | Self::Uring(UringTransfer { range, .. }) => vec![range],
            Self::MremapOnto { range, target, .. } => vec![range, target],
            Self::Uffd(uffd) => match uffd {
                Uffd::Register { range, .. }
                | Uffd::Unregister(range)
                | Uffd::Protect(range)
                | Uffd::Unprotect(range)
                | Uffd::Copy { range, .. }
                | Uffd::Zeropage(range)
                | Uffd::Wait(range) => vec![range],
                Uffd::Move { range, from } => vec![range, from],
            },
            Self::Hold(hold) => hold.argument.iter().map(|(_, range)| range).collect(),
            _ => Vec::new(),
        }
    }
}

/// The word for a direction.
const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::ToDevice => "to-device",
        Direction::ToSystem => "to-system",
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let optional = |given: bool, word: &'static str| if given { word } else { "" };
        match self {
            Self::Map { name, size, options } => write!(f, "map {name} {}{options}", Size(*size)),
            Self::Munmap(range) => write!(f, "munmap {range}"),
            Self::Fill { range, byte } => write!(f, "fill {range} {byte}"),
            Self::Write { range, byte } => write!(f, "write {range} {byte}"),
            Self::Read(range) => write!(f, "read {range}"),
            Self::Touch(range) => write!(f, "touch {range}"),
            Self::Migrate { range, direction, all } => {
                write!(f, "migrate {range} {}{}", direction_name(*direction), optional(*all, " all"))
            }
            Self::Evict => f.write_str("evict"),
            Self::DeviceRead(range) => write!(f, "device-read {range}"),
            Self::DeviceWrite { range, byte } => write!(f, "device-write {range} {byte}"),
            Self::DeviceAdd { range, byte } => write!(f, "device-add {range} {byte}"),
            Self::Exclusive(range) => write!(f, "exclusive {range}"),
            Self::Expect(what) => write!(f, "expect {what}"),
            Self::Madvise { range, advice } => write!(f, "madvise {range} {}", advice.name()),
            Self::Mprotect { range, protection } => write!(f, "mprotect {range} {protection}"),
            Self::MremapOnto { range, target, keep } => {
                write!(f, "mremap {range} onto {target}{}", optional(*keep, " dontunmap"))
            }
            Self::Resize { name, size } => write!(f, "mremap {name} resize {}", Size(*size)),
            Self::Mlock { range, on_fault } => write!(f, "mlock {range}{}", optional(*on_fault, " onfault")),
            Self::Munlock(range) => write!(f, "munlock {range}"),
            Self::Pagemap { range, bit } => write!(f, "pagemap {range} {bit}"),
            Self::ScanWritten(range) => write!(f, "scan-written {range}"),
            Self::ClearSoftDirty => f.write_str("clear-soft-dirty"),
            Self::Fork(child) => write!(f, "fork {child}"),
            Self::Exit => f.write_str("exit"),
            Self::Exec => f.write_str("exec"),
            Self::Kill(child) => write!(f, "kill {child}"),
            Self::Join(child) => write!(f, "join {child}"),
            Self::Uffd(uffd) => write!(f, "uffd {uffd}"),
            Self::KsmMerge(range) => write!(f, "ksm merge {range}"),
            Self::KsmScan => f.write_str("ksm scan"),
            Self::SwapOut(range) => write!(f, "swap-out {range}"),
            Self::Compact => f.write_str("compact"),
            Self::Vmread { process, range } => write!(f, "vmread {process} {range}"),
            Self::Vmwrite { process, range, byte } => write!(f, "vmwrite {process} {range} {byte}"),
            Self::Peek { process, range } => write!(f, "ptrace peek {process} {range}"),
            Self::Poke { process, range, byte } => write!(f, "ptrace poke {process} {range} {byte}"),
            Self::Direct { transfer, range } => write!(f, "direct {transfer} {range}"),
            Self::Uring(uring) => write!(f, "uring {uring}"),
            Self::Cgroup { limit } => write!(f, "cgroup limit {}", Size(*limit)),
            Self::Set { setting, value } => write!(f, "set {setting} {value}"),
            Self::Hold(hold) => write!(f, "hold {hold}"),
            Self::Wait { thread, awaited } => write!(f, "wait {thread} {awaited}"),
            Self::Resume(thread) => write!(f, "resume {thread}"),
            Self::Barrier(name) => write!(f, "barrier {name}"),
            Self::Sleep(time) => write!(f, "sleep {}", Time(*time)),
        }
    }
}
