// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The state of a device, as it is shown on the host.

use ersatz_abi::channel::ChannelState;
use ersatz_abi::mmu::{ADDRESS_SPACES, Page};

use super::Device;
use crate::channel::{Channel, Wait};
use crate::inject::{AddressSpaceView, ChannelView, DeviceView, RingView, TranslationView};
use crate::notification::NotificationRing;

impl Device {
    /// What the device knows of itself.
    pub(crate) fn query(&self) -> DeviceView {
        let asids = 0..=u8::try_from(ADDRESS_SPACES - 1).unwrap_or(u8::MAX);
        let engines = 0..self.engine_count();
        DeviceView {
            channels: (0..).zip(&self.channels).filter_map(|(number, channel)| channel_view(number, channel)).collect(),
            fault_buffer: ring_view(&self.faults.ring),
            access_ring: ring_view(&self.access_counters.ring),
            acknowledged: self.mmu.acknowledged(),
            address_spaces: asids
                .filter_map(|asid| {
                    let space = self.mmu.spaces.enabled(asid)?;
                    Some(AddressSpaceView { asid, root: space.root.0, replayable: space.control.replayable() })
                })
                .collect(),
            translations: engines.clone().flat_map(|engine| self.translations(engine)).collect(),
            hung_engines: engines.filter(|engine| self.is_hung(*engine)).collect(),
            memory: self.memory_view(),
            holds: self.ports.injector.holds(),
        }
    }

    fn translations(&self, engine: u8) -> Vec<TranslationView> {
        let view = |(asid, address, page): (u8, u64, Page)| TranslationView {
            engine,
            asid,
            address,
            bytes: page.size.bytes(),
            aperture: page.location.aperture.name(),
            location: page.location.address,
            write: page.write,
        };
        self.mmu.translations(engine).into_iter().map(view).collect()
    }
}

fn channel_view(number: u8, channel: &Channel) -> Option<ChannelView> {
    let now = channel.snapshot();
    let state = now.status.state().filter(|state| *state != ChannelState::Disabled)?;
    let (fence, wait) = channel.progress();
    Some(ChannelView {
        channel: number,
        state: state.name(),
        error: now.status.error().map_or("unknown", |error| error.name()),
        engine: now.setup.engine,
        asid: now.setup.asid,
        get: now.get,
        fence,
        waits_for: wait.map(|wait| match wait {
            Wait::Replay(..) => "replay",
            Wait::Acknowledgement(_) => "acknowledgement",
            Wait::Hold(_) => "hold",
            Wait::Time(_) => "time",
        }),
        faulted_at: match wait {
            Some(Wait::Replay(failure, _)) => Some(failure.address),
            _ => None,
        },
    })
}

fn ring_view(ring: &NotificationRing) -> RingView {
    let now = ring.snapshot();
    RingView { enabled: now.control.enable(), get: now.get, put: now.put, overflow: now.status.overflow() }
}
