// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! A driver for the Ersatz GPU to begin with: brings up one channel, copies a page to VRAM and back when it is bound, and waits for the
//! interrupt of that.
//!
//! The names in brackets are chapters of device-model/MANUAL.md. The numbers of the device are in `abi/`. This is written for the
//! `kernel` crate of Linux 7.2; that of other versions has other names.

use kernel::{
    bindings,
    device::{Bound, Core, Device},
    dma::{Coherent, Device as _, DmaMask},
    dma_read, dma_write,
    io::{poll::read_poll_timeout, Io},
    irq, pci,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
        barrier::smp_wmb,
        Arc,
    },
    time::Delta,
};

#[path = "abi/lib.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod abi;

use abi::{
    channel::CONTROL_BLOCK_FENCE,
    command::{Cause, Command, Operation},
    list::{List, ListEntry},
    location::Location,
    pci::{BAR_REGISTERS, DEVICE_ID, REGISTERS_BAR_SIZE, VENDOR_ID},
    regs,
};

/// The channel that is used, and its interrupt; vector 0 is that of device errors.
const CHANNEL: u32 = 0;
const VECTOR: u32 = 1;
/// Base-2 logarithm of the ring's length in commands: the shortest.
const RING_ORDER: u64 = 4;
/// A page in bytes, and in words of 64 bits.
const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;
/// What word `index` of the page holds.
const PATTERN: u64 = 0x0123_4567_89ab_cdef;
/// How long the device may take for anything that is done here.
const PATIENCE: Delta = Delta::from_secs(1);
/// The command register of config space, and its bit for bus mastering.
const PCI_COMMAND: usize = 4;
const PCI_COMMAND_MASTER: u16 = 1 << 2;

type Bar<'bound> = pci::Bar<'bound, { REGISTERS_BAR_SIZE as usize }>;

struct Driver;

/// What is kept while the device is bound.
struct DriverData<'bound> {
    bar: Bar<'bound>,
    interrupts: Arc<irq::Registration<Interrupts>>,
    /// The device may use it until it is reset.
    _memory: Memory,
}

/// Memory that the device reads and writes.
struct Memory {
    ring: Coherent<[u64]>,
    control_block: Coherent<[u64]>,
    list: Coherent<[u64]>,
    /// The page that is copied, and a page for what comes back.
    pages: Coherent<[u64]>,
}

/// The handler of the channel's interrupt.
struct Interrupts {
    count: Atomic<u32>,
}

impl irq::Handler for Interrupts {
    fn handle(&self, _dev: &Device<Bound>) -> irq::IrqReturn {
        self.count.fetch_add(1, Release);
        irq::IrqReturn::Handled
    }
}

kernel::pci_device_table!(
    PCI_TABLE,
    MODULE_PCI_TABLE,
    <Driver as pci::Driver>::IdInfo,
    [(device_id(), ())]
);

/// `pci::DeviceId::from_id` takes the vendors of linux/pci_ids.h only.
const fn device_id() -> pci::DeviceId {
    const ANY: u32 = !0;
    let id = bindings::pci_device_id {
        vendor: VENDOR_ID as u32,
        device: DEVICE_ID as u32,
        subvendor: ANY,
        subdevice: ANY,
        class: 0,
        class_mask: 0,
        driver_data: 0,
        override_only: 0,
    };
    // SAFETY: `pci::DeviceId` is a transparent wrapper of `struct pci_device_id`, with no invariant of its own.
    unsafe { core::mem::transmute::<bindings::pci_device_id, pci::DeviceId>(id) }
}

impl pci::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = DriverData<'bound>;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: &'bound Self::IdInfo,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        // The device is brought up as the manual has it [Bringing up the device].
        pdev.enable_device_mem()?;
        let bar = pdev.iomap_region_sized::<{ REGISTERS_BAR_SIZE as usize }>(BAR_REGISTERS.into(), c"NAME")?;
        reset(&bar)?;
        // SAFETY: Nothing is allocated or mapped for the device yet.
        unsafe { pdev.dma_set_mask_and_coherent(DmaMask::new::<64>())? };
        pdev.set_master();

        let msix = pci::IrqTypes::default().with(pci::IrqType::MsiX);
        let vector = *pdev.alloc_irq_vectors(VECTOR + 1, VECTOR + 1, msix)?.end();
        let handler = try_init!(Interrupts { count: Atomic::new(0) });
        let interrupts = Arc::pin_init(pdev.request_irq(vector, irq::Flags::TRIGGER_NONE, c"NAME", handler), GFP_KERNEL)?;

        let memory = Memory::new(pdev.as_ref())?;
        let data = DriverData { bar, interrupts, _memory: memory };
        if let Err(error) = data.copy_there_and_back(pdev.as_ref()) {
            data.leave(pdev);
            return Err(error);
        }
        Ok(data)
    }

    fn unbind<'bound>(pdev: &'bound pci::Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        data.leave(pdev);
    }
}

impl Memory {
    fn new(dev: &Device<Bound>) -> Result<Self> {
        let pages = |count: usize| Coherent::zeroed_slice(dev, count * WORDS, GFP_KERNEL);
        Ok(Self { ring: pages(1)?, control_block: pages(1)?, list: pages(1)?, pages: pages(2)? })
    }
}

impl DriverData<'_> {
    /// Copies a page to VRAM and back, by one command.
    fn copy_there_and_back(&self, dev: &Device<Bound>) -> Result {
        let memory = &self._memory;
        for index in 0..WORDS {
            dma_write!(memory.pages, [try: index], PATTERN ^ index as u64);
        }
        // Entries are executed in order [Lists].
        let (there, back) = (memory.pages.dma_handle(), memory.pages.dma_handle() + PAGE as u64);
        let entry = |source, destination| ListEntry { source, destination, length: PAGE as u32, tag: 0 };
        let entries =
            [entry(Location::system(there), Location::vram(0)), entry(Location::vram(0), Location::system(back))];
        for (index, word) in entries.iter().flat_map(|entry| entry.encode()).enumerate() {
            dma_write!(memory.list, [try: index], word);
        }

        self.enable_channel()?;
        let list = List::new(memory.list.dma_handle(), entries.len() as u64).map_err(|_| EINVAL)?;
        let operation = Operation::Copy(list);
        self.submit(Command { operation, cause: Cause::Other, fence: Some(1), interrupt: true, tag: 0 })?;
        self.wait(dev)?;

        for index in 0..WORDS {
            let word: u64 = dma_read!(memory.pages, [try: WORDS + index]);
            if word != PATTERN ^ index as u64 {
                dev_err!(dev, "word {} came back as {:#x}\n", index, word);
                return Err(EIO);
            }
        }
        dev_info!(dev, "copied {} bytes to VRAM and back, {} interrupts\n", PAGE, self.count());
        Ok(())
    }

    /// [Bringing up a channel].
    fn enable_channel(&self) -> Result {
        let memory = &self._memory;
        let set_up = [
            (regs::RING_BASE, memory.ring.dma_handle()),
            (regs::CONTROL_BLOCK, memory.control_block.dma_handle()),
            (regs::RING_ORDER, RING_ORDER),
            (regs::VECTOR, VECTOR.into()),
            // The first copy engine.
            (regs::ENGINE, 0),
            (regs::CHANNEL_CONTROL, regs::ChannelControl(0).with_enable(true).0.into()),
        ];
        for (register, value) in set_up {
            let offset = regs::channel_register(CHANNEL, register).ok_or(EINVAL)? as usize;
            match register.width {
                8 => self.bar.try_write64(value, offset)?,
                _ => self.bar.try_write32(value as u32, offset)?,
            }
        }
        Ok(())
    }

    /// Gives the channel its first command.
    fn submit(&self, command: Command) -> Result {
        let memory = &self._memory;
        for (index, word) in command.encode().into_iter().enumerate() {
            dma_write!(memory.ring, [try: index], word);
        }
        // The device must not see PUT before the command.
        smp_wmb();
        dma_write!(memory.control_block, [try: 0], 1);
        self.bar.try_write32(0, regs::doorbell(CHANNEL).ok_or(EINVAL)? as usize)
    }

    /// Waits until the device has written the fence value and sent the interrupt.
    fn wait(&self, dev: &Device<Bound>) -> Result {
        const FENCE: usize = CONTROL_BLOCK_FENCE as usize / 8;
        let memory = &self._memory;
        let fence = || -> Result<u64> { Ok(dma_read!(memory.control_block, [try: FENCE])) };
        let is_done = |fence: &u64| *fence >= 1 && self.count() > 0;
        read_poll_timeout(fence, is_done, Delta::from_micros(100), PATIENCE).map(drop).inspect_err(|_| {
            let offset = regs::channel_register(CHANNEL, regs::CHANNEL_STATUS).unwrap_or(0) as usize;
            let status = self.bar.try_read32(offset).unwrap_or(u32::MAX);
            dev_err!(dev, "the copy is not done; CHANNEL_STATUS is {:#x} [Errors]\n", status);
        })
    }

    fn count(&self) -> u32 {
        self.interrupts.handler().count.load(Acquire)
    }

    /// After this the device accesses no memory.
    fn leave(&self, pdev: &pci::Device<Core<'_>>) {
        if let Err(error) = reset(&self.bar) {
            dev_err!(pdev, "the reset does not end: {:?}\n", error);
        }
        let config = pdev.config_space();
        let command = config.try_read16(PCI_COMMAND).unwrap_or(0);
        // A function that is gone has no bus mastering to clear.
        let _ = config.try_write16(command & !PCI_COMMAND_MASTER, PCI_COMMAND);
    }
}

/// Resets the device, and waits until that is done.
fn reset(bar: &Bar<'_>) -> Result {
    let control = regs::CONTROL.offset as usize;
    bar.try_write32(regs::Control(0).with_reset(true).0, control)?;
    read_poll_timeout(|| bar.try_read32(control), |value| *value == 0, Delta::from_micros(10), PATIENCE).map(drop)
}

kernel::module_pci_driver! {
    type: Driver,
    name: "NAME",
    authors: ["you"],
    description: "A driver for the Ersatz GPU",
    license: "GPL",
}
