// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Places of the records of the notification rings. Both leave the length and the status free, for the position in the ring or
//! the reason why a record is not there.

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::fault::FaultRecord;

use super::{ADDRESS, ASID, CHANNEL, DETAIL, DETAIL_HIGH, DETAIL_LOW, ENGINE, FLAGS, FieldPlace, ID, SECOND, Subject};
use crate::trace::fields::Fields;

/// A fault record.
pub(in super::super) const FAULT_RECORD: InFaultRecord = InFaultRecord;
/// The type of [`FAULT_RECORD`].
pub(in super::super) struct InFaultRecord;

impl FieldPlace<FaultRecord> for InFaultRecord {
    fn put(&self, value: FaultRecord, fields: &mut Fields) {
        let FaultRecord { address, asid, channel, engine, access, kind, level, timestamp, number } = value;
        DETAIL_LOW.put(access, fields);
        DETAIL_HIGH.put(kind, fields);
        FLAGS.put(level, fields);
        CHANNEL.put(channel, fields);
        ENGINE.put(engine, fields);
        ADDRESS.put(address, fields);
        SECOND.put(timestamp, fields);
        ID.put(number, fields);
        ASID.put(asid, fields);
    }

    fn get(&self, fields: &Fields) -> Option<FaultRecord> {
        Some(FaultRecord {
            address: ADDRESS.get(fields)?,
            asid: ASID.get(fields)?,
            channel: CHANNEL.get(fields)?,
            engine: ENGINE.get(fields)?,
            access: DETAIL_LOW.get(fields)?,
            kind: DETAIL_HIGH.get(fields)?,
            level: FLAGS.get(fields)?,
            timestamp: SECOND.get(fields)?,
            number: ID.get(fields)?,
        })
    }

    fn concern(&self, value: FaultRecord, subject: &mut Subject) {
        let FaultRecord { channel, engine, asid, .. } = value;
        *subject = Subject { channel: Some(channel), engine: Some(engine), asid: Some(asid), ..*subject };
    }
}

/// An access record. The count stands where the number of a fault does.
pub(in super::super) const ACCESS_RECORD: InAccessRecord = InAccessRecord;
/// The type of [`ACCESS_RECORD`].
pub(in super::super) struct InAccessRecord;

impl FieldPlace<AccessRecord> for InAccessRecord {
    fn put(&self, value: AccessRecord, fields: &mut Fields) {
        let AccessRecord { region, asid, channel, engine, aperture, timestamp, count } = value;
        DETAIL.put(aperture, fields);
        CHANNEL.put(channel, fields);
        ENGINE.put(engine, fields);
        ADDRESS.put(region, fields);
        SECOND.put(timestamp, fields);
        ID.put(count, fields);
        ASID.put(asid, fields);
    }

    fn get(&self, fields: &Fields) -> Option<AccessRecord> {
        Some(AccessRecord {
            region: ADDRESS.get(fields)?,
            asid: ASID.get(fields)?,
            channel: CHANNEL.get(fields)?,
            engine: ENGINE.get(fields)?,
            aperture: DETAIL.get(fields)?,
            timestamp: SECOND.get(fields)?,
            count: ID.get(fields)?,
        })
    }

    fn concern(&self, value: AccessRecord, subject: &mut Subject) {
        let AccessRecord { channel, engine, asid, .. } = value;
        *subject = Subject { channel: Some(channel), engine: Some(engine), asid: Some(asid), ..*subject };
    }
}
