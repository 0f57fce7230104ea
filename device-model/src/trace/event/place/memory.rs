// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Places of what is made of several fields: memory in an aperture, pages, invalidations.

use ersatz_abi::command::{Aperture, Location};
use ersatz_abi::mmu::{InvalidateTarget, Invalidation, PageSize};

use super::{
    ADDRESS, AddressWord, DETAIL_HIGH, DETAIL_LOW, DetailHigh, DetailLow, FLAGS_HIGH, FLAGS_LOW, FieldPlace, FlagsHigh,
    FlagsLow, LENGTH, SECOND, SecondWord, Subject,
};
use crate::trace::fields::Fields;

/// A location: the places of its aperture, its peer and its address.
pub(in super::super) struct Located<A, P, W>(A, P, W);

/// The source: the low halves, and the address.
pub(in super::super) const SOURCE: Located<DetailLow, FlagsLow, AddressWord> = Located(DETAIL_LOW, FLAGS_LOW, ADDRESS);
/// The destination: the high halves, and the second address.
pub(in super::super) const DESTINATION: Located<DetailHigh, FlagsHigh, SecondWord> =
    Located(DETAIL_HIGH, FLAGS_HIGH, SECOND);
/// The memory that a virtual address is translated to. The low half of the flags remains free.
pub(in super::super) const TARGET: Located<DetailLow, FlagsHigh, SecondWord> = Located(DETAIL_LOW, FLAGS_HIGH, SECOND);

impl<A: FieldPlace<Aperture>, P: FieldPlace<u8>, W: FieldPlace<u64>> FieldPlace<Location> for Located<A, P, W> {
    #[inline]
    fn put(&self, value: Location, fields: &mut Fields) {
        self.0.put(value.aperture, fields);
        self.1.put(value.peer, fields);
        self.2.put(value.address, fields);
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<Location> {
        Some(Location { aperture: self.0.get(fields)?, peer: self.1.get(fields)?, address: self.2.get(fields)? })
    }
}

/// The one location of an event that has no source: the destination, with its aperture and peer where those of a source
/// would stand, too.
pub(in super::super) const BOTH_ENDS: BothEnds = BothEnds;
/// The type of [`BOTH_ENDS`].
pub(in super::super) struct BothEnds;

impl FieldPlace<Location> for BothEnds {
    #[inline]
    fn put(&self, value: Location, fields: &mut Fields) {
        DESTINATION.put(value, fields);
        DETAIL_LOW.put(value.aperture, fields);
        FLAGS_LOW.put(value.peer, fields);
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<Location> {
        let _: Aperture = DETAIL_LOW.get(fields)?;
        DESTINATION.get(fields)
    }
}

/// The size of a page: its number and its length, which must agree.
pub(in super::super) const PAGE_SIZE: Size = Size;
/// The type of [`PAGE_SIZE`].
pub(in super::super) struct Size;

impl FieldPlace<PageSize> for Size {
    #[inline]
    fn put(&self, value: PageSize, fields: &mut Fields) {
        DETAIL_HIGH.put(value, fields);
        LENGTH.put(value.bytes(), fields);
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<PageSize> {
        DETAIL_HIGH.get(fields).filter(|size: &PageSize| size.bytes() == fields.length)
    }
}

/// An invalidation: the address and the length, and the target as the second address.
pub(in super::super) const INVALIDATION: Invalidated = Invalidated;
/// The type of [`INVALIDATION`].
pub(in super::super) struct Invalidated;

impl FieldPlace<Invalidation> for Invalidated {
    #[inline]
    fn put(&self, value: Invalidation, fields: &mut Fields) {
        let (target, address, length) = value.encode();
        (fields.second, fields.address, fields.length) = (target.0, address, length);
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<Invalidation> {
        Invalidation::decode(InvalidateTarget(fields.second), fields.address, fields.length)
    }

    #[inline]
    fn concern(&self, value: Invalidation, subject: &mut Subject) {
        subject.asid = match value {
            Invalidation::AddressSpace(asid) | Invalidation::Range { asid, .. } => Some(asid),
            Invalidation::All => None,
        };
    }
}
