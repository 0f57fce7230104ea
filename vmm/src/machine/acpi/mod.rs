// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ACPI tables: processors and interrupt controllers (MADT), config space (MCFG), power-off and reset (FADT), PCI
//! root bridge and serial port (DSDT).
//!
//! The machine is hardware-reduced ACPI: there is no PM timer, SCI or 8259, and Linux probes for none of the PC's old
//! devices, which makes it boot faster.

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout::{ACPI_TABLES, ECAM, IO_APIC, LOCAL_APIC, Layout};
use super::platform::{PORT_RESET, PORT_SLEEP_CONTROL, PORT_SLEEP_STATUS, RESET_VALUE};

const OEM_ID: [u8; 6] = *b"ERSATZ";
const OEM_TABLE_ID: [u8; 8] = *b"ERSATZVM";
const OEM_REVISION: u32 = 1;
/// Tables start at multiples of this.
const ALIGNMENT: u64 = 16;
/// IA-PC boot flags: there is no VGA, and no CMOS clock; bits that would announce old devices are clear.
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 5;

/// Why the tables were not written.
#[derive(Debug, Error)]
pub enum AcpiError {
    /// They need more room than there is.
    #[error("the ACPI tables need {0} bytes, more than there is room for")]
    TooLarge(u64),
    /// Guest memory is too small.
    #[error("cannot write the ACPI tables")]
    Write(#[from] GuestMemoryError),
}

/// Puts tables one behind the other into their room.
struct Writer<'a> {
    memory: &'a GuestMemoryMmap,
    next: u64,
}

impl Writer<'_> {
    /// Writes a table; returns its address.
    fn add(&mut self, table: &dyn Aml) -> Result<u64, AcpiError> {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        self.add_bytes(&bytes)
    }

    fn add_bytes(&mut self, bytes: &[u8]) -> Result<u64, AcpiError> {
        let address = self.next;
        let end = address + bytes.len() as u64;
        if end > ACPI_TABLES.end {
            return Err(AcpiError::TooLarge(end - ACPI_TABLES.start));
        }
        self.memory.write_slice(bytes, GuestAddress(address))?;
        self.next = end.next_multiple_of(ALIGNMENT);
        Ok(address)
    }
}

/// Writes all tables; the RSDP is at the start of [`ACPI_TABLES`]. PCI buses are 0 to `last_bus`.
///
/// # Errors
///
/// [`AcpiError`] if there is no room for them.
pub fn write_tables(memory: &GuestMemoryMmap, layout: &Layout, last_bus: u8, vcpus: u8) -> Result<(), AcpiError> {
    let rsdp = ACPI_TABLES.start;
    let mut writer = Writer { memory, next: (rsdp + Rsdp::len() as u64).next_multiple_of(ALIGNMENT) };
    let dsdt = writer.add_bytes(dsdt::table(layout, last_bus).as_slice())?;

    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in [&fadt(dsdt) as &dyn Aml, &madt(vcpus), &mcfg(last_bus)] {
        xsdt.add_entry(writer.add(table)?);
    }
    let xsdt = writer.add(&xsdt)?;

    writer.next = rsdp;
    writer.add(&Rsdp::new(OEM_ID, xsdt))?;
    Ok(())
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd);
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.sleep_control_reg = port(PORT_SLEEP_CONTROL);
    fadt.sleep_status_reg = port(PORT_SLEEP_STATUS);
    fadt.reset_reg = port(PORT_RESET);
    fadt.reset_value = RESET_VALUE;
    fadt.finalize()
}

/// An 8-bit register at an I/O port.
fn port(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}

fn madt(vcpus: u8) -> impl Aml {
    let controller = LocalInterruptController::Address(LOCAL_APIC as u32);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, controller);
    for vcpu in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(vcpu, vcpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IO_APIC as u32, 0));
    madt
}

fn mcfg(last_bus: u8) -> impl Aml {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ECAM.start, 0, 0, last_bus);
    mcfg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory::allocate;

    /// The table at an address, with its checksum checked.
    fn table(memory: &GuestMemoryMmap, address: u64) -> Vec<u8> {
        let length: u32 = memory.read_obj(GuestAddress(address + 4)).unwrap();
        let mut bytes = vec![0; length as usize];
        memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        assert_eq!(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        bytes
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    #[test]
    fn all_tables_are_reached_from_the_rsdp() {
        let layout = Layout::new(64 << 20, 40).unwrap();
        let memory = allocate(&layout).unwrap();
        write_tables(&memory, &layout, 8, 254).unwrap();
        let mut rsdp = [0; 36];
        memory.read_slice(&mut rsdp, GuestAddress(ACPI_TABLES.start)).unwrap();
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        let xsdt = table(&memory, u64_at(&rsdp, 24));
        let entries: Vec<_> = xsdt[36..].chunks(8).map(|entry| table(&memory, u64_at(entry, 0))).collect();
        let signatures: Vec<_> = entries.iter().map(|entry| &entry[..4]).collect();
        assert_eq!(signatures, [b"FACP", b"APIC", b"MCFG"]);
        let dsdt = table(&memory, u64_at(&entries[0], 140));
        assert_eq!(&dsdt[..4], b"DSDT");
        // Header, 254 local APICs of 8 bytes, one I/O APIC of 12.
        assert_eq!(entries[1].len(), 44 + 254 * 8 + 12);
        assert_eq!(u64_at(&entries[2], 44), ECAM.start);
        assert_eq!(entries[2][52..56], [0, 0, 0, 8], "segment, first and last bus");
    }
}
