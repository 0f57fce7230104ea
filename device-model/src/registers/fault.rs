// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers by which faults are answered.

use ersatz_abi::counter::Counter;
use ersatz_abi::pci::VECTOR_ERROR;

use crate::channel::{Cancelled, ChannelFailure, CheckedSetup};
use crate::device::Device;
use crate::inject::site::Site;
use crate::interrupt::InterruptCause;
use crate::trace::event::Subject;
use crate::trace::{Event, NotificationEvent, Step};

/// One bit for each channel that waits at a fault.
pub(super) fn faulted_channels(device: &Device) -> u64 {
    let faulted = (0..).zip(&device.channels).filter(|(_, channel)| channel.is_faulted());
    faulted.fold(0, |mask, (number, _)| mask | 1 << number)
}

/// Makes the channels that wait at a fault try again, but not those that come to wait meanwhile. Returns whether the register
/// accepts the value.
pub(super) fn replay(device: &Device, value: u64) -> bool {
    if value != 1 {
        return false;
    }
    let channels = faulted_channels(device);
    device.unless_reset(|| {
        device.counters.add(Counter::Replays, 1);
        device.ports.tracer.emit(NotificationEvent::Replay { channels }.into());
    });
    for (number, channel) in (0..).zip(&device.channels) {
        if channels & (1 << number) != 0 && channel.replay(|setup, failure| hold(device, number, setup, failure)) {
            device.kick(number);
        }
    }
    true
}

/// Returns the hold that a channel which tries again has to wait for: the one that began when its fault was recorded, or one that
/// begins here. Called with the channel's lock held.
fn hold(device: &Device, number: u8, setup: &CheckedSetup, failure: ChannelFailure) -> Option<u64> {
    let injector = &device.ports.injector;
    let held = injector.hold_of(number);
    if held.is_some() || !injector.is_watched(Step::BeforeReplay) {
        return held;
    }
    let subject = Subject { channel: Some(number), engine: Some(setup.engine), asid: Some(setup.asid), cause: None };
    let event = NotificationEvent::Replay { channels: 1 << number }.into();
    let site = Site { step: Step::BeforeReplay, event, subject, address: Some(failure.address) };
    let hold = injector.arrive(&site)?;
    injector.begin(hold);
    Some(hold)
}

/// Ends the waiting of a channel with an error; one that does not wait stays as it is. Returns whether there is such a channel.
pub(super) fn cancel(device: &Device, value: u64) -> bool {
    let Some((number, channel)) =
        u8::try_from(value).ok().and_then(|number| Some((number, device.channels.get(usize::from(number))?)))
    else {
        return false;
    };
    let mut told = None;
    let cancelled = channel.cancel(|cancelled| {
        let Cancelled { failure: ChannelFailure { code, entry, address }, position, vector, engine, task } = *cancelled;
        device.ports.injector.drop_holds(number);
        device.ports.tracer.emit(NotificationEvent::FaultCancelled { channel: number, address, position }.into());
        device.ports.tracer.emit(Event::CommandEnd {
            channel: number,
            engine,
            cause: task.command.cause,
            opcode: task.command.operation.opcode(),
            position,
            error: code,
            bytes: task.bytes,
            tag: task.command.tag,
        });
        device.ports.tracer.emit(Event::ChannelError { channel: number, error: code, position, entry, address });
        told = vector;
    });
    if cancelled {
        device.unless_reset(|| {
            device.counters.add(Counter::FaultsCancelled, 1);
            device.counters.add(Counter::ChannelErrors, 1);
            device.raise(told.unwrap_or(VECTOR_ERROR), InterruptCause::ChannelError(number));
        });
    }
    true
}
