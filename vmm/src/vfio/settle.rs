// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device on a host whose processor is emulated by QEMU ([`emulated_host`](crate::emulated_host)): the guest waits while the host's memory map
//! changes, which it does when the device's memory decoding or bus mastering is switched, and when the device is reset.

use std::thread;
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use super::hardware::{Hardware, MappableArea, MessageKind, Region};
use super::registers::COMMAND;
use crate::machine::VcpuGroup;

/// A device, around whose changes to the host's memory map the guest waits.
pub struct Settled<H> {
    hardware: H,
    vcpus: VcpuGroup,
    settle: Duration,
}

impl<H: Hardware> Settled<H> {
    /// A device of a machine with these vCPUs, which are kept out of the guest for `settle` after each change.
    pub fn new(hardware: H, vcpus: VcpuGroup, settle: Duration) -> Self {
        Self { hardware, vcpus, settle }
    }

    /// Does what may change the host's memory map.
    fn change_map(&self, change: impl FnOnce()) {
        self.vcpus.while_outside(|| {
            change();
            thread::sleep(self.settle);
        });
    }

    /// Whether a write switches something by the command register.
    fn switches(&self, region: Region, offset: u64, data: &[u8]) -> bool {
        let command = u64::from(COMMAND)..u64::from(COMMAND) + 2;
        let end = offset.saturating_add(data.len() as u64);
        if region != Region::Config || end <= command.start || offset >= command.end {
            return false;
        }
        let mut now = vec![0; data.len()];
        self.hardware.read(region, offset, &mut now);
        now != data
    }
}

impl<H: Hardware> Hardware for Settled<H> {
    fn read(&self, region: Region, offset: u64, data: &mut [u8]) {
        self.hardware.read(region, offset, data);
    }

    fn write(&self, region: Region, offset: u64, data: &[u8]) {
        if self.switches(region, offset, data) {
            self.change_map(|| self.hardware.write(region, offset, data));
        } else {
            self.hardware.write(region, offset, data);
        }
    }

    fn size(&self, region: Region) -> u64 {
        self.hardware.size(region)
    }

    fn mappable(&self) -> Vec<MappableArea> {
        self.hardware.mappable()
    }

    fn connect(&self, kind: MessageKind, events: &[&EventFd]) {
        self.hardware.connect(kind, events);
    }

    fn disconnect(&self, kind: MessageKind) {
        self.hardware.disconnect(kind);
    }

    fn reset(&self) {
        self.change_map(|| self.hardware.reset());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A device whose vCPUs say, at each change, whether they are held.
    #[derive(Clone, Default)]
    struct Observed {
        vcpus: VcpuGroup,
        command: Arc<Mutex<[u8; 2]>>,
        /// Whether all vCPUs were to stay out: at each write to the command register, and at each reset.
        writes: Arc<Mutex<Vec<bool>>>,
        resets: Arc<Mutex<Vec<bool>>>,
    }

    impl Observed {
        fn new() -> Self {
            Self { vcpus: VcpuGroup::new(2), ..Self::default() }
        }

        fn is_held(&self) -> bool {
            self.vcpus.iter().all(|vcpu| vcpu.take().pause)
        }
    }

    impl Hardware for Observed {
        fn read(&self, _: Region, offset: u64, data: &mut [u8]) {
            let command = self.command.lock().unwrap();
            for (at, byte) in (offset..).zip(data) {
                *byte =
                    at.checked_sub(u64::from(COMMAND)).and_then(|at| command.get(at as usize)).copied().unwrap_or(0);
            }
        }

        fn write(&self, region: Region, offset: u64, data: &[u8]) {
            if (region, offset) == (Region::Config, u64::from(COMMAND)) {
                self.command.lock().unwrap().copy_from_slice(data);
            }
            self.writes.lock().unwrap().push(self.is_held());
        }

        fn size(&self, _: Region) -> u64 {
            4096
        }

        fn mappable(&self) -> Vec<MappableArea> {
            Vec::new()
        }

        fn connect(&self, _: MessageKind, _: &[&EventFd]) {}

        fn disconnect(&self, _: MessageKind) {}

        fn reset(&self) {
            self.resets.lock().unwrap().push(self.is_held());
        }
    }

    #[test]
    fn vcpus_stay_out_while_decoding_or_mastering_changes_and_at_a_reset() {
        let device = Observed::new();
        let settled = Settled::new(device.clone(), device.vcpus.clone(), Duration::ZERO);
        settled.write(Region::Config, COMMAND.into(), &[6, 0]);
        settled.write(Region::Config, COMMAND.into(), &[6, 0]); // changes nothing
        settled.write(Region::Config, COMMAND.into(), &[2, 0]);
        settled.write(Region::Config, 0x40, &[1, 2]);
        settled.write(Region::Bar(0), COMMAND.into(), &[1, 2]);
        settled.reset();
        assert_eq!(*device.writes.lock().unwrap(), [true, false, true, false, false]);
        assert_eq!(*device.resets.lock().unwrap(), [true]);
        assert!(!device.is_held(), "and go on afterwards");
    }

    #[test]
    fn what_lies_beside_the_command_register_is_not_it() {
        let device = Observed::new();
        let settled = Settled::new(device.clone(), device.vcpus.clone(), Duration::ZERO);
        assert!(!settled.switches(Region::Config, 0, &[1, 2, 3, 4]));
        assert!(!settled.switches(Region::Config, 6, &[1, 2]));
        assert!(settled.switches(Region::Config, 4, &[1, 0, 0, 0]));
        assert!(settled.switches(Region::Config, 5, &[1]));
        assert!(!settled.switches(Region::Config, u64::MAX, &[1, 2]));
    }
}
