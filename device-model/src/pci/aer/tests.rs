// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use super::*;

const READ: Request = Request { kind: Kind::Read, address: 0x1_2345_6000, length: 4096 };

fn dword(log: &ErrorLog, at: u16) -> u32 {
    let mut data = [0; 4];
    log.read(at, &mut data);
    u32::from_le_bytes(data)
}

fn word(log: &ErrorLog, at: u16) -> u16 {
    let mut data = [0; 2];
    log.read(at, &mut data);
    u16::from_le_bytes(data)
}

fn header(log: &ErrorLog) -> [u32; 4] {
    [0, 4, 8, 12].map(|at| dword(log, HEADER_LOG + at))
}

fn unmasked() -> ErrorLog {
    let log = ErrorLog::new(0x0008);
    log.write(UNCORRECTABLE_MASK, &[0; 4]);
    log
}

#[test]
fn after_power_on_it_is_as_the_specification_says() {
    let log = ErrorLog::new(0);
    assert_eq!(dword(&log, UNCORRECTABLE_STATUS), 0);
    assert_eq!(dword(&log, UNCORRECTABLE_MASK), 0x0040_0000);
    assert_eq!(dword(&log, UNCORRECTABLE_SEVERITY), 0x0044_0010);
    assert_eq!(dword(&log, CORRECTABLE_MASK), 0x2000);
    assert_eq!((dword(&log, CONTROL), header(&log)), (0, [0; 4]));
}

#[test]
fn completions_show_in_the_status_register() {
    for (refusal, bit) in [(Refusal::UnsupportedRequest, 1 << 13), (Refusal::CompleterAbort, 1 << 12)] {
        let log = ErrorLog::new(0);
        log.refused(refusal, &READ);
        assert_eq!(word(&log, STATUS), bit);
        log.write(STATUS, &[0xff, 0]);
        log.write(COMMAND, &[0xff; 2]);
        assert_eq!(word(&log, STATUS), bit, "only a one at its place clears it");
        log.write(STATUS + 1, &[(bit >> 8) as u8]);
        assert_eq!(word(&log, STATUS), 0);
    }
}

#[test]
fn a_masked_error_sets_its_bit_and_logs_nothing() {
    let log = ErrorLog::new(0);
    log.refused(Refusal::UnsupportedRequest, &READ);
    assert_eq!(dword(&log, UNCORRECTABLE_STATUS), 1 << 22);
    assert_eq!(word(&log, DEVICE_STATUS), FATAL_DETECTED, "whatever the mask says");
    assert_eq!((dword(&log, CONTROL), header(&log)), (0, [0; 4]));
    log.write(UNCORRECTABLE_MASK, &[0; 4]);
    assert_eq!(dword(&log, CONTROL), 0, "unmasking logs nothing in hindsight");
    log.refused(Refusal::UnsupportedRequest, &READ);
    assert_eq!((dword(&log, CONTROL), header(&log)[2]), (22, 1), "but the next one is logged");
}

#[test]
fn the_first_header_stays_until_its_bit_is_cleared() {
    let log = unmasked();
    log.refused(Refusal::UnsupportedRequest, &READ);
    let first = header(&log);
    assert_eq!(first, [0x2000_0020, 0x0008_00ff, 1, 0x2345_6000]);
    let write = Request { kind: Kind::Write, address: 0x8000, length: 8 };
    log.refused(Refusal::CompleterAbort, &write);
    assert_eq!(header(&log), first);
    log.write(UNCORRECTABLE_STATUS, &(!(1_u32 << 22)).to_le_bytes());
    assert_eq!(dword(&log, CONTROL), 22, "other bits clear nothing");
    log.write(UNCORRECTABLE_STATUS + 2, &[0x40]);
    assert_eq!((dword(&log, UNCORRECTABLE_STATUS), dword(&log, CONTROL)), (0, 0));
    log.refused(Refusal::CompleterAbort, &write);
    assert_eq!((dword(&log, CONTROL), header(&log)), (22, [0x4000_0002, 0x0008_00ff, 0x8000, 0]));
}

#[test]
fn severity_and_serr_decide_what_else_is_set() {
    let log = unmasked();
    log.write(UNCORRECTABLE_SEVERITY, &[0; 4]);
    log.refused(Refusal::UnsupportedRequest, &READ);
    assert_eq!(word(&log, DEVICE_STATUS), NON_FATAL_DETECTED);
    assert_eq!(word(&log, STATUS), RECEIVED_MASTER_ABORT);
    let mut config = ConfigSpace::new();
    config.define(COMMAND, COMMAND_SERR.to_le_bytes(), [0; 2]);
    log.follow(&config);
    log.refused(Refusal::UnsupportedRequest, &READ);
    assert_eq!(word(&log, STATUS), RECEIVED_MASTER_ABORT | SIGNALED_SYSTEM_ERROR);
    log.write(DEVICE_STATUS, &[0xff, 0xff]);
    assert_eq!(word(&log, DEVICE_STATUS), 0);
}

#[test]
fn packets_are_as_large_as_device_control_lets_them_be() {
    let log = unmasked();
    let mut config = ConfigSpace::new();
    config.define(DEVICE_CONTROL, (1_u16 << 5 | 5 << 12).to_le_bytes(), [0; 2]);
    log.follow(&config);
    log.refused(Refusal::UnsupportedRequest, &READ);
    assert_eq!(header(&log)[0], 0x2000_0000, "4096 bytes to read");
    log.write(UNCORRECTABLE_STATUS, &[0xff; 4]);
    log.refused(Refusal::UnsupportedRequest, &Request { kind: Kind::Write, ..READ });
    assert_eq!(header(&log)[0], 0x6000_0040, "256 bytes to write");
}

#[test]
fn the_capability_survives_a_function_level_reset_only() {
    let log = unmasked();
    log.write(UNCORRECTABLE_SEVERITY, &[0; 4]);
    log.write(CORRECTABLE_MASK, &[0xff; 4]);
    log.refused(Refusal::UnsupportedRequest, &READ);
    log.reset();
    assert_eq!((word(&log, STATUS), word(&log, DEVICE_STATUS)), (0, 0));
    assert_eq!((dword(&log, UNCORRECTABLE_STATUS), dword(&log, CONTROL)), (1 << 22, 22));
    assert_eq!((dword(&log, UNCORRECTABLE_MASK), dword(&log, UNCORRECTABLE_SEVERITY)), (0, 0));
    assert_eq!((dword(&log, CORRECTABLE_MASK), header(&log)[2]), (CORRECTABLE, 1));
    log.power_on();
    assert_eq!((dword(&log, UNCORRECTABLE_STATUS), header(&log)), (0, [0; 4]));
    assert_eq!(dword(&log, UNCORRECTABLE_MASK), 1 << 22);
}

#[test]
fn reserved_bits_do_not_stick_and_reads_of_any_width_agree() {
    let log = ErrorLog::new(0);
    log.write(AER, &[0xff; LENGTH as usize]);
    assert_eq!(dword(&log, UNCORRECTABLE_MASK), UNCORRECTABLE);
    assert_eq!(dword(&log, UNCORRECTABLE_SEVERITY), UNCORRECTABLE);
    assert_eq!(dword(&log, CORRECTABLE_MASK), CORRECTABLE);
    log.refused(Refusal::CompleterAbort, &READ);
    let mut whole = [0; 4096];
    log.read(0, &mut whole);
    for at in 0..4096_u16 {
        let mut byte = [0];
        log.read(at, &mut byte);
        assert_eq!(byte[0], whole[usize::from(at)], "{at:#x}");
    }
    log.read(u16::MAX, &mut [0; 8]);
    log.write(u16::MAX, &[0xff; 8]);
}
