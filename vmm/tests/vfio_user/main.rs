// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The GPU over vfio-user with no VM at all: clients enumerate it, have it copy, are interrupted, reset it ([`behaviour`]), have
//! their commands held from outside ([`control`]), and misbehave in every way ([`hostile`]).

mod behaviour;
#[path = "../card/mod.rs"]
mod card;
mod control;
mod effects;
mod hostile;
mod rig;
