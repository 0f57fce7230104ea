// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ends of commands that wait at their stages, as often as may be: each stage comes once, and in its place.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;

use super::super::complete;
use super::*;
use crate::channel::Channel;

/// Makes each stage wait a number of times.
#[derive(Default)]
struct Stages {
    waits: [Cell<usize>; 3],
    done: RefCell<Vec<(Stage, u64)>>,
}

impl Stages {
    fn pass(&self, stage: Stage, value: u64) -> Result<(), ()> {
        let waits = &self.waits[stage as usize - Stage::Fence as usize];
        if waits.get() > 0 {
            waits.set(waits.get() - 1);
            return Err(());
        }
        self.done.borrow_mut().push((stage, value));
        Ok(())
    }
}

impl Completion for Stages {
    type Error = ();

    fn fence(&self, value: Option<u64>) -> Result<(), ()> {
        self.pass(Stage::Fence, value.unwrap_or(0))
    }

    fn get(&self, get: u32) -> Result<(), ()> {
        self.pass(Stage::Get, get.into())
    }

    fn note(&self, done: &Turn) -> bool {
        assert_eq!(self.done.borrow().last(), Some(&(Stage::Get, done.get.into())), "in memory first");
        false
    }

    fn interrupt(&self) -> Result<(), ()> {
        self.pass(Stage::Interrupt, 0)
    }
}

fn any_turn() -> Turn {
    let channel = Channel::new(vmm_sys_util::eventfd::EventFd::new(0).unwrap());
    assert!(channel.set_up(|setup| {
        *setup = Setup { ring_base: 0x1000, control_block: 0x2000, ring_order: 4, ..Setup::default() };
    }));
    assert!(matches!(channel.switch(true, 1, |_| ()), ChannelSwitched::Enabled(_)));
    match channel.take_up(0, |_| true) {
        Found::Turn(turn, None) => turn,
        found => panic!("{found:?}"),
    }
}

proptest! {
    #[test]
    fn each_stage_comes_once_and_in_its_place(waits: [u8; 3], fence in 1_u64.., has_fence: bool, interrupt: bool) {
        let waits = waits.map(|times| usize::from(times % 4));
        let to = Stages { waits: waits.map(Cell::new), ..Stages::default() };
        let mut turn = any_turn();
        let fence = has_fence.then_some(fence);
        let (mut stage, mut suspended) = (Stage::Work, 0);
        let go_on = loop {
            let before = (turn.get, stage);
            match complete(&to, &mut turn, &mut stage, fence, interrupt) {
                Ok(go_on) => break go_on,
                Err(()) => suspended += 1,
            }
            prop_assert!(before.1 <= stage && before.0 <= turn.get);
            prop_assert_eq!(turn.get, u32::from(stage == Stage::Interrupt), "GET moves with its stage");
        };
        let last = if interrupt { 3 } else { 2 };
        prop_assert_eq!(suspended, waits[..last].iter().sum::<usize>());
        let mut expected = vec![(Stage::Fence, fence.unwrap_or(0)), (Stage::Get, 1), (Stage::Interrupt, 0)];
        expected.truncate(last);
        prop_assert_eq!(to.done.take(), expected);
        prop_assert_eq!((turn.get, turn.fence), (1, fence.unwrap_or(0)));
        // Only the stage of GET learns whether the channel is to go on.
        prop_assert_eq!(go_on, waits[2] > 0 && interrupt);
    }
}
