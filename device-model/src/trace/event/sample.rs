// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any value of each type that an event's field can have.

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::command::{Aperture, Location};
use ersatz_abi::fault::{AccessKind, FaultKind, FaultRecord};
use ersatz_abi::mmu::Invalidation;
use proptest::prelude::*;

use crate::trace::enumeration::Named;
use crate::trace::fields::NONE;

/// A type of fields of events.
pub(super) trait Sample: Sized + std::fmt::Debug {
    /// A strategy for values that can stand in a record.
    fn strategy() -> BoxedStrategy<Self>;
}

/// A strategy for values of a type.
pub(super) fn sample<T: Sample>() -> BoxedStrategy<T> {
    T::strategy()
}

macro_rules! plain {
    ($($Type:ty),*) => {$(
        impl Sample for $Type {
            fn strategy() -> BoxedStrategy<Self> {
                any::<Self>().boxed()
            }
        }
    )*};
}

plain! { bool, u8, u16, u32, u64, Option<u64> }

impl Sample for Option<u8> {
    fn strategy() -> BoxedStrategy<Self> {
        prop::option::of(0..NONE).boxed()
    }
}

impl<T: Named + std::fmt::Debug> Sample for T {
    fn strategy() -> BoxedStrategy<Self> {
        prop::sample::select(T::VARIANTS).boxed()
    }
}

impl Sample for Location {
    fn strategy() -> BoxedStrategy<Self> {
        let location = (sample::<Aperture>(), 0u8..16, any::<u64>());
        location.prop_map(|(aperture, peer, address)| Self { aperture, peer, address }).boxed()
    }
}

impl Sample for Invalidation {
    fn strategy() -> BoxedStrategy<Self> {
        let range = (any::<u8>(), any::<u64>(), any::<u64>()).prop_map(|(asid, address, length)| Self::Range {
            asid,
            address,
            length: length.clamp(1, (u64::MAX - address).max(1)),
        });
        prop_oneof![Just(Self::All), any::<u8>().prop_map(Self::AddressSpace), range].boxed()
    }
}

impl Sample for FaultRecord {
    fn strategy() -> BoxedStrategy<Self> {
        let number = any::<(u64, u64, u64)>;
        (any::<(u8, u8, u8, u8)>(), sample::<AccessKind>(), sample::<FaultKind>(), number())
            .prop_map(|((asid, channel, engine, level), access, kind, (address, timestamp, number))| Self {
                address,
                asid,
                channel,
                engine,
                access,
                kind,
                level,
                timestamp,
                number,
            })
            .boxed()
    }
}

impl Sample for AccessRecord {
    fn strategy() -> BoxedStrategy<Self> {
        (any::<(u8, u8, u8)>(), sample::<Aperture>(), any::<(u64, u64, u64)>())
            .prop_map(|((asid, channel, engine), aperture, (region, timestamp, count))| Self {
                region,
                asid,
                channel,
                engine,
                aperture,
                timestamp,
                count,
            })
            .boxed()
    }
}
