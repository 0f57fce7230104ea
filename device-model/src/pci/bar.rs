// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Base address registers: how they are sized, and where they decode.

use super::config::ConfigSpace;
use crate::bus::BarInfo;

/// Offset of BAR 0 in config space.
const FIRST_BAR: u16 = 0x10;
/// Type field: decodes anywhere in 64 bits, and takes the next register too.
const TYPE_64BIT: u32 = 0b100;
/// Reads have no side effects.
const PREFETCHABLE: u32 = 0b1000;
/// The low bits of a memory BAR, which are no address.
const ATTRIBUTES: u64 = 0b1111;

fn register(bar: u8) -> u16 {
    FIRST_BAR + u16::from(bar) * 4
}

/// Defines a BAR's registers. Only the address bits from its size upwards are writable, which is how software finds
/// out the size.
pub fn define(config: &mut ConfigSpace, info: &BarInfo) {
    let mut attributes = 0;
    if info.is_64bit {
        attributes |= TYPE_64BIT;
    }
    if info.prefetchable {
        attributes |= PREFETCHABLE;
    }
    let writable = !(info.size - 1) & !ATTRIBUTES;
    let initial = u64::from(attributes);
    if info.is_64bit {
        config.define(register(info.bar), initial.to_le_bytes(), writable.to_le_bytes());
    } else {
        let [a, b, c, d, ..] = writable.to_le_bytes();
        config.define(register(info.bar), attributes.to_le_bytes(), [a, b, c, d]);
    }
}

/// Where a BAR would decode, were decoding on: `None` for address zero (nobody placed it) and at the very top of the
/// address space, where writing all ones to find out the size leaves it.
pub fn address(config: &ConfigSpace, info: &BarInfo) -> Option<u64> {
    let (raw, limit) = if info.is_64bit {
        (u64::from_le_bytes(config.get(register(info.bar))), u64::MAX)
    } else {
        (u64::from(config.dword(register(info.bar))), u64::from(u32::MAX))
    };
    let address = raw & !ATTRIBUTES;
    let last = address.checked_add(info.size - 1)?;
    (address != 0 && last < limit).then_some(address)
}
