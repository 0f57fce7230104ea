// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A PCI function as a vfio-user backend: each request becomes one call of the function, of its memory or of its
//! interrupts. No behaviour of the device is here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ersatz_device_model::bus::{BarMapping, Effect, PciFunction};
use ersatz_device_model::dma::{MapAccess, MapError, MappedSpace};
use ersatz_device_model::interrupt::InterruptSink;
use ersatz_guest_image::error_chain::chain;
use thiserror::Error;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_TYPE_MASK, VFIO_IRQ_SET_DATA_BOOL, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE, VFIO_IRQ_SET_DATA_TYPE_MASK, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, ServerBackend};
use vmm_sys_util::eventfd::EventFd;

use super::description::Description;
use super::interrupts::ClientInterrupts;
use super::peer::Peer;
use super::session::Backend;

/// The function and what it is connected to.
pub struct FunctionBackend {
    gpu: u8,
    function: Arc<dyn PciFunction>,
    memory: Arc<MappedSpace>,
    interrupts: Arc<ClientInterrupts>,
    mappings: Vec<BarMapping>,
    clear: Option<Clear>,
    client: Option<Peer>,
    /// What the function signals when there are effects to take.
    event: Option<Arc<EventFd>>,
    /// The function is gone. It reads as all ones, and gets no writes and no memory. A client that has mapped its memory keeps
    /// that, which cannot be taken from it.
    gone: bool,
}

/// What a client is told before it is left: nothing it could do later would help, and to go on would be silently wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "its guest's RAM at {address:#x} is not shared with the device; start QEMU with \
     -object memory-backend-memfd,id=m,size=...,share=on -machine memory-backend=m"
)]
pub struct NotShared {
    /// First bus address of the map.
    pub address: u64,
}

/// Zeroes a device's memory and gives it back to the host.
pub type Clear = Box<dyn FnMut() -> io::Result<()> + Send>;

impl FunctionBackend {
    /// For the function of the GPU of this number, which was made with this memory and these interrupts. `clear` is called when a client has left;
    /// without it the next one finds the memory of the device as it is.
    pub fn new(
        gpu: u8,
        function: Arc<dyn PciFunction>,
        memory: Arc<MappedSpace>,
        interrupts: Arc<ClientInterrupts>,
        clear: Option<Clear>,
    ) -> Self {
        let mappings = function.mappings();
        let event = function.event();
        Self { gpu, function, memory, interrupts, mappings, clear, client: None, event, gone: false }
    }

    /// The number of the GPU.
    pub fn gpu(&self) -> u8 {
        self.gpu
    }

    /// Gets ready for a client, which is told what is returned.
    pub fn meet_client(&mut self, client: Option<Peer>) -> Description {
        self.client = client;
        self.mappings = if self.gone { Vec::new() } else { self.function.mappings() };
        Description::of(self.function.as_ref())
    }

    /// Forgets the client: no map, no interrupt, and the function as after power-on.
    ///
    /// Interrupts go first, so that whatever the engines still have to say is not said to the next client; maps go before
    /// the reset, so that it does not wait for transfers that can no longer succeed.
    pub fn forget_client(&mut self) {
        self.client = None;
        self.interrupts.disconnect_all();
        self.memory.clear();
        self.function.reset();
        if let Some(Err(error)) = self.clear.as_mut().map(|clear| clear()) {
            log::warn!("vfio-user: the next client finds the device's memory as it is: {}", chain(&error));
        }
    }

    /// Refuses RAM that the guest and the device would see differently.
    fn check_shared(&self, address: u64, writable: bool, file: Option<&File>) -> io::Result<()> {
        let private = match file {
            Some(file) => self.client.is_some_and(|client| client.maps_only_privately(file)),
            // Without a file come ROMs and the BARs of other devices, too; but address 0 is RAM on every machine.
            None => address == 0 && writable,
        };
        if private { Err(io::Error::other(NotShared { address })) } else { Ok(()) }
    }

    /// The mapped part of a BAR that holds all of an access, and the access's offset in its file.
    fn mapped(&self, region: u32, offset: u64, length: usize) -> Option<(&File, u64)> {
        let end = offset.checked_add(length as u64)?;
        let mapping = self.mappings.iter().find(|mapping| {
            u32::from(mapping.bar) == region
                && offset >= mapping.offset
                && mapping.offset.checked_add(mapping.length).is_some_and(|limit| end <= limit)
        })?;
        Some((&mapping.file, mapping.file_offset.checked_add(offset - mapping.offset)?))
    }

    /// Carries out what is left of effects, of an access or not, for a bus whose client keeps BAR addresses and the MSI-X
    /// table itself.
    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::MsixSend { vector } => self.interrupts.signal(vector),
                // A BAR may have another size now. The client's region has the one that it had when the client came.
                Effect::BarMoved { .. } | Effect::MappingsChanged { .. } | Effect::Reset => {
                    self.mappings = self.function.mappings();
                }
                Effect::MsixChanged { .. } | Effect::MsixControlChanged => {}
                Effect::Gone => return self.remove_function(),
            }
        }
    }

    /// Does what follows from the function being gone. It does not come back.
    fn remove_function(&mut self) {
        log::info!("vfio-user: the function is gone");
        self.gone = true;
        self.interrupts.disconnect_all();
        self.memory.clear();
        self.mappings.clear();
        self.function.reset();
    }
}

impl Backend for FunctionBackend {
    fn event(&self) -> Option<Arc<EventFd>> {
        self.event.clone()
    }

    fn carry_out_pending(&mut self) {
        let effects = self.function.take_effects();
        if !self.gone {
            self.apply(effects);
        }
    }
}

/// The offset of a config space access; the session has checked that it is inside.
fn config_offset(offset: u64) -> io::Result<u16> {
    u16::try_from(offset).map_err(|_| error(libc::EINVAL))
}

fn bar_index(region: u32) -> io::Result<u8> {
    u8::try_from(region).map_err(|_| error(libc::EINVAL))
}

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// The `errno` that a refused map or unmap is answered with; the reason itself goes to the log.
fn map_error(refusal: MapError) -> io::Error {
    log::warn!("vfio-user: {refusal}");
    error(match refusal {
        MapError::Overlap { .. } => libc::EEXIST,
        MapError::TooMany => libc::ENOSPC,
        MapError::Mmap { .. } => libc::ENOMEM,
        _ => libc::EINVAL,
    })
}

impl ServerBackend for FunctionBackend {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        if self.gone {
            data.fill(0xff);
            return Ok(());
        }
        if region == VFIO_PCI_CONFIG_REGION_INDEX {
            self.function.config_read(config_offset(offset)?, data);
        } else if let Some((file, at)) = self.mapped(region, offset, data.len()) {
            file.read_exact_at(data, at)?;
        } else {
            self.function.bar_read(bar_index(region)?, offset, data);
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        if region == VFIO_PCI_CONFIG_REGION_INDEX {
            let effects = self.function.config_write(config_offset(offset)?, data);
            self.apply(effects);
        } else if let Some((file, at)) = self.mapped(region, offset, data.len()) {
            file.write_all_at(data, at)?;
        } else {
            let effects = self.function.bar_write(bar_index(region)?, offset, data);
            self.apply(effects);
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        file: Option<File>,
    ) -> io::Result<()> {
        let access = if flags == DmaMapFlags::READ_WRITE || flags == DmaMapFlags::WRITE {
            MapAccess::ReadWrite
        } else if flags == DmaMapFlags::READ {
            MapAccess::ReadOnly
        } else {
            return Err(error(libc::EINVAL));
        };
        self.check_shared(address, access == MapAccess::ReadWrite, file.as_ref())?;
        // Memory without a file is what a client has no RAM behind. DMA there fails. A function that is gone does none.
        let Some(file) = file.filter(|_| !self.gone) else { return Ok(()) };
        self.memory.map_file(address, size, file, offset, access).map_err(map_error)
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        if flags == DmaUnmapFlags::UNMAP_ALL {
            if address != 0 || size != 0 {
                return Err(error(libc::EINVAL));
            }
            self.memory.clear();
        } else if flags.is_empty() {
            if !self.gone {
                self.memory.unmap(address, size).map_err(map_error)?;
            }
        } else {
            return Err(error(libc::ENOTSUP)); // dirty page tracking is for migration
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let effects = self.function.reset();
        self.apply(effects);
        Ok(())
    }

    fn set_irqs(&mut self, index: u32, flags: u32, start: u32, count: u32, fds: Vec<File>) -> io::Result<()> {
        if flags & VFIO_IRQ_SET_ACTION_TYPE_MASK != VFIO_IRQ_SET_ACTION_TRIGGER {
            return Err(error(libc::EINVAL)); // masks are the client's business
        }
        // Errors and requests to give the device back never happen, so there is nothing to connect.
        if index != VFIO_PCI_MSIX_IRQ_INDEX || self.gone {
            return Ok(());
        }
        match flags & VFIO_IRQ_SET_DATA_TYPE_MASK {
            VFIO_IRQ_SET_DATA_EVENTFD => self.interrupts.connect(start, count, fds),
            VFIO_IRQ_SET_DATA_NONE if count == 0 => {
                self.interrupts.disconnect_all();
                Ok(())
            }
            VFIO_IRQ_SET_DATA_NONE => {
                let end = start.checked_add(count).filter(|end| *end <= u32::from(self.function.msix_vectors()));
                let end = end.ok_or_else(|| error(libc::EINVAL))?;
                (start..end).filter_map(|vector| u16::try_from(vector).ok()).for_each(|v| self.interrupts.signal(v));
                Ok(())
            }
            VFIO_IRQ_SET_DATA_BOOL => Err(error(libc::ENOTSUP)),
            _ => Err(error(libc::EINVAL)),
        }
    }
}
