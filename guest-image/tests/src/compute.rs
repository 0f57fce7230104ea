// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernels that the device runs over the addresses of this process.

use ersatz_uapi::{Advice, Advise, Bind, Exclusive, FaultAccess, KernelKind, Launch};
use nix::errno::Errno;

use crate::device::Device;
use crate::region::Span;

mod ioctls {
    use ersatz_uapi::{Advise, Bind, Exclusive, IOC_ADVISE, IOC_BIND, IOC_EXCLUSIVE, IOC_LAUNCH, Launch};

    nix::ioctl_readwrite_bad!(
        /// [`IOC_BIND`].
        bind, IOC_BIND, Bind
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_LAUNCH`].
        launch, IOC_LAUNCH, Launch
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_EXCLUSIVE`].
        exclusive, IOC_EXCLUSIVE, Exclusive
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_ADVISE`].
        advise, IOC_ADVISE, Advise
    );
}

/// Why a kernel did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchError {
    /// The device accessed what the process may not access so.
    Fault(u64, FaultAccess),
    /// Anything else.
    Other(Errno),
}

/// A file of the device through which this process's address space is bound to it.
#[derive(Debug)]
pub struct Compute {
    device: Device,
}

impl Compute {
    /// Opens the first device and binds this process's address space.
    pub fn bind() -> Self {
        let compute = Self::unbound();
        compute.try_bind().unwrap_or_else(|error| panic!("ERSATZ_IOC_BIND: {error}"));
        compute
    }

    /// Opens the first device and binds nothing.
    pub fn unbound() -> Self {
        Self { device: Device::open() }
    }

    /// The device, by the same file.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// `ERSATZ_IOC_BIND`. Returns the address space's number.
    pub fn try_bind(&self) -> Result<u32, Errno> {
        let mut request = Bind::default();
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call.
        unsafe { ioctls::bind(self.device.descriptor(), &mut request) }.map(|_| request.asid)
    }

    /// `ERSATZ_IOC_EXCLUSIVE`. Returns the number of pages that the device has been given, and why it is not all of them.
    pub fn try_exclusive(&self, address: u64, length: u64) -> (u64, Result<(), Errno>) {
        let mut request = Exclusive { address, length, done: 0 };
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call; no page's content changes.
        let result = unsafe { ioctls::exclusive(self.device.descriptor(), &mut request) };
        (request.done, result.map(drop))
    }

    /// Gives the device exclusive access to all pages of a range.
    pub fn exclusive(&self, span: Span) {
        assert_eq!(self.try_exclusive(span.address, span.length), (span.pages() as u64, Ok(())));
    }

    /// `ERSATZ_IOC_ADVISE`.
    pub fn try_advise(&self, mut request: Advise) -> Result<(), Errno> {
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call; no page's content changes.
        unsafe { ioctls::advise(self.device.descriptor(), &mut request) }.map(drop)
    }

    /// Says where the memory of a range is wanted.
    pub fn advise(&self, span: Span, advice: Advice) {
        let request = Advise { address: span.address, length: span.length, advice: advice as u32, flags: 0 };
        self.try_advise(request).unwrap_or_else(|error| panic!("ERSATZ_IOC_ADVISE of {request:x?}: {error}"));
    }

    /// `ERSATZ_IOC_LAUNCH`.
    ///
    /// What the kernel writes must be memory that the tests access by atomics or raw pointers alone, as that of a region is.
    pub fn try_launch(&self, mut request: Launch) -> Result<(), LaunchError> {
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call; what the kernel writes is a region's, or
        // memory that this process cannot write.
        match unsafe { ioctls::launch(self.device.descriptor(), &mut request) } {
            Ok(_) => Ok(()),
            Err(Errno::EFAULT) => {
                let kinds = [FaultAccess::Read, FaultAccess::Write, FaultAccess::Atomic];
                let access = kinds.into_iter().find(|&kind| kind as u32 == request.fault_access);
                Err(LaunchError::Fault(request.fault_address, access.expect("a kind of access")))
            }
            Err(error) => Err(LaunchError::Other(error)),
        }
    }

    fn run(&self, request: Launch) {
        self.try_launch(request).unwrap_or_else(|error| panic!("ERSATZ_IOC_LAUNCH of {request:x?}: {error:x?}"));
    }

    /// Reads a range.
    pub fn try_read(&self, span: Span) -> Result<(), LaunchError> {
        self.try_launch(of_range(KernelKind::Read, span))
    }

    /// Writes word *n* of a range as `seed` + *n*.
    pub fn try_write(&self, span: Span, seed: u64) -> Result<(), LaunchError> {
        self.try_launch(Launch { value: seed, ..of_range(KernelKind::Write, span) })
    }

    /// As [`Compute::try_write`].
    pub fn write(&self, span: Span, seed: u64) {
        self.run(Launch { value: seed, ..of_range(KernelKind::Write, span) });
    }

    /// Writes the same to each word of a range.
    pub fn try_set(&self, span: Span, pattern: u64) -> Result<(), LaunchError> {
        self.try_launch(Launch { value: pattern, ..of_range(KernelKind::Set, span) })
    }

    /// As [`Compute::try_set`].
    pub fn set(&self, span: Span, pattern: u64) {
        self.run(Launch { value: pattern, ..of_range(KernelKind::Set, span) });
    }

    /// Adds up the words of a range; the sum is written to the address `result`.
    pub fn sum(&self, span: Span, result: u64) {
        self.run(Launch { result, ..of_range(KernelKind::Sum, span) });
    }

    /// y = factor × x + y, by 32-bit floats, over as much as `x` has.
    pub fn saxpy(&self, x: Span, y: u64, factor: f32) {
        let value = u64::from(factor.to_bits());
        self.run(Launch { value, second: y, ..of_range(KernelKind::Saxpy, x) });
    }

    /// Adds to each word of a range.
    pub fn try_atomic_add(&self, span: Span, addend: u64) -> Result<(), LaunchError> {
        self.try_launch(Launch { value: addend, ..of_range(KernelKind::AtomicAdd, span) })
    }

    /// As [`Compute::try_atomic_add`].
    pub fn atomic_add(&self, span: Span, addend: u64) {
        self.run(Launch { value: addend, ..of_range(KernelKind::AtomicAdd, span) });
    }

    /// Replaces a word that is as expected; what it was is written to the address `result`.
    pub fn compare_and_swap(&self, target: u64, expected: u64, replacement: u64, result: u64) {
        let kernel = KernelKind::CompareAndSwap as u32;
        self.run(Launch { kernel, first: target, value: expected, second: replacement, result, ..Launch::default() });
    }

    /// Follows a chain of words; the last one is written to the address `result`.
    pub fn try_chase(&self, start: u64, steps: u64, result: u64) -> Result<(), LaunchError> {
        let kernel = KernelKind::Chase as u32;
        self.try_launch(Launch { kernel, first: start, count: steps, result, ..Launch::default() })
    }

    /// Updates random words of a table, whose size is a power of two.
    pub fn random_update(&self, table: Span, seed: u64, updates: u64) {
        let kernel = KernelKind::RandomUpdate as u32;
        let Span { address: first, length: second } = table;
        self.run(Launch { kernel, first, value: seed, second, count: updates, ..Launch::default() });
    }

    /// Copies a range to another one that begins at `destination`.
    pub fn try_copy(&self, source: Span, destination: u64) -> Result<(), LaunchError> {
        self.try_launch(copy_of(source, destination))
    }

    /// As [`Compute::try_copy`].
    pub fn copy(&self, source: Span, destination: u64) {
        self.run(copy_of(source, destination));
    }
}

fn copy_of(source: Span, destination: u64) -> Launch {
    Launch { second: destination, ..of_range(KernelKind::Copy, source) }
}

fn of_range(kernel: KernelKind, span: Span) -> Launch {
    Launch { kernel: kernel as u32, first: span.address, count: span.length, ..Launch::default() }
}
