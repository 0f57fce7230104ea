// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver from outside: loading and unloading the module, binding and unbinding the device.

use std::ffi::CStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ersatz_abi::counter::Counter;
use ersatz_abi::{pci, regs};
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};

use crate::device::Device;
use crate::pattern::PAGE;
use crate::region::map_for_reading;

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
    ersatz_init::driver::load_driver().unwrap_or_else(|error| panic!("{error}"));
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

    /// Takes the driver off it. Returns once the driver has let go.
    pub fn unbind(&self) {
        self.tell("unbind");
        assert!(!self.is_bound(), "{} is still bound", self.folder.display());
        wait_for_device(false);
    }

    /// Puts the driver onto it.
    pub fn bind(&self) {
        self.tell("bind");
        assert!(self.is_bound(), "{} is not bound: its probe failed", self.folder.display());
        wait_for_device(true);
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

    /// Has the driver leave the function by `leave`, and asserts that the device copied at least so many pages for that.
    pub fn evacuate(&self, pages: u64, leave: impl FnOnce()) {
        let before = Device::open().count(Counter::BytesUnbind);
        leave();
        let copied = self.counter(Counter::BytesUnbind).saturating_sub(before) / PAGE as u64;
        assert!(copied >= pages, "the device copied {copied} of {pages} pages because the driver left it");
    }

    /// A counter read from the device's registers with no driver in between. The kernel permits that while none is bound.
    pub fn counter(&self, counter: Counter) -> u64 {
        const LENGTH: NonZeroUsize = NonZeroUsize::new(pci::REGISTERS_BAR_SIZE as usize).unwrap();
        let path = self.folder.join(format!("resource{}", pci::BAR_REGISTERS));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        let base = map_for_reading(file.as_fd(), LENGTH)
            .unwrap_or_else(|error| panic!("cannot map {}: {error}", path.display()));
        let offset = regs::COUNTER_BASE as usize + 8 * usize::from(counter as u8);
        // SAFETY: the register lies inside the BAR, which stays mapped until the end of the process.
        let register = unsafe { base.cast::<u8>().add(offset) }.cast::<u64>();
        // SAFETY: an aligned read of a register that may be read at any time.
        unsafe { register.read_volatile() }
    }
}
