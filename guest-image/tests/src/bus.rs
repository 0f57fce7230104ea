// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver from outside: loading and unloading the module, binding and unbinding the device.

use std::ffi::CStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ersatz_abi::counter::Counter;
use ersatz_abi::pci::{self, BAR_REGISTERS, REGISTERS_BAR_SIZE};
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};
use nix::sys::mman::MapFlags;

use crate::device::Device;
use crate::pattern::PAGE;
use crate::region::Region;
use crate::registers::Registers;

const MODULE: &CStr = c"ersatz";

/// How long a device file may take to come or go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Unloads the driver. Does not wait for users of the module: those make it fail with `EWOULDBLOCK`.
pub fn unload() -> Result<(), Errno> {
    delete_module(MODULE, DeleteModuleFlags::O_NONBLOCK)
}

/// Loads the driver as PID 1 did, and waits for its device.
///
/// # Panics
///
/// As all functions here that return no error, if the system refuses what a test needs.
pub fn load() {
    load_with("");
}

/// As [`load`], with parameters that come after those of PID 1.
pub fn load_with(parameters: &str) {
    ersatz_init::driver::load_driver(parameters).unwrap_or_else(|error| panic!("{error}"));
    wait_for_device(true);
}

/// Waits until the device file is there, or gone.
pub fn wait_for_device(there: bool) {
    let deadline = Instant::now() + PATIENCE;
    while Device::exists() != there {
        assert!(Instant::now() < deadline, "the device file is {}there", if there { "not " } else { "still " });
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the machine is QEMU's q35, by its host bridge.
pub fn is_qemu_q35() -> bool {
    const Q35: [&str; 2] = ["0x8086", "0x29c0"];
    let folder = Function::at(0);
    let read = |file| fs::read_to_string(folder.folder().join(file)).unwrap_or_default();
    ["vendor", "device"].map(read).iter().map(|id| id.trim()).eq(Q35)
}

/// A device on the PCI bus, bound or not.
#[derive(Clone, Debug)]
pub struct Function {
    folder: PathBuf,
}

impl Function {
    /// The function behind an open device.
    pub fn of(device: &Device) -> Self {
        let function = Self::at(device.info().pci_address);
        let folder = function.folder();
        let id = fs::read_to_string(folder.join("device"))
            .unwrap_or_else(|error| panic!("ERSATZ_IOC_INFO names PCI function {}: {error}", folder.display()));
        assert_eq!(id.trim(), format!("{:#06x}", pci::DEVICE_ID), "PCI device id in {}", folder.display());
        function
    }

    /// The function at an address as `ERSATZ_IOC_INFO` has it, there or not.
    pub fn at(address: u32) -> Self {
        let name =
            format!("{:04x}:{:02x}:{:02x}.{}", address >> 16, address >> 8 & 0xff, address >> 3 & 0x1f, address & 7);
        Self { folder: Path::new("/sys/bus/pci/devices").join(name) }
    }

    /// Its folder in sysfs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the driver is bound to it.
    pub fn is_bound(&self) -> bool {
        self.folder.join("driver").exists()
    }

    /// Takes the driver off it, the first device, and waits until its device file is gone.
    pub fn unbind(&self) {
        self.detach();
        wait_for_device(false);
    }

    /// Puts the driver onto it, the first device, and waits for its device file.
    pub fn bind(&self) {
        self.attach();
        wait_for_device(true);
    }

    /// Takes the driver off it. Returns once the driver has let go.
    pub fn detach(&self) {
        self.tell("unbind");
        assert!(!self.is_bound(), "{} is still bound", self.folder.display());
    }

    /// Puts the driver onto it.
    pub fn attach(&self) {
        self.tell("bind");
        assert!(self.is_bound(), "{} is not bound: its probe failed", self.folder.display());
    }

    fn tell(&self, file: &str) {
        let path = Path::new("/sys/bus/pci/drivers/ersatz").join(file);
        let name = self.folder.file_name().unwrap_or_default().as_encoded_bytes();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, name))
            .unwrap_or_else(|error| panic!("cannot write to {}: {error}", path.display()));
    }

    /// Whether it has a BAR.
    pub fn has_bar(&self, bar: u8) -> bool {
        let resources = fs::read_to_string(self.folder.join("resource")).unwrap_or_default();
        // Start, end and flags of one on each line.
        let end = resources.lines().nth(bar.into()).and_then(|line| line.split_whitespace().nth(1));
        end.is_some_and(|end| end.trim_start_matches("0x").chars().any(|digit| digit != '0'))
    }

    /// Maps pages of a BAR, from the offset of a page on. The kernel permits that while no driver is bound that has claimed the BAR.
    pub fn map_bar(&self, bar: u8, offset: u64, pages: usize) -> Region {
        let path = self.folder.join(format!("resource{bar}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        Region::of_part_of_file(&file, offset, pages, MapFlags::MAP_SHARED)
    }

    /// Has the driver leave the function by `leave`, and asserts that the device copied at least so many pages for that.
    pub fn evacuate(&self, pages: u64, leave: impl FnOnce()) {
        let before = Device::open().count(Counter::BytesUnbind);
        leave();
        let copied = self.counter(Counter::BytesUnbind).saturating_sub(before) / PAGE as u64;
        assert!(copied >= pages, "the device copied {copied} of {pages} pages because the driver left it");
    }

    /// The device's registers. The kernel permits access to them while no driver is bound.
    pub fn registers(&self) -> Registers {
        Registers::new(self.map_bar(BAR_REGISTERS, 0, REGISTERS_BAR_SIZE as usize / PAGE))
    }

    /// A counter read from the device's registers with no driver in between. The kernel permits that while none is bound.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.registers().counter(counter)
    }
}
