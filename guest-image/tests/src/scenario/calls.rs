// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What each step does.

mod access;
mod cross_process;
mod device;
mod disk;
mod kernels;
mod mapping;
mod order;
mod page_table;
mod processes;
mod ptrace;
mod reclaim;
mod uring;
mod userfault;

use ersatz_scenario::call::Call;
use ersatz_scenario::report::{Ground, StepOutcome};

use super::context::{Context, Done};

pub use order::Waits;
pub use reclaim::{CGROUP, setting_file};

/// Performs a call. Holds are not calls, and forks have a function of their own.
pub fn perform(context: &Context<'_>, call: &Call, waits: &mut Waits) -> Done {
    if call.is_for_device() && context.ground == Ground::Plain {
        return Ok(StepOutcome::Skipped);
    }
    match call {
        Call::Map { name, size, options } => mapping::map(context, name, *size, options),
        Call::Munmap(range) => mapping::unmap(context.ranges.place(range)?),
        Call::Madvise { range, advice } => mapping::advise(context.ranges.place(range)?, *advice),
        Call::Mprotect { range, protection } => mapping::protect(context.ranges.place(range)?, *protection),
        Call::MremapOnto { range, target, keep } => {
            mapping::move_onto(context.ranges.place(range)?, context.ranges.place(target)?, *keep)
        }
        Call::Resize { name, size } => mapping::resize(context, name, *size),
        Call::Mlock { range, on_fault } => mapping::lock(context.ranges.place(range)?, *on_fault),
        Call::Munlock(range) => mapping::unlock(context.ranges.place(range)?),
        Call::Fill { range, byte } => access::fill(context.ranges.place(range)?, *byte),
        Call::Write { range, byte } => access::write(context.ranges.place(range)?, *byte),
        Call::Read(range) => access::read(context.ranges.place(range)?),
        Call::Touch(range) => access::touch(context.ranges.place(range)?),
        Call::Migrate { range, direction, all } => device::migrate(context, range, *direction, *all),
        Call::Evict => device::evict(context),
        Call::DeviceRead(range) => kernels::read(context, context.ranges.place(range)?),
        Call::DeviceWrite { range, byte } => kernels::write(context, context.ranges.place(range)?, *byte),
        Call::DeviceAdd { range, byte } => kernels::add(context, context.ranges.place(range)?, *byte),
        Call::Exclusive(range) => kernels::make_exclusive(context, context.ranges.place(range)?),
        Call::Expect(expectation) => device::expect(context, expectation),
        Call::Pagemap { range, bit } => page_table::pagemap(context.ranges.place(range)?, *bit),
        Call::ScanWritten(range) => page_table::scan_written(context.ranges.place(range)?),
        Call::ClearSoftDirty => page_table::clear_soft_dirty(),
        Call::Exit => processes::exit(),
        Call::Exec => processes::exec(),
        Call::Kill(child) => processes::kill(context, child),
        Call::Join(child) => processes::join(context, child),
        Call::Uffd(uffd) => userfault::perform(context, uffd),
        Call::KsmMerge(range) => reclaim::merge(context.ranges.place(range)?),
        Call::KsmScan => reclaim::scan(),
        Call::SwapOut(range) => reclaim::swap_out(context.ranges.place(range)?),
        Call::Compact => reclaim::compact(),
        Call::Cgroup { limit } => reclaim::limit_memory(*limit),
        Call::Set { setting, value } => reclaim::set(setting, value),
        Call::Vmread { process, range } => cross_process::read(context, process, range),
        Call::Vmwrite { process, range, byte } => cross_process::write(context, process, range, *byte),
        Call::Peek { process, range } => ptrace::peek(context, process, range),
        Call::Poke { process, range, byte } => ptrace::poke(context, process, range, *byte),
        Call::Direct { transfer, range } => disk::transfer(context, *transfer, range),
        Call::Uring(uring) => uring::transfer(context, uring),
        Call::Wait { thread, awaited } => order::wait(context, thread, *awaited, waits),
        Call::Resume(thread) => order::resume(context, thread),
        Call::Barrier(name) => order::barrier(context, name),
        Call::Sleep(time) => order::sleep_for(*time),
        Call::Fork(_) | Call::Hold(_) => Err(String::from("the thread itself does that").into()),
    }
}
