// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device tells of itself to those who watch it from the host.

use ersatz_abi::channel::Priority;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::PageSize;
use ersatz_device_model::inject::{Breakpoint, Step, TranslationView};

use ersatz_device_testing::faults::{ASID, BASE, COMPUTE, bind, is_faulted, replayable, set, with_buffer};
use ersatz_device_testing::tables::page;

#[test]
fn a_device_at_a_fault_and_at_a_hold() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    host.submit(set(BASE, 8, 77));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    let view = host.gpu.query();
    let [channel] = &view.channels[..] else { panic!("{view:?}") };
    assert_eq!((channel.channel, channel.state, channel.get, channel.fence), (0, "faulted", 0, 0));
    assert_eq!((channel.waits_for, channel.faulted_at), (Some("replay"), Some(BASE)));
    assert_eq!((view.fault_buffer.enabled, view.fault_buffer.put, view.access_ring.enabled), (true, 1, false));
    assert_eq!(view.address_spaces.iter().map(|space| space.asid).collect::<Vec<_>>(), [ASID]);
    assert!(view.translations.is_empty() && view.holds.is_empty() && view.hung_engines.is_empty());

    space.map(&host, BASE, page(Location::vram(4096), PageSize::Small));
    host.gpu.inject().set_breakpoint(Breakpoint::new("fence", Step::BeforeFence)).unwrap();
    host.write32(ersatz_abi::regs::FAULT_REPLAY.offset, 1);
    host.wait_until("the hold", |host| !host.gpu.inject().holds().is_empty());
    let view = host.gpu.query();
    assert_eq!((view.channels[0].waits_for, view.holds[0].name.as_str()), (Some("hold"), "fence"));
    let translation = TranslationView {
        engine: COMPUTE as u8,
        asid: ASID,
        address: BASE,
        bytes: 4096,
        aperture: "vram",
        location: 4096,
        write: true,
    };
    assert_eq!(view.translations, [translation]);
    let text = serde_json::to_string(&view).unwrap();
    assert!(text.contains(r#""waits-for":"hold""#), "{text}");
    host.gpu.inject().resume_breakpoint("fence");
    host.wait_until("its end", |host| host.fence() == 1);
}
