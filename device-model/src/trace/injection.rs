// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The enumerations of the events of breakpoints and rules.

use super::enumeration::{Enumeration, Named, enumerations, numbered};

enumerations! { Step, HoldEnd, ActionKind }

numbered! {
    /// A step of the device at which a breakpoint can hold a channel or an acknowledgement.
    pub enum Step {
        /// A command was fetched and decoded, and nothing of it is done.
        CommandFetched = 1 => "command-fetched",
        /// A piece of a command's work is about to begin.
        BeforePiece = 2 => "before-piece",
        /// A piece of a command's work is done.
        AfterPiece = 3 => "after-piece",
        /// The work of a command is done, and its fence value is about to be written.
        BeforeFence = 4 => "before-fence",
        /// The fence value is written, and GET is about to be.
        BeforeGet = 5 => "before-get",
        /// GET is written, and the interrupt of the command is about to be raised.
        BeforeInterrupt = 6 => "before-interrupt",
        /// An invalidation was carried out, and is about to be acknowledged.
        BeforeInvalidationAck = 7 => "before-invalidation-ack",
        /// The record of a fault is in the fault buffer. A replay that comes during the hold takes effect at its end.
        AfterFaultRecord = 8 => "after-fault-record",
        /// The driver has requested a replay, and the access is about to be tried again.
        BeforeReplay = 9 => "before-replay",
    }
}

numbered! {
    /// How a hold ended.
    pub enum HoldEnd {
        /// It was resumed.
        Resumed = 1 => "resumed",
        /// Its deadline passed.
        Deadline = 2 => "deadline",
        /// What was held was reset.
        Reset = 3 => "reset",
    }
}

numbered! {
    /// What kind of thing a rule made the device do.
    pub enum ActionKind {
        /// A command or a list entry failed.
        Fail = 1 => "fail",
        /// Something comes later.
        Delay = 2 => "delay",
        /// Something does not come about.
        Drop = 3 => "drop",
        /// Something comes twice.
        Double = 4 => "double",
        /// A record was lost as if its ring were full.
        Overflow = 5 => "overflow",
        /// An engine executes nothing until the device is reset.
        Hang = 6 => "hang",
        /// An interrupt is raised for which there is no reason.
        SpuriousInterrupt = 7 => "spurious-interrupt",
        /// The function resets itself.
        Reset = 8 => "reset",
        /// The function is gone.
        Gone = 9 => "gone",
        /// The rules changed their state.
        SetState = 10 => "set-state",
        /// The bus refused a DMA access.
        Refuse = 11 => "refuse",
        /// A record was announced before it was there.
        AnnounceEarly = 12 => "announce-early",
        /// Faults were reported at which no channel waits.
        Fault = 13 => "fault",
        /// Pages of VRAM were poisoned.
        Poison = 14 => "poison",
        /// Memory was demanded from the driver.
        DemandMemory = 15 => "demand-memory",
        /// Memory was returned to the driver.
        ReturnMemory = 16 => "return-memory",
        /// A limit was set to the memory that the driver has.
        LimitMemory = 17 => "limit-memory",
        /// Something comes behind the next of its kind.
        Reorder = 18 => "reorder",
    }
}
